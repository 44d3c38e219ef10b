"""Autoguidance: a good and a bad network in closed form, whatever the bad one predicts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fm_core as fm
from fm_core import Field, GaussianPath, Model
from fm_core.errors import PredictionError
from fm_core.mixture import GaussianMixture
from fm_plugins.autoguidance.autoguidance import Autoguidance, autoguidance

KINDS = ("data", "noise", "score", "v", "velocity")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def laws(*shape: int) -> tuple[GaussianMixture, GaussianMixture]:
    """What the good network knows, and the blurred version of it that the weak one knows."""
    means = 1.5 * draw(3, *shape, seed=1)
    return GaussianMixture(means, 0.3), GaussianMixture(0.8 * means, 0.7)


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    return draw(*shape), torch.linspace(0.3, 0.7, shape[0], dtype=torch.float64)


@pytest.mark.parametrize("other", KINDS)
def test_it_extrapolates_from_the_weak_network_in_every_space(path: GaussianPath, other: str) -> None:
    x, t = batch(4, 2)
    good, weak = laws(2)
    field = Field(good.model(path, "velocity"), path, (Autoguidance(weak.model(path, other), 2.5),))
    for kind in ("data", "velocity"):
        d, w = good.predict(path, kind, x, t), weak.predict(path, kind, x, t)
        torch.testing.assert_close(field.predict(x, t, None, kind), w + 2.5 * (d - w), rtol=1e-9, atol=1e-9)


def test_both_networks_are_called_once_and_counted(paths: dict[str, GaussianPath]) -> None:
    path, (good, weak) = paths["linear"], laws(2)
    pipe = fm.compose(
        path=path, model=good.model(path), solver="heun", guidance=[Autoguidance(weak.model(path, "noise"), 2.0)]
    )
    assert pipe.sample((3, 2), steps=4, seed=0).nfe == 16
    assert pipe.sample((3, 2), nfe=17, seed=0).nfe == 16


def test_scale_one_is_off_to_the_last_bit(path: GaussianPath) -> None:
    good, weak = laws(2)
    pipe = fm.compose(path=path, model=good.model(path), solver="heun")
    guided = pipe.replace(guidance=[Autoguidance(weak.model(path), 1.0)])
    args = {"steps": 4, "seed": 0}
    assert torch.equal(pipe.sample((4, 2), **args).x, guided.sample((4, 2), **args).x)
    x, t = batch(4, 2)
    field = Field(good.model(path), path)
    scheduled = Autoguidance(weak.model(path), torch.ones_like).guide(field, x, t, None)
    assert torch.equal(scheduled, field.predict(x, t, None, "velocity"))


@pytest.mark.parametrize(("kind", "at"), [("noise", 0.0), ("data", 1.0)])
def test_where_the_weak_network_says_nothing_the_good_one_is_left_alone(
    paths: dict[str, GaussianPath], kind: str, at: float
) -> None:
    """On the linear path noise does not determine the velocity where α = 0, nor data where σ = 0."""
    path, (good, weak) = paths["linear"], laws(2)
    x, t = draw(2, 2), torch.tensor([at, 0.5], dtype=torch.float64)
    got = Field(good.model(path), path, (Autoguidance(weak.model(path, kind), 2.0),)).predict(x, t, None, "velocity")
    d, w = good.predict(path, "velocity", x, t), weak.predict(path, "velocity", x, t)
    torch.testing.assert_close(got[0], d[0])
    torch.testing.assert_close(got[1], (2 * d - w)[1])
    pipe = fm.compose(path=path, model=good.model(path), solver="heun")
    guided = pipe.replace(guidance=[Autoguidance(weak.model(path, kind), 2.0)])
    assert guided.sample((4, 2), steps=4, seed=0).x.isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("shape", [(1, 2), (4, 4), (3, 3, 4, 4)], ids=str)
def test_samples_are_guided_one_by_one(
    path: GaussianPath, shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    x, t = (v.to(dtype) for v in batch(*shape))
    good, weak = laws(*shape[1:])
    scale = torch.linspace(0, 3, shape[0])
    guidance = Autoguidance(weak.model(path), scale)
    together = Field(good.model(path), path, (guidance,)).predict(x, t, None, "velocity")
    assert together.dtype == dtype
    for i in range(shape[0]):
        one = slice(i, i + 1)
        alone = Field(good.model(path), path, (guidance.select(one),)).predict(x[one], t[one], None, "velocity")
        torch.testing.assert_close(together[one], alone, rtol=tolerance, atol=tolerance)


def test_the_condition_reaches_both_networks(paths: dict[str, GaussianPath]) -> None:
    good = Model(lambda x, t, c: x * c[:, None], predicts="velocity")
    weak = Model(lambda x, t, c: x + c[:, None], predicts="velocity")
    x, c = draw(3, 2), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    got = Field(good, paths["linear"], (Autoguidance(weak, 2.0),)).predict(x, 0.5, c, "velocity")
    torch.testing.assert_close(got, 2 * x * c[:, None] - (x + c[:, None]))


def test_the_weak_network_is_a_model_or_a_module_or_a_configuration(paths: dict[str, GaussianPath]) -> None:
    config = {"kind": "model", "name": "mlp", "shape": 2, "width": 8, "depth": 1}
    built = fm.build("guidance", "autoguidance", weak=config, scale=2.0, predicts="noise")
    assert isinstance(built, fm.Guidance)
    assert built.weak.predicts == ("noise",)
    assert isinstance(built.weak.net, nn.Module)
    assert (built.layer, built.evals, built.acts_on) == (0, 2, None)
    known = laws(2)[1].model(paths["linear"], "noise")
    assert autoguidance(known, 2.0).weak is autoguidance(known, 2.0, predicts="eps").weak is known
    with pytest.raises(PredictionError, match="does not say what it predicts; give predicts="):
        autoguidance(nn.Identity(), 2.0)
    with pytest.raises(PredictionError, match="predicts noise, and predicts='data' says otherwise"):
        autoguidance(known, 2.0, predicts="data")
