"""`fm bench` and `fm recommend` as one types them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import asdict, evolve
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from fm_core import Component, UnknownNameError, build, registry
from fm_core.bench import solvers as suite
from fm_core.bench.comparing import Comparison, compare
from fm_core.bench.ranking import Ranking
from fm_core.bench.records import Record, Results, append, read
from fm_core.cli import app
from fm_core.cli.bench import report
from fm_core.cli.verdicts import show_comparison, show_results


def fm(*arguments: str, expect: int = 0) -> Result:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})
    assert done.exit_code == expect, (done.output, done.exception)
    return done


SMALL = ("--problem", "gaussian", "--seeds", "3", "--samples", "8", "--no-peers")


def solvers(out: Path, *more: str, expect: int = 0) -> Result:
    return fm("bench", "solvers", *SMALL, "--nfe", "4", "--nfe", "8", "--out", str(out), *more, expect=expect)


def test_solvers_end_with_what_to_take_and_a_report(tmp_path: Path) -> None:
    done = solvers(tmp_path, "--solver", "heun", "--solver", "euler", "--solver", "rk4@cosine")
    assert ": take " in done.output
    assert "4 calls" in done.output
    assert (tmp_path / "report.html").is_file()
    assert f"report: {tmp_path / 'report.html'}" in done.output
    assert len(read(tmp_path).of("solvers")) == 3 * 2 * 3
    assert {(record.contender, record.problem) for record in read(tmp_path).of("orders")} == {
        (name, f"inside the {path} path") for name in ("heun", "euler", "rk4") for path in ("linear", "trigonometric")
    }
    assert "3 of 3 solvers show at least the order that they declare." in done.output
    before = read(tmp_path).records
    solvers(tmp_path, "--solver", "heun", "--solver", "euler", "--solver", "rk4@cosine")
    assert read(tmp_path).records == before, "what is there is not measured again"


def test_a_command_that_finds_all_its_rows_there_says_so_and_how_to_measure_anew(tmp_path: Path) -> None:
    out, given = tmp_path / "out", ["--solver", "heun", "--nfe", "4"]
    command = ["bench", "solvers", *SMALL, *given, "--out", str(out)]
    assert "to measure" not in fm(*command).output
    done = fm(*command)
    assert f"0 rows to measure: all 5 are there. To measure anew: --out {tmp_path / 'out-2'}\n" in done.output
    assert "to measure" not in fm("bench", "report", str(out)).output


def failing() -> Any:
    raise RuntimeError("no data on this machine")


def test_a_problem_that_did_but_fail_is_exit_code_1_and_told_as_long_as_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.default, "_added", {})
    monkeypatch.setattr(registry.default, "_found", registry.default._ready())
    registry.register(Component("problem", "failing", failing, summary="planted"))
    done = solvers(tmp_path, "--solver", "euler", "--problem", "failing", expect=1)
    assert "failed: euler on failing: RuntimeError: no data on this machine" in done.output
    assert "take euler" in done.output
    assert "failed: " not in solvers(tmp_path, "--solver", "euler").output
    assert "failed: euler on failing" in fm("bench", "report", str(tmp_path)).output


def said(*records: Record, **more: Any) -> str:
    to = Console(width=150, record=True, file=io.StringIO())
    show_results(to, Results({}, records, **more))
    return to.export_text()


def errors(contender: str, *replicates: float, solver: str = "") -> list[Record]:
    return [
        Record("solvers", "p", contender, {"nfe": 5}, s, figures={"error_median": e, "nfe": 5.0}, notes=notes)
        for s, e in enumerate(replicates)
        for notes in [{"solver": solver or contender}]
    ]


def test_a_solver_of_less_than_its_declared_order_is_not_named() -> None:
    figures = {"order": 0.31, "declared_order": 1.0}
    order = Record("orders", "inside the linear path", "zworse", {}, 0, figures=figures)
    text = said(*errors("euler", 1.0, 1.1, 1.2), *errors("zworse", 0.5, 0.6, 0.7), order)
    assert "take euler" in text
    assert "not named, since they show less than the order that they declare: zworse" in text
    assert "less than declared: zworse (0.31, declared 1)" in text
    assert "zworse" not in text.partition("take euler")[0]
    assert "in Python: pipe.replace(solver='euler', grid=None)" in text


def test_a_reason_that_is_a_list_is_told_by_its_first_entry() -> None:
    record = Record("solvers", "p", "ddpm", {}, 0, status="skipped", why="do not compose:\n  1. no score\n     fix: x")
    assert "skipped: ddpm on p: do not compose: 1. no score\n" in said(*errors("euler", 1.0), record)


def test_budgets_of_one_answer_are_told_in_one_line() -> None:
    own = [
        (5, "euler", 1.0),
        (5, "heun", 3.0),
        (8, "euler", 0.5),
        (8, "heun", 2.0),
        (20, "euler", 0.4),
        (20, "heun", 0.1),
    ]
    text = said(
        *(
            Record("solvers", "p", name, {"nfe": nfe}, s, figures={"error_median": e * by, "nfe": float(nfe)})
            for nfe, name, e in own
            for s, by in enumerate((1.0, 1.1, 1.2))
        )
    )
    assert "5 to 8 calls: take euler, the best, or level with the best, in 2 of 2 cases" in text
    assert "20 calls: take heun, the best, or level with the best, in 1 of 1 cases" in text


def test_a_problem_that_was_asked_for_fewer_calls_has_no_answer_to_more() -> None:
    def record(problem: str, nfe: int) -> Record:
        return Record("solvers", problem, "euler", {"nfe": nfe}, 0, figures={"error_median": 1.0, "nfe": float(nfe)})

    text = said(record("short", 5), record("long", 5), record("long", 50))
    assert "5 to 50 calls: take euler, the least error in 3 of 3 cases" in text
    assert "–" in next(line for line in text.splitlines() if "short" in line)


def test_what_is_never_judged_path_by_path_is_compared_by_distance() -> None:
    figures = ((0, 0.1), (1, 0.11), (2, 0.12))
    text = said(
        *(Record("solvers", "p", "ddpm", {"nfe": 5}, s, figures={"distance": d, "nfe": 5.0}) for s, d in figures)
    )
    assert "Least distance to the truth" in text
    assert "5 calls: take ddpm" in text


def test_a_best_that_is_near_the_references_error_is_said_to_be_so() -> None:
    def rows(problem: str, own: float) -> list[Record]:
        return [
            evolve(one, problem=problem, figures={**one.figures, "reference_error": own})
            for name, error in (("heun", 0.11), ("ddim", 0.15))
            for one in errors(name, error, 1.1 * error, 1.2 * error)
        ]

    text = " ".join(said(*rows("rough", 0.08), *rows("exact", 1e-9)).split())
    assert "In 1 of 2 cases the least error is below twice the reference's own" in text
    assert "nothing better could be seen: rough." in text
    assert "twice the reference's" not in said(*rows("exact", 1e-9))


def test_only_what_can_be_typed_is_told_in_python() -> None:
    worse = errors("euler", 1.0, 1.1, 1.2)
    assert "in Python: fm.calibrate(pipe, shape, nfe=5)" in said(*worse, *errors("calibrated", 0.1, 0.2, 0.3))
    for name in ("calibrated(…527d)", "its own: heun", "azula_heun"):
        assert "in Python" not in said(*worse, *errors(name, 0.1, 0.2, 0.3))


def test_a_table_is_fitted_for_the_calls_that_it_spent_however_large_the_budget() -> None:
    """Tables are fitted for few calls, and larger budgets take the one of the most: more have not been measured."""

    def rows(name: str, calls: float, error: float) -> list[Record]:
        return [
            Record("solvers", "p", name, {"nfe": int(calls)}, s, figures={"error_median": error, "nfe": calls})
            for s in range(3)
        ]

    fitted, other = rows("calibrated", 10.0, 0.1), [one for n in (10.0, 20.0, 50.0) for one in rows("euler", n, 0.2)]
    text = said(*fitted, *other)
    assert "10 to 50 calls: take calibrated" in text
    assert "in Python: fm.calibrate(pipe, shape, nfe=10)\n" in text
    text = said(*rows("calibrated", 5.0, 0.11), *rows("euler", 5.0, 0.3), *fitted, *other)
    assert "5 to 50 calls: take calibrated" in text
    assert "in Python: fm.calibrate(pipe, shape, nfe=min(nfe, 10))\n" in text


def test_fewer_than_three_seeds_are_said_to_tell_nothing() -> None:
    text = said(*errors("euler", 1.0), *errors("heun", 0.5))
    assert "5 calls: take heun, the least error in 1 of 1 cases (problem × budget)." in text
    assert "Fewer than 3 seeds" in text
    assert "may be chance" in text
    assert "may be chance" not in said(*errors("euler", 1.0, 1.1, 1.2), *errors("heun", 0.5, 0.6, 0.4))


def test_shared_seeds_tell_apart_what_their_scatter_hides() -> None:
    scatter = (1.0, 2.0, 0.5, 1.5)
    text = said(*errors("euler", *scatter), *errors("heun", *(0.9 * error for error in scatter)))
    assert "= euler" not in text


def test_unreadable_lines_are_told() -> None:
    assert "2 lines of results.jsonl could not be read and are left out." in said(torn=2)
    assert "could not be read" not in said()


def test_no_pair_apart_is_no_agreement() -> None:
    to = Console(width=150, record=True, file=io.StringIO())
    a, b = ([Record(**{**asdict(one), "seed": one.seed + k}) for one in SCATTERED] for k in (0, 100))
    show_comparison(to, compare(Results({}, tuple(a)), Results({}, tuple(b))), every=False)
    text = to.export_text()
    assert "none of 1 pairs is apart in both runs, so there are no orders to compare" in text
    assert "all in one order" not in text


@pytest.mark.parametrize(("pairs", "red"), [(100, True), (4000, False)])
def test_only_more_opposite_orders_than_chance_has_are_red(pairs: int, red: bool) -> None:
    to = Console(width=150, record=True, file=io.StringIO(), force_terminal=True, color_system="standard")
    ranking = Ranking("error_median", pairs, 10, 0, ("a, b on p",), ())
    show_comparison(to, Comparison((), (), (), (), (ranking,), ()), every=False)
    text = to.export_text(styles=True)
    assert "1 in opposite orders" in text
    assert ("\x1b[31m" in text) is red


SCATTERED = [*errors("a", 1.0, 2.0, 0.5), *errors("b", 2.0, 1.0, 0.6)]


def test_a_misspelt_solver_is_an_error_with_the_name_that_was_meant(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "solvers", "--solver", "huen", "--out", str(tmp_path)])
    assert isinstance(done.exception, UnknownNameError)
    assert "did you mean 'heun'" in str(done.exception)


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures, left = suite._Run.figures, iter([1, 2])

    def stops(self: Any) -> dict[str, float]:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return figures(self)

    monkeypatch.setattr(suite._Run, "figures", stops)
    done = solvers(tmp_path, "--solver", "heun", expect=130)
    assert "same command goes on" in done.output
    assert len(read(tmp_path).of("solvers")) == 2


def test_compare_says_what_changed_and_flags_what_differs(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for out in (a, b):
        solvers(out, "--solver", "heun", "--solver", "euler")
    text = (b / "results.jsonl").read_text()
    (b / "results.jsonl").write_text(text.replace('"processor": "', '"processor": "another '))
    done = fm("bench", "compare", str(a), str(b))
    assert "not the same machine: processor" in done.output
    assert "figures changed beyond noise" in done.output
    other = tmp_path / "other"
    solvers(other, "--solver", "heun", "--solver", "euler", "--seeds", "100-102")
    assert {record.seed for record in read(other).of("solvers")} == {100, 101, 102}
    done = fm("bench", "compare", str(a), str(other))
    assert "ranking by median error: " in done.output
    assert "of 2 pairs apart in both runs, all in one order" in done.output
    assert "not the same seeds: 0–2 → 100–102" in done.output


@pytest.mark.parametrize("seeds", ["0", "five", "7-3", "-2"])
def test_seeds_are_how_many_or_which(tmp_path: Path, seeds: str) -> None:
    done = CliRunner().invoke(app, ["bench", "solvers", f"--seeds={seeds}", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "how many, 5, or which, 100-104" in " ".join(done.output.replace("│", " ").split())


def test_cells_of_another_network_are_told_apart_by_their_problem() -> None:
    a, b = (
        Results({}, (Record("solvers", f"saved(folder=mine)#{of}", "heun", {"nfe": 5}, 0),)) for of in ("3f2a", "91c0")
    )
    to = Console(file=io.StringIO(), width=120)
    show_comparison(to, compare(a, b), every=False)
    text = to.file.getvalue()  # type: ignore[attr-defined]
    assert "only before: 1 cell (heun on saved(folder=mine)#3f2a)" in text
    assert "only after: 1 cell (heun on saved(folder=mine)#91c0)" in text


def test_a_folder_whose_name_is_no_text_is_written_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / os.fsdecode(b"b\xff")
    append(out, Record("solvers", "p", "heun", {"nfe": 5}, 0, figures={"nfe": 5.0, "error_median": 1.0}))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict"))
    report(out)
    assert (out / "report.html").is_file()


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "report", str(tmp_path)])
    assert "holds no results.jsonl" in str(done.exception)


def test_recommend_names_a_solver_for_a_saved_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fm_core.bench import recommending

    monkeypatch.setenv("FM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(recommending, "DEFAULT", ("euler", "heun", "auto"))
    build("problem", "learned_moons", steps=20).pipeline.save(tmp_path / "mine")
    given = ["--pipeline", str(tmp_path / "mine"), "--budget", "8nfe", "--seeds", "2", "--out", str(tmp_path / "best")]
    done = fm("recommend", *given)
    assert "Take " in done.output
    assert "95 % interval" in done.output
    assert (tmp_path / "best").is_dir()


@pytest.mark.parametrize(
    "command", [["bench"], *(["bench", name] for name in ("solvers", "methods", "compare", "report")), ["recommend"]]
)
def test_help_imports_no_torch(command: list[str]) -> None:
    code = (
        "import sys; from fm_core.cli import app\n"
        "try: app(sys.argv[1:] + ['--help'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    environ = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert "Example: fm" in done.stdout


def test_a_narrow_terminal_cuts_no_name_and_troubles_of_one_kind_are_one_line() -> None:
    name = "dpm_solver_pp(order=3)@log_snr"
    records = [
        Record("solvers", f"problem_{p}", name, {"nfe": nfe}, seed, figures={"error_median": 0.1, "nfe": float(nfe)})
        for p in range(2)
        for nfe in (5, 10, 20, 50)
        for seed in range(2)
    ]
    why = "sampling diverged in step {}"
    bad = [
        Record("solvers", "problem_0", f"bad_{n}", {"nfe": 5}, 0, status="diverged", why=why.format(n)) for n in (3, 17)
    ]
    to = Console(width=60, record=True, file=io.StringIO())
    show_results(to, Results({}, (*records, *bad)))
    text = to.export_text()
    assert "…" not in text
    assert text.count("diverged:") == 1
    assert "diverged: bad_3 on problem_0 and 1 more: sampling diverged in step 3" in text


def message(component: str, library: str, how: str) -> str:
    """As a suite keeps it of a component whose library is missing."""
    return (
        f"solver/{component} (plugin 'peers' of fm-core 0.1.0) cannot be imported from 'fm_plugins.peers.{library}:"
        f"{component}': {library} is not installed (No module named '{library}.sample'): {how}. What helps: update "
        "fm-core (pip install --upgrade fm-core) or uninstall it; leave the plugin out (FM_PLUGINS_BLOCK=peers)."
    )


def said_of(*records: Record) -> list[str]:
    to = Console(width=60, record=True, file=io.StringIO())
    show_results(to, Results({}, records))
    return [line for line in to.export_text().splitlines() if line.startswith(("skipped", "failed"))]


def test_a_library_that_is_not_installed_is_one_line_with_its_pip_line() -> None:
    def skipped(suite: str, name: str, library: str, how: str) -> Record:
        why = message(name.partition("(")[0], library, how)
        return Record(suite, "gaussian", name, {"nfe": 5}, 0, library, "skipped", why)

    plain = "pip install --no-deps azula einops"
    azula = [
        skipped("solvers", name, "azula", f"{plain}, since what it asks for besides would bring another torch")
        for name in ("azula_ddim", "azula_vab(order=2)", "azula_vab(order=3)", "azula_reab")
    ]
    sde = skipped("solvers", "torchsde_euler", "torchsde", "pip install torchsde>=0.2.6")
    assert said_of(*azula[:2], sde, *azula[2:], azula[0]) == [
        f"skipped: azula is not installed (4 contenders): {plain}",
        "skipped: torchsde is not installed (torchsde_euler): pip install torchsde>=0.2.6",
    ]


def test_a_library_that_is_there_and_broken_is_told_in_full() -> None:
    """Updating fm-core is no way to get a library: what says no pip line of its own keeps all of its words."""
    broken = message("odd", "odd", "its wheel is of another Python")
    record = Record("solvers", "gaussian", "odd", {"nfe": 5}, 0, "odd", "failed", broken)
    assert said_of(record) == [f"failed: odd on gaussian: {broken}"]


def test_contenders_of_a_missing_library_are_rows_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azula", None)
    for name in [name for name in sys.modules if name.startswith(("azula.", "fm_plugins.peers.azula"))]:
        monkeypatch.delitem(sys.modules, name)
    named = ["azula_ddim", "azula_heun", "azula_vab(order=2)"]
    done = solvers(tmp_path, *(word for name in ("euler", *named) for word in ("--solver", name)))
    assert done.output.count("skipped: ") == 1
    assert "skipped: azula is not installed (3 contenders): pip install --no-deps azula einops\n" in done.output
    rows = [record for record in read(tmp_path).records if record.status == "skipped"]
    assert [record.contender for record in rows] == named
    assert all("azula is not installed" in record.why for record in rows)


def test_a_pipeline_alone_is_the_problem_of_the_solvers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def solvers(out: Path, *, problems: Any, **more: Any) -> Results:
        asked.append((out, problems))
        return Results({}, ())

    monkeypatch.setattr("fm_core.bench.solvers.bench_solvers", solvers)
    monkeypatch.setattr("fm_core.cli.bench._conclude", lambda *results: None)
    fm("bench", "--pipeline", str(tmp_path))
    assert asked == [(Path("out/bench"), [{"name": "saved", "folder": str(tmp_path)}])]
    assert "goes after the suite" in fm("bench", "--pipeline", str(tmp_path), "throughput", expect=2).output
