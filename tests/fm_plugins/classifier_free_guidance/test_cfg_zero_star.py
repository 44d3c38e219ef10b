"""CFG-Zero*: the scale that fits best, and the first moments without velocity."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import Field, GaussianPath, Model
from fm_core.building import to_config
from fm_core.errors import ConditionError
from fm_core.mixture import GaussianMixture
from fm_plugins.classifier_free_guidance.cfg_zero_star import CFGZeroStar


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answer(path: GaussianPath, kind: str, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """The exact prediction under every row's label: two classes, and 2 for the mixture of both."""
    means = 1.5 * draw(2, 2, *x.shape[1:], seed=1)
    laws = [*(GaussianMixture(m, 0.4) for m in means), GaussianMixture(means.flatten(0, 1), 0.4)]
    return torch.stack([law.predict(path, kind, x, t) for law in laws])[labels, torch.arange(len(x))]


def network(path: GaussianPath, predicts: str = "velocity", seen: list[float] | None = None) -> Model:
    def net(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        if seen is not None:
            seen.append(float(t.min()))
        return answer(path, predicts, x, t, labels)

    return Model(net, predicts=predicts, null=2)


def batch(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    return draw(*shape), torch.linspace(0.3, 0.7, shape[0], dtype=torch.float64), torch.arange(shape[0]) % 2


def both(path: GaussianPath, x: Tensor, t: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return answer(path, "velocity", x, t, labels), answer(path, "velocity", x, t, torch.full_like(labels, 2))


@pytest.mark.parametrize("native", ["velocity", "noise", "data"])
@pytest.mark.parametrize("shape", [(1, 2), (4, 4), (3, 3, 4, 4)], ids=str)
def test_it_is_the_formula_sample_by_sample(path: GaussianPath, shape: tuple[int, ...], native: str) -> None:
    x, t, labels = batch(*shape)
    expected = []
    for v_c, v_u in zip(*both(path, x, t, labels)):
        star = float((v_c * v_u).sum() / v_u.square().sum())
        expected.append(star * v_u + 3.0 * (v_c - star * v_u))
    got = Field(network(path, native), path, (CFGZeroStar(3.0),)).predict(x, t, labels, "velocity")
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-8, atol=1e-8)


def test_what_it_amplifies_is_orthogonal_to_the_unconditional_velocity(path: GaussianPath) -> None:
    x, t, labels = batch(4, 3, 4, 4)
    v_c, v_u = both(path, x, t, labels)
    added = CFGZeroStar(2.0).guide(Field(network(path), path), x, t, labels) - v_c
    assert ((added * v_u).flatten(1).sum(1).abs() <= 1e-9 * (added * v_u).abs().flatten(1).sum(1) + 1e-9).all()


def test_its_fit_is_that_of_diffusers(path: GaussianPath) -> None:
    theirs = pytest.importorskip("diffusers.guiders.classifier_free_zero_star_guidance")
    x, t, labels = (v.float() if v.is_floating_point() else v for v in batch(4, 3, 4, 4))
    v_c, v_u = both(path, x, t, labels)
    star = theirs.cfg_zero_star_scale(v_c.flatten(1), v_u.flatten(1)).view(-1, 1, 1, 1)
    got = Field(network(path), path, (CFGZeroStar(3.0),)).predict(x, t, labels, "velocity")
    torch.testing.assert_close(got, v_u * star + 3.0 * (v_c - v_u * star), rtol=1e-4, atol=1e-4)


def test_it_stands_still_and_asks_nobody_at_the_beginning(paths: dict[str, GaussianPath]) -> None:
    path, seen = paths["linear"], list[float]()
    pipe = fm.compose(path=path, model=network(path, seen=seen), solver="euler", guidance=[CFGZeroStar(2.0)])
    out = pipe.sample((3, 2), steps=50, seed=0, cond=torch.tensor([0, 1, 0]), trajectory=True)
    assert torch.equal(out.trajectory[0], out.trajectory[2])
    assert not torch.equal(out.trajectory[2], out.trajectory[3])
    assert out.nfe == len(seen) == 48
    assert min(seen) >= 0.04 - 1e-7
    seen.clear()
    assert (
        pipe.replace(guidance=[CFGZeroStar(2.0, zero_until=0.0)])
        .sample((3, 2), steps=10, seed=0, cond=torch.tensor([0, 1, 0]))
        .nfe
        == 10
    )


def test_times_before_and_after_in_one_batch_each_get_their_own(path: GaussianPath) -> None:
    x, _, labels = batch(4, 2)
    t = torch.tensor([0.3, 0.5, 0.4, 0.6], dtype=torch.float64)
    guidance, field = CFGZeroStar(2.0, zero_until=0.45), Field(network(path), path)
    got = guidance.guide(field, x, t, labels)
    assert torch.equal(got[[0, 2]], torch.zeros(2, 2, dtype=torch.float64))
    alone = CFGZeroStar(2.0, zero_until=0.0).guide(field, x[[1, 3]], t[[1, 3]], labels[[1, 3]])
    torch.testing.assert_close(got[[1, 3]], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-11)], ids=str)
def test_samples_are_guided_one_by_one(path: GaussianPath, dtype: torch.dtype, tolerance: float) -> None:
    x, t, labels = (v.to(dtype) if v.is_floating_point() else v for v in batch(4, 3, 4, 4))
    field = Field(network(path), path, (CFGZeroStar(4.0),))
    one = [slice(i, i + 1) for i in range(4)]
    together = field.predict(x, t, labels, "velocity")
    assert together.dtype == dtype
    alone = torch.cat([field.predict(x[i], t[i], labels[i], "velocity") for i in one])
    torch.testing.assert_close(together, alone, rtol=tolerance, atol=tolerance)


def test_a_velocity_of_nothing_and_half_precision_stay_finite(paths: dict[str, GaussianPath]) -> None:
    x = 100 * draw(2, 3, 8, 8).half()
    still = Model(lambda x, t, labels: x * (labels != 2).view(-1, 1, 1, 1), predicts="velocity", null=2)
    loud = Model(lambda x, t, labels: x, predicts="velocity", null=2)
    for model, expected in ((still, 3 * x), (loud, x)):
        got = Field(model, paths["linear"], (CFGZeroStar(3.0),)).predict(x, 0.5, torch.tensor([0, 1]), "velocity")
        torch.testing.assert_close(got, expected)


def test_off_is_scale_one_without_the_zero_beginning(paths: dict[str, GaussianPath]) -> None:
    pipe = fm.compose(path=paths["linear"], model=network(paths["linear"]), solver="euler")
    args = {"steps": 4, "seed": 0, "cond": torch.tensor([0, 1])}
    off = pipe.replace(guidance=[CFGZeroStar(1.0, zero_until=0.0)])
    assert torch.equal(off.sample((2, 2), **args).x, pipe.sample((2, 2), **args).x)
    still = pipe.replace(guidance=[CFGZeroStar(1.0)])
    assert not torch.equal(still.sample((2, 2), **args).x, pipe.sample((2, 2), **args).x)


def test_bad_options_and_missing_conditions_are_refused(paths: dict[str, GaussianPath]) -> None:
    for value in (-0.1, 1.0):
        with pytest.raises(ValueError, match="zero_until"):
            CFGZeroStar(2.0, zero_until=value)
    with pytest.raises(ConditionError, match="cfg_zero_star needs a condition"):
        Field(network(paths["linear"]), paths["linear"], (CFGZeroStar(2.0),)).predict(draw(2, 2), 0.5, None, "data")


def test_it_is_registered_and_can_be_saved() -> None:
    guidance = fm.build("guidance", "cfg_zero_star", scale=3.0, zero_until=0.1)
    assert isinstance(guidance, fm.Guidance)
    assert to_config(guidance) == {"name": "cfg_zero_star", "scale": 3.0, "zero_until": 0.1}
    assert (guidance.layer, guidance.evals, guidance.acts_on) == (0, 1, "velocity")
    assert guidance.select(slice(0, 1)) is guidance
