"""The MLP: the literature's default, seeds, shapes, conditions, precisions."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fm_core.errors import ConditionError, ShapeError
from fm_plugins.networks.mlp import ACTIVATIONS, MLP

VARIANTS: list[dict[str, Any]] = [
    {},
    {"time": "fourier"},
    {"classes": 3},
    {"cond_dim": 5, "time": "fourier", "activation": "silu", "depth": 1, "width": 16},
]
every_variant = pytest.mark.parametrize("options", VARIANTS, ids=str)
every_shape = pytest.mark.parametrize("shape", [(2,), (4,), (1,), (), (1, 8, 8), (3, 2)], ids=str)


def condition(options: dict[str, Any], batch: int) -> Tensor | None:
    if "classes" in options:
        return torch.arange(batch).remainder(options["classes"] + 1)
    if "cond_dim" in options:
        return torch.randn(batch, options["cond_dim"], generator=torch.Generator().manual_seed(7))
    return None


def states(shape: tuple[int, ...], batch: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *shape, generator=g, dtype=dtype), torch.rand(batch, generator=g, dtype=dtype)


def literature() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(3, 64), nn.SELU(), nn.Linear(64, 64), nn.SELU(), nn.Linear(64, 64), nn.SELU(), nn.Linear(64, 2))
    )


def test_default_is_the_literatures_network_on_state_and_time() -> None:
    net, reference = MLP(2, seed=0), literature()
    reference.load_state_dict(net.net.state_dict())
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in reference.parameters()) == 8706
    x, t = states((2,), 9)
    torch.testing.assert_close(net(x, t), reference(torch.cat([x, t[:, None]], 1)), rtol=0, atol=0)


def test_torchcfm_state_dict_loads() -> None:
    """TorchCFM calls its layers net.0 … net.6."""
    theirs = {f"net.{name}": tensor for name, tensor in literature().state_dict().items()}
    net = MLP(2)
    net.load_state_dict(theirs)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in theirs.items())


def test_weights_of_a_seed_are_what_torch_would_draw() -> None:
    """PyTorch's initialisation, so published training recipes keep their meaning."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        reference = literature()
        embedding = nn.Embedding(4, 64)
    assert all(torch.equal(a, b) for a, b in zip(MLP(2, seed=11).parameters(), reference.parameters(), strict=True))
    conditional = MLP(2, classes=3, seed=11)
    assert conditional.embed_class is not None
    assert conditional.embed_class.weight.shape == embedding.weight.shape
    assert abs(conditional.embed_class.weight.std().item() - 1) < 0.2


@every_variant
def test_equal_seeds_give_equal_weights_whatever_the_global_seed(options: dict[str, Any]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = MLP(2, seed=5, **options)
        torch.manual_seed(1)
        second = MLP(2, seed=5, **options)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(p.isfinite().all() for p in first.parameters())


@pytest.mark.parametrize("seed", [None, 3])
def test_construction_leaves_global_generators_alone(seed: int | None) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index] # noqa: NPY002
    MLP(2, classes=4, time="fourier", seed=seed)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]  # type: ignore[index] # noqa: NPY002


def test_no_seed_gives_fresh_weights() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = MLP(2)
        torch.manual_seed(0)
        second = MLP(2)
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


@every_variant
@every_shape
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_output_has_the_states_shape(shape: tuple[int, ...], batch: int, options: dict[str, Any]) -> None:
    x, t = states(shape, batch)
    y = MLP(shape, seed=0, **options)(x, t, condition(options, batch))
    assert y.shape == x.shape
    assert y.isfinite().all()


@every_variant
@every_shape
def test_a_row_depends_on_no_other_row(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    net = MLP(shape, seed=0, **options).double()
    x, t = states(shape, 5, torch.float64)
    cond = condition(options, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = net(x[order], t[order], None if cond is None else cond[order])
    torch.testing.assert_close(shuffled, net(x, t, cond)[order], rtol=0, atol=1e-13)
    disturbed = x.clone()
    disturbed[1:] = 100.0
    torch.testing.assert_close(net(disturbed, t, cond)[0], net(x, t, cond)[0], rtol=0, atol=1e-13)


@every_variant
def test_output_depends_on_time_and_condition(options: dict[str, Any]) -> None:
    net = MLP(2, seed=0, **options)
    x, t = states((2,), 4)
    cond = condition(options, 4)
    assert (net(x, t, cond) - net(x, (t + 0.5) % 1, cond)).abs().min() > 0
    if cond is not None:
        assert (net(x, t, cond) - net(x, t, cond.roll(1, 0))).abs().min() > 0


@every_variant
def test_gradient_reaches_every_parameter(options: dict[str, Any]) -> None:
    net = MLP(2, seed=0, **options)
    x, t = states((2,), 8)
    net(x, t, condition(options, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_fourier_time_is_the_ddpm_embedding_of_1000_t() -> None:
    """Against Vaswani's formula written out, for index k = 1000·t."""
    net = MLP(2, time="fourier", width=8, seed=0).double()
    assert net.embed_time is not None
    t = torch.tensor([0.0, 0.123, 1.0], dtype=torch.float64)
    k, half = 1000 * t[:, None], 4
    omega = torch.tensor([10_000 ** (-i / half) for i in range(half)], dtype=torch.float64)
    expected = net.embed_time.mix(torch.cat([torch.sin(k * omega), torch.cos(k * omega)], 1))
    torch.testing.assert_close(net.embed_time(t, torch.float64), expected, rtol=0, atol=1e-12)


@every_variant
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_network_runs_in_its_own_dtype(dtype: torch.dtype, options: dict[str, Any]) -> None:
    """Times are float32 or better beside bfloat16 states; the network rounds them itself."""
    net = MLP(2, seed=0, **options)
    x, t = states((2,), 6)
    cond = condition(options, 6)
    y = copy.deepcopy(net).to(dtype)(x.to(dtype), t.to(torch.promote_types(dtype, torch.float32)), cond)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), net(x, t, cond), rtol=0, atol=1e-4 if dtype == torch.float64 else 0.1)


def test_fourier_time_of_a_bfloat16_network_is_only_rounded_at_the_end() -> None:
    """Sines of 1000·t with t or the frequencies in bfloat16 would be noise."""
    net = MLP(2, time="fourier", width=8, seed=0).double()
    assert net.embed_time is not None
    net.embed_time.mix.load_state_dict({"weight": torch.eye(8), "bias": torch.zeros(8)})
    t = torch.tensor([0.123, 0.999, 1.0])
    exact = net.embed_time(t.double(), torch.float64)
    net.to(torch.bfloat16)
    rounded = net.embed_time(t, torch.bfloat16)
    torch.testing.assert_close(rounded.double(), exact, rtol=0, atol=2**-8)


@every_variant
def test_network_runs_under_autocast(options: dict[str, Any]) -> None:
    net = MLP(2, seed=0, **options)
    x, t = states((2,), 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(x, t, condition(options, 6))
    torch.testing.assert_close(y.float(), net(x, t, condition(options, 6)), rtol=0, atol=0.1)


@every_variant
@pytest.mark.parametrize("shape", [(2,), (1, 8, 8)], ids=str)
def test_network_compiles_without_graph_break(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    net = MLP(shape, seed=0, **options)
    x, t = states(shape, 3)
    cond = condition(options, 3)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t, cond), net(x, t, cond))


@every_variant
def test_state_dict_round_trip_gives_the_same_network(options: dict[str, Any]) -> None:
    net, other = MLP(2, seed=0, **options), MLP(2, seed=1, **options)
    x, t = states((2,), 4)
    cond = condition(options, 4)
    assert not torch.equal(other(x, t, cond), net(x, t, cond))
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(x, t, cond), net(x, t, cond), rtol=0, atol=0)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_is_the_named_one(activation: str) -> None:
    net = MLP(2, activation=activation, seed=0)
    assert [type(layer) for layer in list(net.net)[1::2]] == [ACTIVATIONS[activation]] * 3


def test_wrong_event_shape_is_refused_even_with_as_many_numbers() -> None:
    net, t = MLP((2, 2)), torch.zeros(3)
    with pytest.raises(ShapeError, match=r"takes states \(B, 2, 2\).*shape=\(4,\)"):
        net(torch.zeros(3, 4), t)
    with pytest.raises(ShapeError, match=r"\(B, 4\)"):
        MLP(4)(torch.zeros(3, 2), t)


def test_missing_and_unexpected_conditions_are_refused() -> None:
    x, t = states((2,), 3)
    with pytest.raises(ConditionError, match=r"needs a condition, integer labels.*got none"):
        MLP(2, classes=3)(x, t)
    with pytest.raises(ConditionError, match=r"needs a condition, vectors \(B, 5\)"):
        MLP(2, cond_dim=5)(x, t)
    with pytest.raises(ConditionError, match="takes no condition"):
        MLP(2)(x, t, torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("cond", "error"),
    [
        (torch.tensor([0, 1, 4]), ConditionError),
        (torch.tensor([-1, 0, 1]), ConditionError),
        (torch.zeros(3), ShapeError),
        (torch.zeros(2, dtype=torch.int64), ShapeError),
        (torch.zeros(3, 1), ShapeError),
    ],
    ids=["too large", "negative", "float", "batch", "two-dimensional"],
)
def test_labels_that_are_none_are_refused(cond: Tensor, error: type[Exception]) -> None:
    x, t = states((2,), 3)
    with pytest.raises(error, match="0 … 3, where 3 means no class"):
        MLP(2, classes=3)(x, t, cond)


@pytest.mark.parametrize(
    "cond", [torch.zeros(3, 4), torch.zeros(2, 5), torch.zeros(5)], ids=["length", "batch", "flat"]
)
def test_condition_vectors_of_another_shape_are_refused(cond: Tensor) -> None:
    x, t = states((2,), 3)
    with pytest.raises(ShapeError, match=r"vectors \(B, 5\), B = 3"):
        MLP(2, cond_dim=5)(x, t, cond)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width is at least 1"),
        ({"depth": 0}, "depth is at least 1"),
        ({"classes": 0}, "classes is at least 1"),
        ({"activation": "sellu"}, "did you mean 'selu'"),
        ({"time": "fourrier"}, "did you mean 'fourier'"),
        ({"time": "fourier", "width": 7}, "even"),
        ({"classes": 2, "cond_dim": 2}, "both"),
        ({"shape": (2, 0)}, "event shape"),
    ],
    ids=str,
)
def test_bad_options_are_refused_when_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(**{"shape": 2, **options})
