"""DiT: published sizes, adaLN-Zero at the start, an independent implementation's outputs, conditions, precisions."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fm_core.errors import ConditionError, ShapeError
from fm_core.randomness import make_generator
from fm_plugins.networks.dit import DiT
from fm_plugins.networks.dit_sizes import dit_b, dit_l, dit_s, dit_xl

SHAPE = (3, 8, 12)
SMALL: dict[str, Any] = {"patch": 2, "width": 24, "depth": 2, "heads": 3, "seed": 0}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"classes": 3, "patch": 4},
    {"cond_dim": 5, "patch": 1, "depth": 1},
    {"classes": 3, "cond_dim": 5, "out_channels": 6},
]
every_variant = pytest.mark.parametrize("options", VARIANTS, ids=str)


def build(shape: tuple[int, ...] = SHAPE, **options: Any) -> DiT:
    return DiT(shape, **{**SMALL, **options})


def stirred(net: nn.Module, seed: int = 1) -> Any:
    """The network with no weight at zero, as training leaves it."""
    g = make_generator(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return net


def condition(options: dict[str, Any], batch: int) -> Any:
    labels = torch.arange(batch).remainder(4)
    vectors = torch.randn(batch, 5, generator=make_generator(7), dtype=torch.float64)
    every = {
        **({"class": labels} if "classes" in options else {}),
        **({"vector": vectors} if "cond_dim" in options else {}),
    }
    return next(iter(every.values()), None) if len(every) < 2 else every


def rows(cond: Any, index: Tensor) -> Any:
    if isinstance(cond, dict):
        return {name: value[index] for name, value in cond.items()}
    return None if cond is None else cond[index]


def states(batch: int, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
    g = make_generator(batch)
    return torch.randn(batch, *shape, generator=g, dtype=dtype), torch.rand(batch, generator=g, dtype=dtype)


@pytest.mark.parametrize(
    ("size", "millions"),
    [(dit_s, 33), (dit_b, 130), (dit_l, 458), (dit_xl, 675)],
    ids=["dit_s", "dit_b", "dit_l", "dit_xl"],
)
def test_published_sizes_have_their_published_parameters(size: Any, millions: int) -> None:
    """Peebles & Xie 2023, table 4: latents of 32 × 32 × 4, 1,000 classes, a variance beside the noise."""
    with torch.device("meta"):
        net = size(patch=2, classes=1000, out_channels=8, seed=0)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6) == millions


def test_dit_xl_2_has_the_released_networks_parameters() -> None:
    """Its released weights hold 675,129,632 numbers, the table of positions among them."""
    with torch.device("meta"):
        net = dit_xl(classes=1000, out_channels=8, seed=0)
    assert sum(p.numel() for p in net.parameters()) + net.position.numel() == 675_129_632


@every_variant
def test_untrained_network_returns_zeros(options: dict[str, Any]) -> None:
    net = build(**options)
    y = net(*states(4), condition(options, 4))
    assert y.shape == (4, options.get("out_channels", 3), *SHAPE[1:])
    assert torch.equal(y, torch.zeros_like(y))


def test_every_block_starts_as_the_identity() -> None:
    net = build(depth=3, classes=3)
    g = make_generator(3)
    z, e = torch.randn(2, 24, 24, generator=g), torch.randn(2, 24, generator=g)
    assert all(torch.equal(block(z, e), z) for block in net.blocks)
    assert all(not torch.equal(block(z, e), z) for block in stirred(net).blocks)


def test_patches_come_back_as_the_image() -> None:
    """Rows and columns kept apart: H ≠ W, patches larger than one pixel."""
    net = build(patch=4)
    x, _ = states(2)
    patches = net._patches(x)
    assert patches.shape == (2, 2 * 3, 3 * 16)
    torch.testing.assert_close(patches[:, 4].reshape(2, 3, 4, 4), x[:, :, 4:8, 4:8], rtol=0, atol=0)
    published = patches.unflatten(2, (3, 16)).transpose(2, 3).flatten(2)  # (C, p, p) to (p, p, C)
    torch.testing.assert_close(net._image(published), x, rtol=0, atol=0)


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    """Written out for one token: row 1, column 2 of 4 × 6."""
    position = build().position
    assert position.shape == (24, 24)
    omega = [10_000 ** (-i / 6) for i in range(6)]
    expected = [f(2 * w) for f in (math.sin, math.cos) for w in omega]
    expected += [f(1 * w) for f in (math.sin, math.cos) for w in omega]
    torch.testing.assert_close(position[1 * 6 + 2], torch.tensor(expected), rtol=0, atol=1e-6)


def test_equals_diffusers_dit_with_its_weights() -> None:
    """An independent implementation of the published network."""
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng():
        reference = diffusers.DiTTransformer2DModel(
            num_attention_heads=3,
            attention_head_dim=8,
            in_channels=3,
            out_channels=6,
            num_layers=2,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=5,
            norm_eps=1e-6,
        )
    stirred(reference).double().eval()
    for block in reference.transformer_blocks:
        # Each has an embedding of its own; theirs spreads the frequencies by 127 where the paper's does by 128.
        block.norm1.emb.load_state_dict(reference.transformer_blocks[0].norm1.emb.state_dict())
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    net = DiT((3, 8, 8), width=24, depth=2, heads=3, patch=2, classes=5, out_channels=6, seed=0).double()
    net.load_state_dict(weights_of(reference))
    x, t = states(6, torch.float64, (3, 8, 8))
    labels = torch.arange(6)
    # Their sinusoids and positions are float32, so the angles 1000·t are kept below 10.
    expected = reference(x, timestep=10 * t, class_labels=labels).sample
    torch.testing.assert_close(net(x, t / 100, labels), expected, rtol=0, atol=1e-5 * float(expected.detach().std()))


def weights_of(reference: Any) -> dict[str, Tensor]:
    """diffusers' weights by this library's names."""

    def layer(ours: str, module: nn.Module) -> dict[str, Tensor]:
        return {
            f"{ours}.{name}": tensor.flatten(1) if name == "weight" else tensor
            for name, tensor in module.state_dict().items()
        }

    first = reference.transformer_blocks[0].norm1.emb
    weights = {
        **layer("enter", reference.pos_embed.proj),
        **layer("embed_time.enter", first.timestep_embedder.linear_1),
        **layer("embed_time.leave", first.timestep_embedder.linear_2),
        "embed_cond.rows.weight": first.class_embedder.embedding_table.weight,
        **layer("modulate", reference.proj_out_1),
        **layer("leave", reference.proj_out_2),
    }
    # Theirs puts cosines first.
    sines = weights["embed_time.enter.weight"]
    weights["embed_time.enter.weight"] = torch.cat([sines[:, 128:], sines[:, :128]], 1)
    for i, block in enumerate(reference.transformer_blocks):
        attention = block.attn1
        weights |= {
            **layer(f"blocks.{i}.modulate", block.norm1.linear),
            **layer(f"blocks.{i}.mix", attention.to_out[0]),
            **layer(f"blocks.{i}.widen", block.ff.net[0].proj),
            **layer(f"blocks.{i}.narrow", block.ff.net[2]),
        }
        for name in ("weight", "bias"):
            parts = [getattr(part, name) for part in (attention.to_q, attention.to_k, attention.to_v)]
            weights[f"blocks.{i}.qkv.{name}"] = torch.cat(parts)
    return weights


@every_variant
@pytest.mark.parametrize("batch", [1, 2])
def test_a_row_depends_on_no_other_row(options: dict[str, Any], batch: int) -> None:
    net = stirred(build(**options)).double()
    x, t = states(4, torch.float64)
    cond = condition(options, 4)
    order = torch.tensor([2, 0, 3, 1])
    whole = net(x, t, cond)
    torch.testing.assert_close(net(x[order], t[order], rows(cond, order)), whole[order], rtol=0, atol=1e-12)
    few = order[:batch]
    torch.testing.assert_close(net(x[few], t[few], rows(cond, few)), whole[few], rtol=0, atol=1e-12)


@every_variant
def test_output_depends_on_time_and_on_every_condition(options: dict[str, Any]) -> None:
    net = stirred(build(**options))
    x, t = states(4)
    cond = condition(options, 4)
    whole = net(x, t, cond)
    named = cond if isinstance(cond, dict) else {"": cond}
    assert (whole - net(x, (t + 0.5) % 1, cond)).flatten(1).abs().amax(1).min() > 1e-6
    for name, value in named.items() if cond is not None else ():
        changed = {**named, name: value.roll(1, 0)} if name else value.roll(1, 0)
        assert (whole - net(x, t, changed)).flatten(1).abs().amax(1).min() > 1e-6, name


@every_variant
def test_gradient_reaches_every_parameter(options: dict[str, Any]) -> None:
    net = stirred(build(**options))
    net(*states(4), condition(options, 4)).square().sum().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead


@every_variant
def test_recomputation_gives_identical_gradients(options: dict[str, Any]) -> None:
    kept = stirred(build(**options))
    again = copy.deepcopy(kept)
    again.checkpoint = True
    for net in (kept, again):
        net(*states(4), condition(options, 4)).square().sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(kept.parameters(), again.parameters(), strict=True))


@pytest.mark.usefixtures("global_rng_untouched")
@every_variant
def test_equal_seeds_give_equal_weights_and_leave_global_generators_alone(options: dict[str, Any]) -> None:
    first, second, other = build(**options), build(**options), build(**{**options, "seed": None})
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@every_variant
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_network_runs_in_its_own_dtype(dtype: torch.dtype, options: dict[str, Any]) -> None:
    net = stirred(build(**options))
    x, t = states(4)
    cond = condition(options, 4)
    expected = net(x, t, cond).detach()
    y = copy.deepcopy(net).to(dtype)(x.to(dtype), t.to(torch.promote_types(dtype, torch.float32)), cond)
    assert y.dtype == dtype
    tolerance = (1e-4 if dtype == torch.float64 else 0.2) * float(expected.std())
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=tolerance)


@every_variant
def test_network_runs_under_autocast(options: dict[str, Any]) -> None:
    net = stirred(build(**options))
    x, t = states(4)
    cond = condition(options, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(x, t, cond)
    expected = net(x, t, cond).detach()
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=0.2 * float(expected.std()))


def test_channels_last_gives_the_same() -> None:
    net = stirred(build())
    x, t = states(3)
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(x.to(memory_format=torch.channels_last), t), net(x, t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_network_compiles_without_graph_break(checkpoint: bool) -> None:
    net = stirred(build(classes=3, cond_dim=5, checkpoint=checkpoint))
    x, t = states(3)
    cond = condition({"classes": 3, "cond_dim": 5}, 3)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t, cond), net(x, t, cond))


def test_positions_are_no_weights() -> None:
    """They are fixed by the shape, so a saved network need not hold them; a copy has them."""
    net = stirred(build())
    assert "position" not in net.state_dict()
    other = build(**{**SMALL, "seed": 1})
    other.load_state_dict(net.state_dict())
    x, t = states(2)
    assert torch.equal(other(x, t), net(x, t))


def test_wrong_states_and_conditions_are_refused() -> None:
    t = torch.zeros(3)
    with pytest.raises(ShapeError, match=r"takes states \(B, 3, 8, 12\).*shape=\(3, 12, 8\)"):
        build()(torch.zeros(3, 3, 12, 8), t)
    with pytest.raises(ConditionError, match=r"0 … 3, where 3 means no class.*from 0 to 4"):
        build(classes=3)(torch.zeros(3, *SHAPE), t, torch.tensor([0, 4, 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (8, 8)}, "takes images"),
        ({"patch": 5}, "patches of 5 × 5 do not tile images of 8 × 12"),
        ({"patch": 0}, "patch is at least 1"),
        ({"depth": 0}, "depth is at least 1"),
        ({"width": 22}, "multiple of 4"),
        ({"heads": 5}, "heads = 5"),
        ({"classes": 0}, "classes is at least 1"),
    ],
    ids=str,
)
def test_bad_options_are_refused_when_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiT(**{"shape": SHAPE, **SMALL, **options})
