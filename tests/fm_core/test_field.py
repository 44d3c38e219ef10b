"""A field answers any prediction from one network call; guidances wrap it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor

from fm_core import Field, GaussianPath, Model, Prediction, PredictionError, ShapeError
from fm_core.prediction import GAUSSIAN_KINDS
from fm_core.testing import GaussianMixture

KINDS = sorted(GAUSSIAN_KINDS)
DATA = GaussianMixture([[-1.0, 0.0], [1.0, 1.0]], 0.5)


class Recorder:
    """A network that notes what it is called with and returns x (or several multiples of it)."""

    def __init__(self, outputs: int = 1, dtype: torch.dtype | None = None) -> None:
        self.outputs, self.calls, self.dtype = outputs, [], dtype

    def __call__(self, x: Tensor, t: Tensor, *cond: Any) -> Any:
        self.calls.append((x, t, *cond))
        made = tuple(((i + 1) * x).to(self.dtype or x.dtype) for i in range(self.outputs))
        return made if self.outputs > 1 else made[0]


@frozen
class Clip:
    """Keeps the predicted data within [−limit, limit]."""

    limit: float = 0.5
    needs = frozenset({Prediction.DATA})
    acts_on = Prediction.DATA

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        return field.predict(x_t, t, cond, Prediction.DATA, until=until).clamp(-self.limit, self.limit)


@frozen
class Blend:
    """u + s·(c − u), as classifier-free guidance; it acts in whatever space predictions arrive."""

    scale: float
    seen: list[Any]
    needs = frozenset()

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        self.seen.append((t, until))
        with_cond, without = (field.predict(x_t, t, c, field.native, until=until) for c in (cond, None))
        return without + self.scale * (with_cond - without)


def conditional(x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
    return x.cos() if cond is None else x.cos() + cond[:, None]


@pytest.fixture
def points() -> tuple[Tensor, Tensor]:
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64)


def test_all_kinds_come_from_one_network_call(path: GaussianPath, points: tuple[Tensor, Tensor]) -> None:
    x, t = points
    for predicts in KINDS:
        net = Recorder()
        values = Field(Model(net, predicts), path).predict(x, t, None, *KINDS)
        assert len(net.calls) == 1
        for kind, value in zip(KINDS, values, strict=True):
            torch.testing.assert_close(value, path.convert(x, x, t, src=predicts, dst=kind))


def test_one_kind_is_a_tensor_and_several_are_a_tuple(
    paths: dict[str, GaussianPath], points: tuple[Tensor, Tensor]
) -> None:
    field = DATA.field(paths["linear"])
    one = field.predict(*points, None, "data")
    several = field.predict(*points, None, "data", "noise")
    assert isinstance(one, Tensor)
    assert isinstance(several, tuple)
    torch.testing.assert_close(several[0], one)


@pytest.mark.parametrize("alias", ["noise", "eps"])
def test_a_network_with_several_outputs_is_taken_at_its_word(
    paths: dict[str, GaussianPath], points: tuple[Tensor, Tensor], alias: str
) -> None:
    """A kind that the network returns itself is not converted from another, by whatever name it is asked for."""
    x, t = points
    path, net = paths["cosine"], Recorder(outputs=2)
    field = Field(Model(net, ("velocity", "noise")), path)
    velocity, noise, data = field.predict(x, t, None, "velocity", alias, "data")
    assert len(net.calls) == 1
    assert torch.equal(velocity, x)
    assert torch.equal(noise, 2 * x)
    torch.testing.assert_close(data, path.convert(x, x, t, src=Prediction.VELOCITY, dst=Prediction.DATA))


@pytest.mark.parametrize("t", [0.3, torch.tensor(0.3), torch.full((4,), 0.3)], ids=["number", "scalar", "batch"])
def test_models_always_receive_one_time_per_sample(paths: dict[str, GaussianPath], t: Any) -> None:
    net = Recorder()
    cond = {"label": torch.arange(4)}
    Field(Model(net, "velocity"), paths["linear"]).predict(torch.zeros(4, 4), t, cond, "data")
    ((_, time, seen),) = net.calls
    assert time.shape == (4,)
    torch.testing.assert_close(time, torch.full((4,), 0.3))
    assert seen is cond


def test_a_network_of_another_signature_is_called_as_told(paths: dict[str, GaussianPath]) -> None:
    model = Model(lambda **kw: kw["z"] * kw["time"][:, None], "v", call=lambda net, x, t, cond: net(z=x, time=t))
    value = Field(model, paths["linear"]).predict(torch.ones(2, 3), 0.5, None, "v")
    torch.testing.assert_close(value, torch.full((2, 3), 0.5))


def test_guidance_on_data_bounds_the_data_and_all_else_follows(
    path: GaussianPath, points: tuple[Tensor, Tensor]
) -> None:
    x, t = points
    field = Field(DATA.model(path, "velocity"), path, (Clip(0.5),))
    assert field.native == Prediction.DATA
    clipped = DATA.predict(path, Prediction.DATA, x, t).clamp(-0.5, 0.5)
    for kind, value in zip(KINDS, field.predict(x, t, None, *KINDS), strict=True):
        torch.testing.assert_close(
            value, path.convert(clipped, x, t, src=Prediction.DATA, dst=kind), rtol=1e-9, atol=1e-9
        )


def test_guidance_on_any_space_commutes_with_conversion(path: GaussianPath, points: tuple[Tensor, Tensor]) -> None:
    """u + s·(c − u) has weights that sum to 1: guiding velocities or noises is the same."""
    x, t = points
    cond = torch.arange(4, dtype=torch.float64)
    until = torch.ones(4, dtype=torch.float64)
    seen: list[Any] = []
    field = Field(Model(conditional, "velocity"), path, (Blend(3.0, seen),))
    assert field.native == Prediction.VELOCITY
    u, c = x.cos(), x.cos() + cond[:, None]
    for kind in KINDS:
        convert = [path.convert(value, x, t, src=Prediction.VELOCITY, dst=kind) for value in (u, c)]
        expected = convert[0] + 3.0 * (convert[1] - convert[0])
        torch.testing.assert_close(field.predict(x, t, cond, kind, until=until), expected, rtol=1e-9, atol=1e-9)
    assert all(entry[1] is until for entry in seen)


def test_scale_one_is_no_guidance(paths: dict[str, GaussianPath], points: tuple[Tensor, Tensor]) -> None:
    path, cond = paths["linear"], torch.arange(4, dtype=torch.float64)
    plain = Field(Model(conditional, "velocity"), path)
    guided = Field(plain.model, path, (Blend(1.0, []),))
    torch.testing.assert_close(guided.predict(*points, cond, "data"), plain.predict(*points, cond, "data"))


def test_guidances_stack_the_first_innermost(paths: dict[str, GaussianPath], points: tuple[Tensor, Tensor]) -> None:
    x, t = points
    path, cond = paths["linear"], torch.arange(4, dtype=torch.float64)
    model = Model(conditional, "data")
    field = Field(model, path, (Clip(0.5), Blend(3.0, [])))
    u, c = (value.clamp(-0.5, 0.5) for value in (x.cos(), x.cos() + cond[:, None]))
    torch.testing.assert_close(field.predict(x, t, cond, "data"), u + 3.0 * (c - u))
    assert field.inner is not None
    assert field.inner.guidances == (Clip(0.5),)
    assert field.native == Prediction.DATA
    outer = Field(model, path, (Blend(3.0, []), Clip(0.5)))
    u, c = x.cos(), x.cos() + cond[:, None]
    torch.testing.assert_close(outer.predict(x, t, cond, "data"), (u + 3.0 * (c - u)).clamp(-0.5, 0.5))


@pytest.mark.parametrize("net", [lambda x, t: x[:, :1], lambda x, t: x[0], lambda x, t: x.sum(1), lambda x, t: (x, x)])
@pytest.mark.parametrize("kind", ["velocity", "data"])
def test_networks_of_a_wrong_output_are_named_with_both_shapes(
    paths: dict[str, GaussianPath], net: Any, kind: str
) -> None:
    field = Field(Model(net, "velocity"), paths["linear"])
    with pytest.raises(
        ShapeError, match=r"the network must return 1 tensor\(s\) of the state's shape \(4, 4\); got .*fm.Model"
    ):
        field.predict(torch.zeros(4, 4), 0.5, None, kind)


def test_a_network_with_too_few_outputs_is_refused(paths: dict[str, GaussianPath]) -> None:
    with pytest.raises(ShapeError, match=r"must return 2 tensor\(s\)"):
        Field(Model(Recorder(), ("velocity", "noise")), paths["linear"]).predict(
            torch.zeros(2, 2), 0.5, None, "velocity"
        )


def test_guidances_of_a_wrong_output_are_named(paths: dict[str, GaussianPath]) -> None:
    @frozen
    class Mean:
        needs = frozenset()

        def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
            return field.predict(x_t, t, cond, field.native).mean(1)

    with pytest.raises(ShapeError, match=r"the guidance Mean must return 1 tensor\(s\)"):
        Field(Model(Recorder(), "velocity"), paths["linear"], (Mean(),)).predict(
            torch.zeros(4, 4), 0.5, None, "velocity"
        )


@pytest.mark.parametrize("predicts", ["", (), "x0", ("velocity", "x0")])
def test_a_model_says_what_it_predicts(predicts: Any) -> None:
    with pytest.raises(PredictionError):
        Model(lambda x, t: x, predicts)


@pytest.mark.parametrize(
    ("shape", "dtype"), list(itertools.product([(1, 2), (4, 4), (3, 1, 8, 8)], [torch.float32, torch.float64]))
)
def test_predictions_keep_shape_dtype_and_gradients(
    path: GaussianPath, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype).requires_grad_()
    field = Field(Model(torch.sin, "noise", call=lambda net, x, t, cond: net(x)), path)
    for kind in KINDS:
        value = field.predict(x, 0.5, None, kind)
        assert (value.shape, value.dtype) == (shape, dtype)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        assert gradient.isfinite().all()
