"""The best, the level, the front and the dominated, on cells whose answers are plain."""

from __future__ import annotations

from typing import Any

import pytest

from fm_core.bench.records import Record
from fm_core.bench.report.cells import Cell, cells, latest
from fm_core.bench.report.choosing import Standing, advise, affordable, choose, front, standings, tally


def records(contender: str, errors: dict[int, tuple[float, ...]], **changes: Any) -> list[Record]:
    """One cell for each NFE, with an error for each seed."""
    return [
        Record("solvers", "p", contender, {"nfe": nfe}, seed, figures={"nfe": nfe, "e": error}, **changes)
        for nfe, replicates in errors.items()
        for seed, error in enumerate(replicates)
    ]


def around(error: float) -> tuple[float, ...]:
    return tuple(error * factor for factor in (0.98, 1.0, 1.02))


def test_those_than_which_none_is_better_are_level() -> None:
    made = cells(
        [
            *records("good", {10: around(1.0)}),
            *records("near", {10: around(1.005)}),
            *records("bad", {10: around(2.0)}),
        ]
    )
    choice = choose(made, "e")
    assert choice is not None
    assert choice.best.contender == "good"
    assert choice.level == ("near",)
    assert choice.judged


def test_what_is_worse_on_every_seed_is_not_level_though_the_seeds_scatter() -> None:
    """The ratio of 1.1 on every seed is beyond noise; the intervals of the two, a factor of four wide, overlap."""
    scatter = (1.0, 2.0, 0.5, 1.5)
    made = cells([*records("good", {10: scatter}), *records("worse", {10: tuple(1.1 * error for error in scatter)})])
    good, worse = (cell.estimates["e"] for cell in made)
    assert good.high is not None
    assert worse.low is not None
    assert worse.low < good.high
    choice = choose(made, "e")
    assert choice is not None
    assert (choice.best.contender, choice.level) == ("good", ())


def test_what_is_beaten_by_one_of_the_level_is_not_level() -> None:
    """Of three the noisy least cannot be told from the others, of which one is better than the other on every seed."""
    noisy = records("noisy", {10: (0.2, 0.9, 5.0, 0.6)})
    steady = [record for name in ("a", "b") for record in records(name, {10: (1.0, 1.1, 1.2, 1.0)})]
    behind = records("behind", {10: (1.2, 1.3, 1.4, 1.2)})
    choice = choose(cells([*noisy, *steady, *behind]), "e")
    assert choice is not None
    assert {choice.best.contender, *choice.level} == {"noisy", "a", "b"}


@pytest.mark.parametrize(("right_to", "near"), [(0.02, True), (1e-9, False)])
def test_errors_near_the_references_own_tell_nothing(right_to: float, near: bool) -> None:
    """Nor does a peer that far stand behind; errors further off are told apart all the same."""

    def made(name: str, error: float, group: str = "ours") -> list[Record]:
        return [
            Record("s", "p", name, {}, seed, group, figures={"error_median": e, "reference_error": right_to, "nfe": 9})
            for seed, e in enumerate(around(error))
        ]

    all_of = cells([*made("heun", 0.02), *made("euler", 0.05, "lib"), *made("bad", 0.3)])
    choice = choose(all_of, "error_median")
    assert choice is not None
    assert (choice.best.contender, choice.level) == ("heun", ("euler (lib)",) if near else ())
    assert choice.doubtful is near
    assert choice.against == ("level" if near else "ahead")
    found = standings(all_of, "nfe", "error_median")
    assert (found["euler (lib)"].place, found["bad"].place) == ("level" if near else "dominated", "dominated")


@pytest.mark.parametrize("turn", [1, -1])
def test_of_equals_the_plainest_is_named_whoever_was_lucky(turn: int) -> None:
    """By network calls, then no grid, then the order, then the name: not by a thousandth of the error."""
    plain = records("zzz", {8: around(1.0)}, notes={"order": 1})
    others = [
        records("a", {10: around(1.0 - turn * 1e-3)}, notes={"order": 1}),
        records("zzz@karras", {8: around(1.0 + turn * 1e-3)}, notes={"order": 1, "grid": "karras"}),
        records("zz", {8: around(1.0 - turn * 2e-3)}, notes={"order": 2}),
        records("zzzz", {8: around(1.0 + turn * 2e-3)}, notes={"order": 1}),
    ]
    choice = choose(cells([one for own in [*others, plain][::turn] for one in own]), "e")
    assert choice is not None
    assert choice.best.contender == "zzz"
    assert choice.level == ("zzzz", "zz", "zzz@karras", "a")
    assert tally([choice]).taken[0] == ("zzz", 1)


def test_figures_near_0_are_judged_as_they_are() -> None:
    """NPE is the distance of an energy from its least: 0.00003 is chance, and no thousandth of 0.03."""

    def npe(name: str, values: tuple[float, ...]) -> list[Record]:
        return [Record("methods", "t", name, {}, seed, figures={"npe": x}) for seed, x in enumerate(values)]

    made = cells([*npe("ot", (0.004, 0.016, 0.00003)), *npe("cfm", (0.18, 0.196, 0.17))])
    choice = choose(made, "npe")
    assert choice is not None
    assert (choice.best.contender, choice.level) == ("ot", ())
    assert choice.value.high is not None
    assert choice.value.high < 0.03


def test_a_budget_admits_what_costs_no_more() -> None:
    made = cells([*records("cheap", {5: around(3.0), 10: around(2.0)}), *records("dear", {11: around(0.1)})])
    at = {budget: choose(affordable(made, "nfe", budget), "e") for budget in (4, 5, 10, 11)}
    assert at[4] is None
    assert [choice.best.records[0].settings["nfe"] for choice in at.values() if choice] == [5, 10, 11]


def test_one_seed_tells_no_difference() -> None:
    choice = choose(cells([*records("a", {5: (1.0,)}), *records("b", {5: (1.0001,)})]), "e")
    assert choice is not None
    assert choice.level == ()
    assert not choice.judged


@pytest.mark.parametrize("status", ["diverged", "failed", "skipped"])
def test_a_contender_with_one_bad_seed_is_not_taken(status: Any) -> None:
    bad = Record("solvers", "p", "best", {"nfe": 5}, 9, status=status, why="t = 0.5", figures={"nfe": 5, "e": 1e-9})
    made = cells([*records("best", {5: around(1e-9)}), bad, *records("sound", {5: around(1.0)})])
    choice = choose(made, "e")
    assert choice is not None
    assert choice.best.contender == "sound"
    assert made[0].status == status
    assert made[0].why == "1 of 4 seeds: t = 0.5"


def test_figures_that_are_no_finite_numbers_do_not_count() -> None:
    odd: list[Any] = [None, float("nan"), float("inf"), "1", True]
    made = cells(
        Record("solvers", "p", "a", {"nfe": 5}, seed, figures={"nfe": 5, "e": value}) for seed, value in enumerate(odd)
    )
    assert made[0].estimates.keys() == {"nfe"}
    assert choose(made, "e") is None


def test_peers_are_compared_with_ours() -> None:
    ours, peer = records("mine", {5: around(1.0)}), records("theirs", {5: around(3.0)}, group="lib")
    choice = choose(cells([*ours, *peer]), "e")
    assert choice is not None
    assert (choice.peer, choice.against) == ("theirs (lib)", "ahead")
    assert choice.ratio == pytest.approx(3.0)
    behind = choose(cells([*records("mine", {5: around(4.0)}), *peer]), "e")
    assert behind is not None
    assert (behind.best.contender, behind.against) == ("theirs (lib)", "behind")
    counted = tally([choice, behind])
    assert counted.against == {"ahead": 1, "behind": 1}
    assert counted.ratio == pytest.approx((3.0 + 0.75) / 2)


def test_the_front_falls_with_rising_cost() -> None:
    made = cells(
        [
            *records("a", {5: around(1.0), 10: around(0.5), 20: around(0.4)}),
            *records("b", {5: around(2.0), 10: around(0.6), 20: around(0.1)}),
        ]
    )
    assert [(cell.contender, cell.settings["nfe"]) for cell in front(made, "nfe", "e")] == [
        ("a", 5),
        ("a", 10),
        ("b", 20),
    ]


def test_dominated_is_who_is_beaten_everywhere_by_one_or_by_several() -> None:
    made = cells(
        [
            *records("early", {5: around(0.1), 10: around(0.09), 20: around(0.08)}),
            *records("late", {5: around(5.0), 10: around(2.0), 20: around(0.001)}),
            *records("bad", {5: around(0.5), 10: around(0.4), 20: around(0.3)}),
            *records("between", {5: around(4.0), 20: around(0.01)}),
            *records("same", {10: around(0.0901)}),
        ]
    )
    found = standings(made, "nfe", "e")
    assert found["early"] == found["late"] == Standing("front")
    assert found["bad"] == Standing("dominated", ("early",))
    assert found["between"] == Standing("dominated", ("early", "late"), together=True)
    assert found["same"] == Standing("level")


def test_dearer_within_noise_is_no_dearer() -> None:
    """Two solvers of one cost are timed with noise: whose clock ran 1 % faster does not escape being beaten by that."""

    def timed(name: str, error: float, seconds: tuple[float, ...]) -> list[Record]:
        return [
            Record("s", "p", name, {}, seed, figures={"e": error, "t": second}) for seed, second in enumerate(seconds)
        ]

    close = cells([*timed("good", 0.1, (1.0, 1.1, 0.95)), *timed("bad", 5.0, (0.99, 1.08, 0.94))])
    assert standings(close, "t", "e")["bad"].place == "dominated"
    apart = cells([*timed("good", 0.1, (2.0, 2.1, 1.95)), *timed("bad", 5.0, (0.99, 1.08, 0.94))])
    assert standings(apart, "t", "e")["bad"].place == "front"


def test_advice_runs_as_long_as_one_contender_leads() -> None:
    def chosen(*names: str) -> list[Any]:
        leaders = [(name, around(1.0 + 0.001 * k)) for k, name in enumerate(names)]
        return [choose(cells([one for name, errors in leaders for one in records(name, {5: errors})]), "e")]

    columns = [chosen("a", "b"), chosen("b", "a"), chosen("b"), chosen("c"), []]
    told = [(one.first, one.last, one.contender, one.times, one.cases) for one in advise(columns)]
    assert told == [(0, 2, "b", 3, 3), (3, 4, "c", 1, 1)]
    assert advise([chosen("a", "b")])[0].equals == ("b",)
    assert advise([[], []]) == []


def test_the_latest_way_of_measuring_takes_the_place_of_others() -> None:
    both = cells([*records("a", {5: (1.0,)}, notes={"n": 1}), *records("a", {5: (2.0,), 8: (3.0,)}, notes={"n": 2})])
    assert [(cell.notes["n"], cell.settings["nfe"]) for cell in latest(both)] == [(2, 5), (2, 8)]


def test_floors_become_figures_of_those_that_compete() -> None:
    floor = Record("methods", "moons", "floor", {"n": 9}, 0, figures={"w2": 0.2, "squared_w2": 5.0})
    own = Record("methods", "moons", "FM", {"n": 9}, 0, figures={"w2": 0.3})
    other = Record("methods", "moons", "FM", {"n": 8}, 0, figures={"w2": 0.4})
    made: list[Cell] = cells([floor, own, other])
    assert [(cell.middle("w2"), cell.middle("w2_floor")) for cell in made] == [(0.3, 0.2), (0.4, None)]
