"""CFG++ along DDIM trajectories equals the paper's update written out: guided data, unconditional noise."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import Field, GaussianPath, Model, Plan, Row, TableSolver
from fm_core.errors import ConditionError, TimeError
from fm_core.mixture import GaussianMixture
from fm_plugins.classifier_free_guidance.cfg_pp import CFGPlusPlus


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answer(path: GaussianPath, kind: str, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """The exact prediction under every row's label: two classes, and 2 for the mixture of both."""
    means = 1.5 * draw(2, 2, *x.shape[1:], seed=1)
    laws = [*(GaussianMixture(m, 0.4) for m in means), GaussianMixture(means.flatten(0, 1), 0.4)]
    return torch.stack([law.predict(path, kind, x, t) for law in laws])[labels, torch.arange(len(x))]


def network(path: GaussianPath, predicts: str = "velocity") -> Model:
    return Model(lambda x, t, labels: answer(path, predicts, x, t, labels), predicts=predicts, null=2)


def levels(path: GaussianPath, t: float) -> tuple[float, float]:
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = float(path.alpha(time)), float(path.sigma(time))
    return alpha if alpha > 1e-6 else 0.0, sigma if sigma > 1e-6 else 0.0


def ddim() -> TableSolver:
    """DDIM with η = 0 as a table: x_s = (σ_s/σ_t)·x_t + (α_s − α_t·σ_s/σ_t)·D."""

    def plan(path: GaussianPath, times: Tensor) -> Plan:
        rows = []
        for j, (t, s) in enumerate(pairwise(times.tolist())):
            (a_t, s_t), (a_s, s_s) = levels(path, t), levels(path, s)
            rows.append(Row(s, ((j, s_s / s_t),), ((j, a_s - a_t * s_s / s_t),)))
        return Plan("data", float(times[0]), rows)

    return TableSolver(plan, space="data", order=1)


def by_hand(path: GaussianPath, x: Tensor, times: Tensor, labels: Tensor, weight: float) -> Tensor:
    """Algorithm 2 of the paper, in this library's time and with any α and σ."""
    null = torch.full_like(labels, 2)
    for t, s in pairwise(times.tolist()):
        at, (a_s, s_s) = torch.full((len(x),), t, dtype=x.dtype), levels(path, s)
        d_c, d_u = answer(path, "data", x, at, labels), answer(path, "data", x, at, null)
        n_u = answer(path, "noise", x, at, null)
        x = a_s * (d_u + weight * (d_c - d_u)) + s_s * n_u
    return x


@pytest.mark.parametrize("weight", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("native", ["data", "noise", "velocity"])
def test_ddim_under_it_is_the_papers_update_the_last_step_included(
    path: GaussianPath, native: str, weight: float
) -> None:
    low, high = path.span(native, {"data"})
    ends_at_data = levels(path, 1.0)[1] == 0.0
    low = max(low, 0.02) if low else low  # so near to α = 0 the conversions lose digits
    times = torch.tensor([low, 0.15, 0.4, 0.7, 0.9, 1.0 if ends_at_data else high], dtype=torch.float64)
    x, labels = path.sigma(times[0]) * draw(4, 2), torch.tensor([0, 1, 0, 1])
    field = Field(network(path, native), path, (CFGPlusPlus(weight),))
    got = ddim().solve(field, x, times, cond=labels)
    torch.testing.assert_close(got, by_hand(path, x, times, labels, weight), rtol=1e-8, atol=1e-8)


def test_the_data_prediction_that_closes_a_run_takes_the_weight_as_it_is(path: GaussianPath) -> None:
    """There the solver goes nowhere: t is `until`, and no noise is put back."""
    x, t, labels = draw(4, 2), torch.full((4,), 0.6, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    got = Field(network(path), path, (CFGPlusPlus(0.5),)).predict(x, t, labels, "data", until=t)
    d_c, d_u = answer(path, "data", x, t, labels), answer(path, "data", x, t, torch.full((4,), 2))
    torch.testing.assert_close(got, (d_c + d_u) / 2)


def test_at_weight_nothing_it_samples_unconditionally(paths: dict[str, GaussianPath]) -> None:
    path = paths["linear"]
    pipe = fm.compose(path=path, model=network(path), solver="euler")
    labels = torch.tensor([0, 1, 0])
    args = {"steps": 5, "seed": 0, "dtype": torch.float64}
    guided = pipe.replace(guidance=[CFGPlusPlus(0.0)]).sample((3, 2), cond=labels, **args)
    plain = pipe.sample((3, 2), cond=torch.full((3,), 2), **args)
    torch.testing.assert_close(guided.x, plain.x, rtol=1e-12, atol=1e-12)
    assert not CFGPlusPlus(0.0).off
    assert not CFGPlusPlus(1.0).off


def test_sampling_on_a_path_that_ends_in_noise_closes_finitely(path: GaussianPath) -> None:
    pipe = fm.compose(path=path, model=network(path, "noise"), solver=ddim(), guidance=[CFGPlusPlus(0.6)])
    out = pipe.sample((4, 1, 3, 3), steps=6, seed=0, cond=torch.tensor([0, 1, 0, 1]))
    assert out.x.isfinite().all()
    assert out.x.abs().max() < 8


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-11)], ids=str)
def test_samples_are_guided_one_by_one(path: GaussianPath, dtype: torch.dtype, tolerance: float) -> None:
    x, labels = draw(4, 2, 3, 3).to(dtype), torch.tensor([0, 1, 0, 1])
    t, until = (torch.tensor(v, dtype=dtype) for v in ([0.2, 0.4, 0.5, 0.8], [0.3, 0.6, 0.6, 0.9]))
    field = Field(network(path), path, (CFGPlusPlus(),))
    one = [slice(i, i + 1) for i in range(4)]
    alone = torch.cat([field.predict(x[i], t[i], labels[i], "velocity", until=until[i]) for i in one])
    together = field.predict(x, t, labels, "velocity", until=until)
    assert together.dtype == dtype
    torch.testing.assert_close(together, alone, rtol=tolerance, atol=tolerance)


def test_it_must_know_where_the_step_ends(paths: dict[str, GaussianPath]) -> None:
    field = Field(network(paths["linear"]), paths["linear"], (CFGPlusPlus(),))
    with pytest.raises(TimeError, match=r"does not say where its steps end.*fixed grid.*'cfg'"):
        field.predict(draw(2, 2), 0.5, torch.tensor([0, 1]), "data")
    with pytest.raises(ConditionError, match="cfg_pp needs a condition"):
        field.predict(draw(2, 2), 0.5, None, "data", until=torch.ones(2))
    for weight in (-0.1, 1.5):
        with pytest.raises(ValueError, match="weight"):
            CFGPlusPlus(weight)


def test_it_is_registered() -> None:
    guidance = fm.build("guidance", "cfg_pp", weight=0.8)
    assert isinstance(guidance, fm.Guidance)
    assert (guidance.weight, guidance.layer, guidance.evals, guidance.acts_on) == (0.8, 0, 1, None)
