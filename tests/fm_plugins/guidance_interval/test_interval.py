"""A guidance in an interval of log-SNR: exactly the guidance inside, exactly the field outside."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attrs import field as attribute, frozen
from torch import Tensor

import fm_core as fm
from fm_core import Field, GaussianPath, Model
from fm_core.building import to_config
from fm_core.mixture import GaussianMixture
from fm_plugins.autoguidance.autoguidance import Autoguidance
from fm_plugins.classifier_free_guidance.apg import APG
from fm_plugins.classifier_free_guidance.cfg import CFG
from fm_plugins.guidance_interval.interval import Interval


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(path: GaussianPath, predicts: str = "velocity", seen: list[int] | None = None) -> Model:
    """Two classes, and 2 for the mixture of both; the condition is a pytree."""

    def net(x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        if seen is not None:
            seen.append(len(x))
        means = 1.5 * draw(2, 2, *x.shape[1:], seed=1)
        laws = [*(GaussianMixture(m, 0.4) for m in means), GaussianMixture(means.flatten(0, 1), 0.4)]
        return torch.stack([law.predict(path, predicts, x, t) for law in laws])[cond["label"], torch.arange(len(x))]

    return Model(net, predicts=predicts, null={"label": 2})


def labels(n: int) -> dict[str, Tensor]:
    return {"label": torch.arange(n) % 2}


def between(path: GaussianPath, low: float, high: float) -> dict[str, float]:
    ends = path.log_snr(torch.tensor([low, high], dtype=torch.float64)).tolist()
    return {"low": ends[0], "high": ends[1]}


@pytest.mark.parametrize("kind", ["data", "velocity"])
def test_it_is_the_guidance_inside_and_the_field_outside(path: GaussianPath, kind: str) -> None:
    x, cond = draw(4, 2), labels(4)
    plain, guided = Field(network(path), path), Field(network(path), path, (CFG(3.0),))
    limited = Field(network(path), path, (Interval(CFG(3.0), **between(path, 0.4, 0.6)),))
    for t, expected in ((0.39, plain), (0.41, guided), (0.59, guided), (0.61, plain)):
        assert torch.equal(limited.predict(x, t, cond, kind), expected.predict(x, t, cond, kind))


def test_the_lower_end_belongs_to_it_and_the_upper_one_does_not(path: GaussianPath) -> None:
    """The paper guides for σ in (σ_lo, σ_hi], and log-SNR falls with σ."""
    x, cond, guidance = draw(1, 2), labels(1), Interval(CFG(3.0), **between(path, 0.4, 0.6))
    plain, guided = (Field(network(path), path, g) for g in ((), (CFG(3.0),)))
    limited = Field(network(path), path, (guidance,))
    for t, expected in ((0.4, guided), (0.6, plain)):
        time = torch.tensor([t], dtype=torch.float64)
        assert torch.equal(limited.predict(x, time, cond, "data"), expected.predict(x, time, cond, "data"))


def test_noise_levels_convert_as_documented(paths: dict[str, GaussianPath]) -> None:
    sigma_lo, sigma_hi = 0.28, 2.9
    guidance = Interval(CFG(3.0), low=-2 * math.log(sigma_hi), high=-2 * math.log(sigma_lo))
    path, seen = paths["ve"], list[int]()
    field, cond = Field(network(path, seen=seen), path, (guidance,)), labels(1)
    for sigma, rows in ((3.0, 1), (2.8, 2), (0.3, 2), (0.27, 1)):
        seen.clear()
        field.predict(draw(1, 2), path.t_of_log_snr(torch.tensor([-2 * math.log(sigma)])), cond, "data")
        assert seen == [rows]


def test_outside_it_costs_nothing(paths: dict[str, GaussianPath]) -> None:
    path, seen = paths["linear"], list[int]()
    guidance = Interval(CFG(2.0), **between(path, 0.25, 0.65))
    pipe = fm.compose(path=path, model=network(path, seen=seen), solver="euler", guidance=[guidance])
    out = pipe.sample((3, 2), steps=10, seed=0, cond=labels(3))
    assert seen == [3, 3, 3, 6, 6, 6, 6, 3, 3, 3]
    assert out.nfe == 10
    auto = Interval(Autoguidance(network(path, seen=seen), 2.0), **between(path, 0.25, 0.65))
    assert pipe.replace(guidance=[auto]).sample((3, 2), steps=10, seed=0, cond=labels(3)).nfe == 14


@pytest.mark.parametrize("shape", [(4, 2), (4, 4), (4, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "guidance", [CFG(3.0), CFG(torch.linspace(2, 3, 4)), APG(3.0, momentum=0.5), APG(2.0)], ids=["", "each", "β", "apg"]
)
def test_in_one_batch_every_sample_gets_what_its_own_time_asks_for(
    path: GaussianPath, shape: tuple[int, ...], dtype: torch.dtype, guidance: Any
) -> None:
    x, cond, t = draw(*shape).to(dtype), labels(4), torch.tensor([0.5, 0.2, 0.55, 0.8], dtype=dtype)
    limited = Interval(guidance, **between(path, 0.4, 0.6))
    got = limited.guide(Field(network(path), path), x, t, cond, until=t + 0.1)
    kind = limited.acts_on or "velocity"
    plain = Field(network(path), path).predict(x, t, cond, kind)
    guided = guidance.guide(Field(network(path), path), x, t, cond)
    expected = torch.stack([guided[0], plain[1], guided[2], plain[3]])
    assert got.dtype == dtype
    tolerance = 1e-11 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_a_momentum_stays_with_its_sample_when_others_enter_the_interval(paths: dict[str, GaussianPath]) -> None:
    path, apg, cond = paths["linear"], APG(3.0, momentum=0.5), labels(4)
    limited, bare = Interval(apg, **between(path, 0.4, 0.6)), Field(network(path), path)
    fields = Field(network(path), path), Field(network(path), path)
    for times, inside in (([0.5, 0.2, 0.55, 0.8], [0, 2]), ([0.2, 0.45, 0.7, 0.5], [1, 3])):
        x, t = draw(4, 2, seed=len(inside) + inside[0]), torch.tensor(times, dtype=torch.float64)
        expected = bare.predict(x, t, cond, "data")
        expected[inside] = apg.guide(fields[0], x, t, cond)[inside]
        torch.testing.assert_close(limited.guide(fields[1], x, t, cond), expected, rtol=1e-11, atol=1e-11)


def test_in_a_mixed_batch_no_row_is_asked_for_more_than_it_needs(paths: dict[str, GaussianPath]) -> None:
    path, seen = paths["linear"], list[int]()
    field = Field(network(path, seen=seen), path, (Interval(CFG(3.0), **between(path, 0.4, 0.6)),))
    field.predict(draw(5, 2), torch.tensor([0.5, 0.2, 0.55, 0.8, 0.1]), labels(5), "data")
    assert sorted(seen) == [3, 4]


def test_without_bounds_it_is_the_guidance_and_asks_no_log_snr() -> None:
    class NoLogSnr:
        log_snr = None

    for low, high in ((None, None), (-math.inf, math.inf)):
        guidance = Interval(CFG(2.0), low, high)
        assert (guidance.low, guidance.high) == (None, None)
        assert guidance._inside(NoLogSnr(), torch.zeros(2)) is None


def test_the_data_end_is_inside_without_an_upper_bound(paths: dict[str, GaussianPath]) -> None:
    path, x, cond = paths["linear"], draw(2, 2), labels(2)
    limited, guided = (Field(network(path), path, (g,)) for g in (Interval(CFG(2.0), low=0.0), CFG(2.0)))
    assert torch.equal(limited.predict(x, 1.0, cond, "velocity"), guided.predict(x, 1.0, cond, "velocity"))


def test_it_is_what_the_guidance_is(paths: dict[str, GaussianPath]) -> None:
    @frozen
    class Term:
        needs: frozenset[str] = attribute(default=frozenset({"score"}))
        acts_on = "noise"
        evals = 3
        layer = 1

        def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
            return x_t

    held = Interval(Term(), -1.0, 1.0)
    assert (held.needs, held.acts_on, held.evals, held.layer, held.off) == ({"score"}, "noise", 3, 1, False)
    assert held.select(slice(0, 1)) is held
    each = Interval(CFG(torch.tensor([1.0, 2.0, 3.0])), -1.0, 1.0)
    assert each.select(slice(1, 3)).guidance.scale.tolist() == [2.0, 3.0]
    assert (each.select(slice(1, 3)).low, each.select(slice(1, 3)).high) == (-1.0, 1.0)
    pipe = fm.compose(path=paths["linear"], model=network(paths["linear"]), solver="euler")
    args = {"steps": 3, "seed": 0, "cond": labels(3)}
    off = pipe.replace(guidance=[Interval(CFG(1.0), -1.0, 1.0)])
    assert torch.equal(off.sample((3, 2), **args).x, pipe.sample((3, 2), **args).x)


def test_it_is_built_from_nested_configurations_and_saved_as_such() -> None:
    config = {"name": "interval", "guidance": {"kind": "guidance", "name": "cfg", "scale": 2.0}, "low": -3.0}
    guidance = fm.compose(path="linear", model=Model(lambda x, t: x, predicts="velocity"), guidance=[config]).guidance[
        0
    ]
    assert isinstance(guidance, fm.Guidance)
    assert to_config(guidance) == config
    assert guidance.guidance.scale == 2.0
    direct = fm.build("guidance", "interval", guidance={"name": "apg", "scale": 2.0})
    assert direct.acts_on == "data"


def test_an_empty_interval_or_something_that_does_not_guide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"from 2.0 to -2.0 is empty; log-SNR rises with t"):
        Interval(CFG(2.0), 2.0, -2.0)
    with pytest.raises(TypeError, match=r"wraps a guidance.*got int"):
        Interval(3)
