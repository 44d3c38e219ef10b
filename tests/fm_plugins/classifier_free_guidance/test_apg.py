"""Adaptive projected guidance: what its three changes leave of classifier-free guidance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import Field, GaussianPath, Model
from fm_core.building import to_config
from fm_core.errors import ConditionError
from fm_core.mixture import GaussianMixture
from fm_plugins.classifier_free_guidance.apg import APG
from fm_plugins.classifier_free_guidance.cfg import CFG

FULL = {"norm": 1.5, "momentum": -0.5, "parallel": 0.3}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answer(path: GaussianPath, kind: str, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """The exact prediction under every row's label: two classes, and 2 for the mixture of both."""
    means = 1.5 * draw(2, 2, *x.shape[1:], seed=1)
    laws = [*(GaussianMixture(m, 0.4) for m in means), GaussianMixture(means.flatten(0, 1), 0.4)]
    return torch.stack([law.predict(path, kind, x, t) for law in laws])[labels, torch.arange(len(x))]


def network(path: GaussianPath, predicts: str = "velocity") -> Model:
    return Model(lambda x, t, labels: answer(path, predicts, x, t, labels), predicts=predicts, null=2)


def batch(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    return draw(*shape), torch.linspace(0.3, 0.7, shape[0], dtype=torch.float64), torch.arange(shape[0]) % 2


def both(path: GaussianPath, x: Tensor, t: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return answer(path, "data", x, t, labels), answer(path, "data", x, t, torch.full_like(labels, 2))


def by_hand(
    c: Tensor, u: Tensor, before: Tensor, *, scale: float, norm: float, momentum: float, parallel: float
) -> tuple[Tensor, Tensor]:
    """One sample at a time, by the formulas."""
    results, kept = [], []
    for one, (d_c, d_u) in enumerate(zip(c, u)):
        update = d_c - d_u + momentum * before[one]
        kept.append(update)
        update = update * min(1.0, norm / float(update.square().sum().sqrt()))
        along = float((update * d_c).sum() / d_c.square().sum()) * d_c
        results.append(d_c + (scale - 1) * (update - along + parallel * along))
    return torch.stack(results), torch.stack(kept)


@pytest.mark.parametrize("shape", [(1, 2), (4, 4), (3, 3, 4, 4)], ids=str)
def test_three_evaluations_are_those_of_the_formulas(path: GaussianPath, shape: tuple[int, ...]) -> None:
    field, before = Field(network(path), path, (APG(4.0, **FULL),)), torch.zeros(shape, dtype=torch.float64)
    for seed in range(3):
        x, t, labels = batch(*shape)
        x = x + seed
        expected, before = by_hand(*both(path, x, t, labels), before, scale=4.0, **FULL)
        torch.testing.assert_close(field.predict(x, t, labels, "data"), expected, rtol=1e-9, atol=1e-9)


def test_it_equals_the_implementation_in_diffusers(path: GaussianPath) -> None:
    theirs = pytest.importorskip("diffusers.guiders.adaptive_projected_guidance")
    buffer, field = theirs.MomentumBuffer(-0.5), Field(network(path), path, (APG(4.0, **FULL),))
    for seed in range(3):
        x, t, labels = batch(4, 3, 4, 4)
        x = x + seed
        c, u = both(path, x, t, labels)
        expected = theirs.normalized_guidance(
            c, u, 3.0, buffer, eta=0.3, norm_threshold=1.5, use_original_formulation=True
        )
        torch.testing.assert_close(field.predict(x, t, labels, "data"), expected, rtol=1e-9, atol=1e-9)


def test_with_the_parallel_part_and_nothing_else_it_is_cfg(path: GaussianPath) -> None:
    x, t, labels = batch(4, 2)
    scale = torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    ours, cfg = (Field(network(path), path, (g,)) for g in (APG(scale, parallel=1.0), CFG(scale)))
    for kind in ("data", "velocity"):
        torch.testing.assert_close(
            ours.predict(x, t, labels, kind), cfg.predict(x, t, labels, kind), rtol=1e-10, atol=1e-10
        )


def test_what_it_adds_is_orthogonal_to_the_conditional_data_and_bounded(path: GaussianPath) -> None:
    x, t, labels = batch(4, 3, 4, 4)
    c, _ = both(path, x, t, labels)
    added = APG(5.0, norm=0.5).guide(Field(network(path), path), x, t, labels) - c
    assert ((added * c).flatten(1).sum(1).abs() < 1e-9).all()
    assert (added.flatten(1).norm(dim=1) <= 4.0 * 0.5 + 1e-9).all()
    assert (added.flatten(1).norm(dim=1) > 0.01).sum() >= 3  # of one sample the class is plain to see


def test_equal_answers_and_empty_directions_stay_finite(paths: dict[str, GaussianPath]) -> None:
    nothing = Model(lambda x, t, labels: torch.zeros_like(x), predicts="data", null=2)
    x, t, labels = batch(4, 2)
    got = Field(nothing, paths["linear"], (APG(3.0, norm=1.0, momentum=0.5),)).predict(x, t, labels, "data")
    assert torch.equal(got, torch.zeros_like(x))


def test_momentum_begins_anew_with_every_run_and_ends_with_it(paths: dict[str, GaussianPath]) -> None:
    path, guidance = paths["linear"], APG(3.0, momentum=-0.7)
    pipe = fm.compose(path=path, model=network(path), solver="euler", guidance=[guidance])
    args = {"steps": 5, "seed": 0, "dtype": torch.float64, "cond": torch.tensor([0, 1, 0, 1])}
    first, second = pipe.sample((4, 2), **args), pipe.sample((4, 2), **args)
    assert torch.equal(first.x, second.x)
    without = pipe.replace(guidance=[APG(3.0)]).sample((4, 2), **args)
    assert (first.x - without.x).abs().max() > 1e-3
    chunks = pipe.sample((4, 2), chunk=1, **args)
    torch.testing.assert_close(chunks.x, first.x, rtol=1e-12, atol=1e-12)
    assert guidance.select(slice(0, 1)) is not guidance
    assert APG(3.0).select(slice(0, 1)).momentum == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-11)], ids=str)
def test_samples_are_guided_one_by_one(path: GaussianPath, dtype: torch.dtype, tolerance: float) -> None:
    x, t, labels = (v.to(dtype) if v.is_floating_point() else v for v in batch(4, 3, 4, 4))
    field = Field(network(path), path, (APG(4.0, norm=1.0),))
    one = [slice(i, i + 1) for i in range(4)]
    together = field.predict(x, t, labels, "data")
    assert together.dtype == dtype
    alone = torch.cat([field.predict(x[i], t[i], labels[i], "data") for i in one])
    torch.testing.assert_close(together, alone, rtol=tolerance, atol=tolerance)


def test_sums_over_half_precision_images_do_not_overflow(paths: dict[str, GaussianPath]) -> None:
    big = Model(lambda x, t, labels: 200.0 + labels.view(-1, 1, 1, 1).to(x) + x, predicts="data", null=2)
    x = draw(2, 3, 8, 8).half()
    got = Field(big, paths["linear"], (APG(3.0),)).predict(x, 0.5, torch.tensor([0, 1]), "data")
    assert got.dtype == torch.float16
    c = big(x, None, torch.tensor([0, 1]))  # c − u is nearly along c, so that next to nothing of it is left
    assert (got - c).abs().max() < 0.5


def test_scale_one_is_off(paths: dict[str, GaussianPath]) -> None:
    pipe = fm.compose(path=paths["linear"], model=network(paths["linear"]), solver="euler")
    args = {"steps": 3, "seed": 0, "cond": torch.tensor([0, 1])}
    off = pipe.replace(guidance=[APG(1.0, norm=1.0, momentum=-0.5)])
    assert torch.equal(off.sample((2, 2), **args).x, pipe.sample((2, 2), **args).x)
    x, t, labels = batch(4, 2)
    scheduled = APG(torch.ones_like, norm=1.0).guide(Field(network(paths["vp"]), paths["vp"]), x, t, labels)
    c = CFG(1.0).guide(Field(network(paths["vp"], "data"), paths["vp"]), x, t, labels)
    torch.testing.assert_close(scheduled, c, rtol=1e-9, atol=1e-9)


def test_bad_options_and_missing_conditions_are_refused(paths: dict[str, GaussianPath]) -> None:
    for options in ({"norm": 0.0}, {"momentum": 1.0}, {"momentum": -1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            APG(2.0, **options)
    with pytest.raises(ConditionError, match="apg needs a condition"):
        Field(network(paths["linear"]), paths["linear"], (APG(2.0),)).predict(draw(2, 2), 0.5, None, "data")


def test_it_is_registered_and_can_be_saved() -> None:
    guidance = fm.build("guidance", "apg", scale=4.0, norm=2.5, momentum=-0.75)
    assert isinstance(guidance, fm.Guidance)
    assert to_config(guidance) == {"name": "apg", "scale": 4.0, "norm": 2.5, "momentum": -0.75}
    assert (guidance.layer, guidance.evals, guidance.acts_on) == (0, 1, "data")
