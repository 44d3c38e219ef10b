"""Changes beyond noise are told from noise, and what may not be compared is flagged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from attrs import evolve

from fm_core.bench.comparing import compare
from fm_core.bench.records import Record, Results, Run
from fm_core.randomness import make_generator


def results(errors: Sequence[float], first: int = 0, name: str = "error_median", **more: Any) -> Results:
    records = [
        Record("solvers", "gaussian", "heun", {"nfe": 10}, seed, figures={name: error, "nfe": 10.0}, run="r")
        for seed, error in enumerate(errors, first)
    ]
    run = Run("r", "fm bench", "now", **{"machine": {"processor": "x"}, "versions": {"torch": "2"}, **more})
    return Results({"r": run}, tuple(records))


NOISE = [1.0, 2.0, 0.5, 1.5, 0.8]


def test_equal_results_do_not_differ() -> None:
    found = compare(results(NOISE), results(NOISE))
    assert [change.verdict for change in found.changes] == ["no difference"]
    assert not found.flags
    assert not found.changed


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "worse"), (0.9, "better"), (1.005, "no difference")])
def test_shared_seeds_show_changes_far_below_the_scatter(factor: float, verdict: str) -> None:
    """The scatter over seeds is a factor of four; a tenth on every seed is a change all the same."""
    (change,) = compare(results(NOISE), results([factor * error for error in NOISE])).changes
    assert change.verdict == verdict
    assert change.ratio.median == pytest.approx(factor)


def test_more_is_better_where_more_is_better() -> None:
    name = "samples_per_s"
    (change,) = compare(results(NOISE, name=name), results([2 * x for x in NOISE], name=name)).changes
    assert change.verdict == "better"


def test_other_seeds_must_differ_beyond_their_intervals() -> None:
    assert compare(results(NOISE), results(NOISE[::-1], first=10)).changes[0].verdict == "no difference"
    assert compare(results(NOISE), results([9 * x for x in NOISE], first=10)).changes[0].verdict == "worse"
    assert compare(results([1.0]), results([9.0])).changes[0].verdict == "too few seeds"


def test_noise_alone_is_seldom_a_change() -> None:
    """1,000 pairs of times of one law: about one in twenty would be told apart by chance, none by more than luck."""
    generator = make_generator(0)
    draws = (0.1 * torch.randn(1000, 2, 5, generator=generator)).exp().tolist()
    changed = sum(bool(compare(results(x, name="sample_s"), results(y, name="sample_s")).changed) for x, y in draws)
    assert changed < 80


def test_what_came_and_went_is_said() -> None:
    other = Results({}, (Record("solvers", "gaussian", "euler", {"nfe": 10}, 0),))
    found = compare(results([1.0]), other)
    assert [record.contender for record in found.gone] == ["heun"]
    assert [record.contender for record in found.new] == ["euler"]


def test_a_contender_that_diverges_now_is_a_change_of_status() -> None:
    bad = Record("solvers", "gaussian", "heun", {"nfe": 10}, 0, status="diverged", why="step 3")
    found = compare(results([1.0]), Results({}, (bad,)))
    assert [(before, after, why) for _, before, after, why in found.status] == [("ok", "diverged", "step 3")]


def broken(at: int, seeds: range) -> Results:
    """NOISE, but for one seed, which diverged."""
    whole = results(NOISE, first=seeds[0])
    bad = [evolve(one, status="diverged", why="step 3", figures={}) for one in whole.records if one.seed == at]
    return evolve(whole, records=(*bad, *(one for one in whole.records if one.seed != at)))


def test_a_contender_that_diverges_on_other_seeds_is_a_change_of_status_all_the_same() -> None:
    found = compare(results(NOISE), broken(103, range(100, 105)))
    said = [(record.seed, before, after, why) for record, before, after, why in found.status]
    assert said == [(103, "ok", "diverged", "1 of 5 seeds: step 3")]
    (back,) = compare(broken(3, range(5)), results(NOISE[:3])).status
    assert back[1:] == ("diverged", "ok", "1 of 5 seeds: step 3")
    assert not compare(broken(3, range(5)), broken(103, range(100, 105))).status


def test_a_first_seed_without_figures_hides_no_change_of_the_others() -> None:
    slow = broken(0, range(5))
    faster = [{name: value / 9 for name, value in one.figures.items()} for one in slow.records]
    fast = tuple(evolve(one, figures=figures) for one, figures in zip(slow.records, faster, strict=True))
    (change,) = compare(slow, evolve(slow, records=fast)).changes
    assert change.verdict == "better"


def test_another_machine_or_version_is_flagged() -> None:
    other = results(NOISE, machine={"processor": "y"}, versions={"torch": "3"}, git={"commit": "abc"})
    assert compare(results(NOISE), other).flags == (
        "machine: processor x → y",
        "versions: torch 2 → 3",
        "git: commit not there → abc",
    )


def test_other_seeds_are_flagged() -> None:
    assert compare(results(NOISE), results(NOISE, first=100)).flags == ("seeds: 0–4 → 100–104",)
    assert compare(results(NOISE), results(NOISE[:3])).flags == ("seeds: 0–4 → 0–2",)


def test_figures_near_0_change_as_they_are() -> None:
    """Of a figure that chance may bring to 0 a ratio of seeds is nothing; differences are."""
    before, after = [0.004, 0.016, 0.00003, 0.01], [0.18, 0.196, 0.17, 0.19]
    (change,) = compare(results(before, name="npe"), results(after, name="npe")).changes
    assert change.verdict == "worse"
    (back,) = compare(results(after, name="npe"), results(before, name="npe")).changes
    assert back.verdict == "better"
    assert back.ratio.low is not None
    assert -0.2 < back.ratio.low < 0.1


def test_facts_of_any_kind_are_compared() -> None:
    one, other = (results(NOISE, machine={"processor": "x", "gpus": gpus}) for gpus in (["a"], ["a", "b"]))
    assert compare(one, other).flags == ("machine: gpus ['a'] → ['a', 'b']",)
    assert not compare(one, one).flags


def noted(status: str = "ok", why: str = "", **notes: Any) -> Results:
    figures = {"error_median": 1.0} if status == "ok" else {}
    records = [
        Record("solvers", "p", "heun", {"nfe": 5}, seed, status=status, why=why, figures=figures, notes=notes)  # type: ignore[arg-type]
        for seed in range(3)
    ]
    return Results({}, tuple(records))


def test_a_solver_that_declares_another_order_is_compared_and_flagged() -> None:
    found = compare(noted(order=2), noted(order=3))
    assert [change.verdict for change in found.changes] == ["no difference"]
    assert found.flags == ("notes: order 2 → 3 (heun)",)
    assert not found.gone
    assert not found.new


def test_a_library_that_is_gone_is_a_change_of_status() -> None:
    """Of one that is not installed nothing is known: it has no notes."""
    found = compare(noted(order=2), noted("skipped", "azula is not installed"))
    assert {(one[1], one[2], one[3]) for one in found.status} == {("ok", "skipped", "azula is not installed")}
    assert not found.flags


def test_lines_that_could_not_be_read_are_flagged() -> None:
    torn = Results({}, noted(order=2).records, torn=2)
    assert compare(noted(order=2), torn).flags == ("unreadable lines: 0 → 2",)
