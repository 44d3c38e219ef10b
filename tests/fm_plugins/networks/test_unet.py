"""U-Net: DDPM's and ADM's equations, shapes, conditions, memory formats, recomputation, compilation, seeds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fm_core.errors import ConditionError, ShapeError
from fm_core.randomness import make_generator
from fm_plugins.networks.unet import UNet
from fm_plugins.networks.unet_sizes import unet_cifar10, unet_small, unet_tiny

SMALL: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "blocks": 1, "heads": 2, "seed": 0}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"film": False, "attention": (0,), "classes": 3},
    {"cond_dim": 5, "blocks": 2},
    {"context_dim": 6, "attention": (0, -1)},
    {"classes": 3, "cond_dim": 5, "context_dim": 6, "multipliers": (1, 2, 3), "out_channels": 4},
]
every_variant = pytest.mark.parametrize("options", VARIANTS, ids=str)
SHAPE = (2, 8, 6)


def build(shape: tuple[int, ...] = SHAPE, **options: Any) -> UNet:
    return UNet(shape, **{**SMALL, **options})


def stirred(net: nn.Module, seed: int = 1) -> Any:
    """The network with no weight at zero, as training leaves it."""
    g = make_generator(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return net


def condition(options: dict[str, Any], batch: int, dtype: torch.dtype = torch.float32) -> Any:
    g = make_generator(7)
    every: dict[str, Any] = {}
    if "classes" in options:
        every["class"] = torch.arange(batch).remainder(options["classes"] + 1)
    if "cond_dim" in options:
        every["vector"] = torch.randn(batch, options["cond_dim"], generator=g, dtype=dtype)
    if "context_dim" in options:
        every["context"] = torch.randn(batch, 3, options["context_dim"], generator=g, dtype=dtype)
    if len(every) == 1:
        return next(iter(every.values()))
    return every or None


def rows(cond: Any, index: Tensor) -> Any:
    if isinstance(cond, dict):
        return {name: value[index] for name, value in cond.items()}
    return None if cond is None else cond[index]


def states(shape: tuple[int, ...], batch: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    g = make_generator(batch)
    return torch.randn(batch, *shape, generator=g, dtype=dtype), torch.rand(batch, generator=g, dtype=dtype)


def theirs(film: bool, shape: tuple[int, int, int]) -> Any:
    """diffusers' U-Net of DDPM, with this library's frequencies and paddings."""
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng():
        net = diffusers.UNet2DModel(
            sample_size=shape[1:],
            in_channels=shape[0],
            out_channels=shape[0],
            block_out_channels=(128, 128),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            attention_head_dim=32,
            norm_num_groups=32,
            attn_norm_num_groups=32,
            norm_eps=1e-5,
            freq_shift=0,
            flip_sin_to_cos=False,
            downsample_padding=1,
            resnet_time_scale_shift="scale_shift" if film else "default",
        )
    return net.double().eval()


def translated(name: str) -> str:
    """A diffusers name of a weight, as this library calls it."""
    kind, _, rest = name.partition(".")
    layer = rest.split(".")
    if kind == "time_embedding":
        return f"embed_time.{ {'linear_1': 'enter', 'linear_2': 'leave'}[layer[0]] }.{layer[1]}"
    if kind in {"conv_in", "conv_out", "conv_norm_out"}:
        return {"conv_in": "encoder.enter", "conv_out": "leave", "conv_norm_out": "norm"}[kind] + f".{rest}"
    if kind == "mid_block":
        where, part = "middle", layer[0]
        home = f"{where}.first" if part == "attentions" or layer[1] == "0" else f"{where}.second"
        inner = layer[2:]
    else:
        level, part, inner = layer[0], layer[1], layer[3:]
        if part in {"downsamplers", "upsamplers"}:
            return {"downsamplers": "encoder.shrink", "upsamplers": "grow"}[part] + f".{level}.{'.'.join(inner)}"
        home = {"down_blocks": "encoder.down", "up_blocks": "up"}[kind] + f".{level}.{layer[2]}"
    renamed = {
        "time_emb_proj": "modulate",
        "conv_shortcut": "skip",
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "kv",
        "to_v": "kv",
        "to_out": "leave",
    }
    inner = [renamed.get(word, word) for word in inner if word != "0"]
    return f"{home}.{'residual' if part == 'resnets' else 'attention'}.{'.'.join(inner)}"


@pytest.mark.parametrize("film", [True, False])
def test_equals_diffusers_unet_with_its_weights(film: bool) -> None:
    """An independent implementation of DDPM's and ADM's network; H ≠ W tells rows from columns in attention."""
    shape = (3, 8, 12)
    reference = stirred(theirs(film, shape))
    net = UNet(shape, width=128, multipliers=(1, 1), blocks=1, attention=(-1,), heads=4, film=film, seed=0).double()
    weights: dict[str, Tensor] = {}
    for name, tensor in reference.state_dict().items():
        ours = translated(name)
        weights[ours] = torch.cat([weights[ours], tensor]) if ours in weights else tensor
    net.load_state_dict(weights)
    x, t = states(shape, 2, torch.float64)
    expected = reference(x, 1000 * t).sample
    # Their sinusoids are float32, of angles up to 1000.
    torch.testing.assert_close(net(x, t), expected, rtol=0, atol=2e-4 * float(expected.detach().std()))


def test_middle_has_one_head_where_asked() -> None:
    """DDPM's attention has one head: several would be another function of the same weights."""
    x, t = states(SHAPE, 2)
    one, two = stirred(build(heads=1)), stirred(build(heads=2))
    two.load_state_dict(one.state_dict())
    assert (one(x, t) - two(x, t)).abs().max() > 1e-6


def test_named_sizes_have_their_parameters() -> None:
    """DDPM's CIFAR-10 network has 35.7 M: 35,746,307 in diffusers' google/ddpm-cifar10-32, which holds its weights."""
    with torch.device("meta"):
        nets = [size(seed=0) for size in (unet_tiny, unet_small, unet_cifar10)]
    assert [sum(p.numel() for p in net.parameters()) for net in nets] == [TINY, 6_946_881, 35_746_307]


TINY = 304_673


@every_variant
def test_untrained_network_returns_zeros(options: dict[str, Any]) -> None:
    net = build(**options)
    y = net(*states(SHAPE, 3), condition(options, 3))
    assert y.shape == (3, options.get("out_channels", 2), *SHAPE[1:])
    assert torch.equal(y, torch.zeros_like(y))


def test_residual_branches_start_at_zero() -> None:
    """However deep, an untrained network is a shallow one: its middle, attention and all, is the identity."""
    net = build(context_dim=6)
    g = make_generator(3)
    x, e, context = (torch.randn(2, *shape, generator=g) for shape in ((16, 4, 3), (32,), (3, 6)))
    assert torch.equal(net.middle(x, e, context), x)
    assert not torch.equal(stirred(net).middle(x, e, context), x)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 7, 5), (3, 9, 12), (2, 13, 4), (1, 4, 4)], ids=str)
@pytest.mark.parametrize("batch", [1, 4])
def test_any_sides_are_taken_odd_ones_too(shape: tuple[int, int, int], batch: int) -> None:
    x, t = states(shape, batch)
    y = stirred(build(shape, multipliers=(1, 1, 2)))(x, t)
    assert y.shape == x.shape
    assert y.isfinite().all()


@every_variant
@pytest.mark.parametrize("batch", [1, 2])
def test_a_row_depends_on_no_other_row(options: dict[str, Any], batch: int) -> None:
    net = stirred(build(**options)).double()
    x, t = states(SHAPE, 4, torch.float64)
    cond = condition(options, 4, torch.float64)
    order = torch.tensor([2, 0, 3, 1])
    whole = net(x, t, cond)
    torch.testing.assert_close(net(x[order], t[order], rows(cond, order)), whole[order], rtol=0, atol=1e-12)
    few = order[:batch]
    torch.testing.assert_close(net(x[few], t[few], rows(cond, few)), whole[few], rtol=0, atol=1e-12)
    disturbed = x.clone()
    disturbed[1:] = 100.0
    torch.testing.assert_close(net(disturbed, t, cond)[0], whole[0], rtol=0, atol=1e-12)


@every_variant
def test_output_depends_on_time_and_on_every_condition(options: dict[str, Any]) -> None:
    net = stirred(build(**options))
    x, t = states(SHAPE, 4)
    cond = condition(options, 4)
    whole = net(x, t, cond)
    assert (whole - net(x, (t + 0.5) % 1, cond)).flatten(1).abs().amax(1).min() > 1e-6
    if isinstance(cond, Tensor):
        assert (whole - net(x, t, cond.roll(1, 0))).flatten(1).abs().amax(1).min() > 1e-6
    for name in cond if isinstance(cond, dict) else ():
        changed = {**cond, name: cond[name].roll(1, 0)}
        assert (whole - net(x, t, changed)).flatten(1).abs().amax(1).min() > 1e-6, name


@every_variant
def test_gradient_reaches_every_parameter(options: dict[str, Any]) -> None:
    net = stirred(build(**options))
    net(*states(SHAPE, 4), condition(options, 4)).square().sum().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead


@every_variant
def test_equal_seeds_give_equal_weights_whatever_the_global_seed(options: dict[str, Any]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = build(**options)
        torch.manual_seed(1)
        second = build(**options)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert all(p.isfinite().all() for p in first.parameters())
    other = build(**{**options, "seed": 1})
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize("seed", [None, 3])
def test_construction_and_call_leave_global_generators_alone(seed: int | None) -> None:
    net = build(seed=seed, classes=3, cond_dim=2, context_dim=4, checkpoint=True)
    cond = condition({"classes": 3, "cond_dim": 2, "context_dim": 4}, 2)
    net(*states(SHAPE, 2), cond).sum().backward()


@every_variant
@pytest.mark.parametrize("training", [True, False])
def test_recomputation_gives_identical_gradients(options: dict[str, Any], training: bool) -> None:
    """With dropout: what is computed again must draw the same again."""
    kept = stirred(build(**options, dropout=0.3)).train(training)
    again = copy.deepcopy(kept)
    again.encoder.checkpoint = True
    x, t = states(SHAPE, 3)
    cond = condition(options, 3)
    outputs = []
    for net in (kept, again):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            y = net(x, t, cond)
            y.square().sum().backward()
            outputs.append(y)
    assert torch.equal(*outputs)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(kept.parameters(), again.parameters(), strict=True))


def test_recomputation_keeps_fewer_values() -> None:
    """Else the option would do nothing."""

    def kept(net: UNet) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            net(*states(SHAPE, 4))
        return sum(sizes)

    assert kept(build(checkpoint=True)) < 0.5 * kept(build())


@every_variant
def test_channels_last_gives_the_same(options: dict[str, Any]) -> None:
    net = stirred(build(**options))
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    x, t = states(SHAPE, 3)
    cond = condition(options, 3)
    expected = net(x, t, cond)
    for given in (x, x.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(last(given, t, cond), expected, rtol=1e-4, atol=1e-4)


@every_variant
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_network_runs_in_its_own_dtype(dtype: torch.dtype, options: dict[str, Any]) -> None:
    """Times are float32 or better beside bfloat16 states; conditions come in any dtype."""
    net = stirred(build(**options))
    x, t = states(SHAPE, 3)
    cond = condition(options, 3)
    expected = net(x, t, cond)
    y = copy.deepcopy(net).to(dtype)(x.to(dtype), t.to(torch.promote_types(dtype, torch.float32)), cond)
    assert y.dtype == dtype
    scale = float(expected.detach().std())
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=(1e-4 if dtype == torch.float64 else 0.3) * scale)


@every_variant
def test_network_runs_under_autocast(options: dict[str, Any]) -> None:
    net = stirred(build(**options))
    x, t = states(SHAPE, 3)
    cond = condition(options, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(x, t, cond)
        y.float().square().sum().backward()
    expected = net(x, t, cond).detach()
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=0.3 * float(expected.std()))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("checkpoint", [False, True])
def test_network_compiles_without_graph_break(checkpoint: bool) -> None:
    options = {"classes": 3, "cond_dim": 5, "context_dim": 6, "attention": (0,)}
    net = stirred(build(**options, checkpoint=checkpoint))
    x, t = states(SHAPE, 3)
    cond = condition(options, 3)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t, cond), net(x, t, cond), rtol=1e-4, atol=1e-5)


def test_dropout_acts_while_training_only() -> None:
    net = stirred(build(dropout=0.5))
    x, t = states(SHAPE, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(net(x, t), net(x, t))
    net.eval()
    assert torch.equal(net(x, t), net(x, t))


def test_image_turned_by_a_right_angle_is_no_error_of_attention() -> None:
    """With kernels of one pixel a U-Net commutes with transposition; attention that mixed up H and W would not."""
    options = {"multipliers": (1,), "attention": (0,)}
    net, turned = stirred(build((2, 8, 6), **options)), build((2, 6, 8), **options)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                centre = module.weight[:, :, 1, 1].clone()
                module.weight.zero_()[:, :, 1, 1] = centre
    turned.load_state_dict(net.state_dict())
    x, t = states((2, 8, 6), 3)
    torch.testing.assert_close(turned(x.mT, t).mT, net(x, t), rtol=1e-4, atol=1e-5)


def test_masked_places_of_a_sequence_are_not_seen() -> None:
    net = stirred(build(context_dim=6))
    x, t = states(SHAPE, 3)
    context = condition({"context_dim": 6}, 3)
    mask = torch.tensor([[True, True, False]] * 3)
    changed = context.clone()
    changed[:, 2] = 50.0
    shown = net(x, t, {"context": context, "mask": mask})
    torch.testing.assert_close(net(x, t, {"context": changed, "mask": mask}), shown, rtol=0, atol=1e-5)
    torch.testing.assert_close(net(x, t, context[:, :2]), shown, rtol=0, atol=1e-5)
    torch.testing.assert_close(net(x, t, {"context": context}), net(x, t, context), rtol=0, atol=0)


def test_sample_without_context_is_finite_and_sees_none() -> None:
    """The natural null: a mask that lets nothing through, of some rows only; its gradient must be finite too."""
    net = stirred(build(context_dim=6))
    x, t = states(SHAPE, 3)
    context = condition({"context_dim": 6}, 3)
    mask = torch.tensor([[False] * 3, [True] * 3, [False] * 3])
    y = net(x, t, {"context": context, "mask": mask})
    torch.testing.assert_close(y[1], net(x, t, context)[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(net(x, t, {"context": 7 * context, "mask": mask})[0], y[0], rtol=0, atol=1e-6)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_wrong_states_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"takes states \(B, 2, 8, 6\).*shape=\(2, 6, 8\)"):
        build()(torch.zeros(3, 2, 6, 8), torch.zeros(3))


BOTH = {"classes": 3, "cond_dim": 5}


@pytest.mark.parametrize(
    ("options", "cond", "error", "message"),
    [
        ({"classes": 3}, None, ConditionError, r"needs a condition, integer labels.*got none"),
        ({}, torch.zeros(3), ConditionError, "takes no condition.*shape \\(3,\\).*classes="),
        ({"classes": 3}, torch.tensor([0, 1, 4]), ConditionError, "0 … 3, where 3 means no class.*from 0 to 4"),
        ({"classes": 3}, torch.tensor([-1, 0, 1]), ConditionError, "from -1 to 1"),
        ({"classes": 3}, torch.zeros(3), ShapeError, "got torch.float32"),
        ({"classes": 3}, torch.zeros(2, dtype=torch.int64), ShapeError, "B = 3; got"),
        ({"cond_dim": 5}, torch.zeros(3, 4), ShapeError, r"vector has shape \(3, 5\); got \(3, 4\)"),
        ({"cond_dim": 5}, torch.zeros(5), ShapeError, r"\(3, 5\); got \(5,\)"),
        ({"context_dim": 6}, torch.zeros(3, 6), ShapeError, r"context has shape \(3, L, 6\); got \(3, 6\)"),
        ({"context_dim": 6}, torch.zeros(3, 2, 5), ShapeError, r"\(3, 2, 6\)"),
        (
            {"context_dim": 6},
            {"context": torch.zeros(3, 2, 6), "mask": torch.ones(3, 3, dtype=torch.bool)},
            ShapeError,
            r"mask has shape \(3, 2\)",
        ),
        ({"context_dim": 6}, {"context": torch.zeros(3, 2, 6), "mask": torch.ones(3, 2)}, ShapeError, "mask is bool"),
        (BOTH, torch.tensor([0, 1, 2]), ConditionError, "a dict of 'class': .*'vector'.*got one of shape"),
        (BOTH, {"class": torch.tensor([0, 1, 2])}, ConditionError, "'vector' is missing"),
        (
            BOTH,
            {"class": torch.tensor([0, 1, 2]), "vector": torch.zeros(3, 5), "clas": torch.zeros(3)},
            ConditionError,
            "got 'clas' besides; did you mean 'class'",
        ),
        ({"classes": 3}, "seven", ConditionError, "got a str"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(
    options: dict[str, Any], cond: Any, error: type[Exception], message: str
) -> None:
    x, t = states(SHAPE, 3)
    with pytest.raises(error, match=message):
        build(**options)(x, t, cond)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (8,)}, "takes images"),
        ({"shape": (0, 8, 8)}, "takes images"),
        ({"width": 7}, "even"),
        ({"width": 0}, "width is at least 2"),
        ({"blocks": 0}, "blocks is at least 1"),
        ({"multipliers": ()}, "at least one level"),
        ({"multipliers": (1, 0)}, "a multiplier is at least 1"),
        ({"multipliers": (1, 1, 1, 1)}, "halve the sides 3 times"),
        ({"attention": (2,)}, r"0 \(the finest\) to 1, .*; got 2"),
        ({"heads": 3}, "heads divide"),
        ({"classes": 0}, "classes is at least 1"),
        ({"context_dim": 0}, "context_dim is at least 1"),
    ],
    ids=str,
)
def test_bad_options_are_refused_when_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**{"shape": SHAPE, **SMALL, **options})
