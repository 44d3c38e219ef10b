"""`fm bench`: solvers, methods and costs measured side by side, with true errors, error bars and a report.

Every suite writes `results.jsonl` into `--out`, row by row, and goes on from what is there; Ctrl-C loses no finished
row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fm_core.bench.records import Results

__all__ = ["bench"]

bench = typer.Typer(
    name="bench",
    add_completion=False,
    no_args_is_help=True,
)

Out = Annotated[Path, typer.Option(help="Folder of results.jsonl, report.html and figures.")]
Quick = Annotated[bool, typer.Option("--quick", help="A glimpse in about a minute; else everything.")]


def _seeds(text: str) -> range:
    """The seeds of "5", which are 0 to 4, or of "100-104"."""
    first, dash, last = text.partition("-")
    try:
        seeds = range(int(first), int(last) + 1) if dash else range(int(first))
    except ValueError:
        seeds = range(0)
    if not seeds:
        raise typer.BadParameter(f"seeds are how many, 5, or which, 100-104; got {text!r}")
    return seeds


Seeds = Annotated[
    range | None,
    typer.Option(parser=_seeds, metavar="N|A-B", help="Replicates of each cell: how many, 5, or which, 100-104."),
]
_OUT = Path("out/bench")
_INTERRUPTED = 130
"""Exit code of what Ctrl-C ended."""


@bench.callback(invoke_without_command=True)
def on_pipeline(
    context: typer.Context,
    pipeline: Annotated[
        Path | None, typer.Option(help="A saved pipeline of your own: short for fm bench solvers --pipeline.")
    ] = None,
) -> None:
    """Measure solvers, methods and costs side by side: true errors, error bars, one report.

    Example: fm bench solvers --quick
    """
    if pipeline is None:
        return
    if context.invoked_subcommand is not None:
        raise typer.BadParameter("goes after the suite: fm bench solvers --pipeline DIR", param_hint="--pipeline")
    solvers(pipeline=pipeline)


@bench.command()
def solvers(
    solver: Annotated[
        list[str] | None,
        typer.Option(
            help="A contender, again and again: heun, 'dpm_solver_pp(order=3)@karras'. A sensible set if none."
        ),
    ] = None,
    problem: Annotated[
        list[str] | None, typer.Option(help="A problem, again and again: eight_gaussians, 'modes_32d(path=vp)'.")
    ] = None,
    pipeline: Annotated[Path | None, typer.Option(help="A saved pipeline of your own as the problem.")] = None,
    nfe: Annotated[list[int] | None, typer.Option(min=1, help="Network calls, again and again.")] = None,
    seeds: Seeds = None,
    samples: Annotated[int | None, typer.Option(min=2, help="Samples of each seed.")] = None,
    peers: Annotated[bool, typer.Option(help="Whether other libraries' solvers compete.")] = True,
    quick: Quick = False,
    out: Out = _OUT,
) -> None:
    """Error and time against network calls, of any solvers on any grids and problems.

    Deterministic solvers are judged path by path against the flow's true end, all by the distance of their samples from
    the truth, beside its floor. Ends with which solver to take, and a report.

    Example: fm bench solvers --solver heun --solver 'unipc(order=3)@log_snr' --problem eight_gaussians --nfe 10
    """
    from fm_core.bench.solvers import bench_solvers

    problems: list[object] = list(problem or ())
    if pipeline is not None:
        problems.append({"name": "saved", "folder": str(pipeline)})
    with _going_on():
        found = bench_solvers(
            out,
            problems=problems or None,
            only=solver,
            budgets=nfe,
            seeds=seeds,
            samples=samples,
            quick=quick,
            with_peers=peers,
        )
    _conclude(out, found)


@bench.command()
def methods(
    method: Annotated[list[str] | None, typer.Option(help="A method, again and again; all if none.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="A task, again and again; all if none.")] = None,
    paper: Annotated[str | None, typer.Option(help="Repeat a published table under its own budget: sf2m.")] = None,
    seeds: Seeds = None,
    quick: Quick = False,
    out: Out = _OUT,
) -> None:
    """Methods trained under one budget: W2 with its floor, path energy, energy distance, velocity error.

    Example: fm bench methods --paper sf2m --seeds 2 --out benchmarks/results/sf2m
    """
    from fm_core.bench.methods import bench_methods

    with _going_on():
        found = bench_methods(out, quick=quick, paper=paper, seeds=seeds, tasks=task, methods=method)
    _conclude(out, found)


@bench.command()
def throughput(seeds: Seeds = None, quick: Quick = False, out: Out = _OUT) -> None:
    """Samples, steps, training steps and OT pairs a second, startup and memory, and how each grows.

    Example: fm bench throughput --quick
    """
    from fm_core.bench.throughput import bench_throughput

    with _going_on():
        found = bench_throughput(out, quick=quick, seeds=seeds)
    _conclude(out, found)


@bench.command()
def micro(
    only: Annotated[list[str] | None, typer.Option(help="A benchmark or file, again and again; all if none.")] = None,
    seeds: Seeds = None,
    quick: Quick = False,
    out: Out = _OUT,
) -> None:
    """The micro-benchmarks of a checkout: benchmarks/bench_*.py through pytest-benchmark.

    Example: fm bench micro --only bench_plan.py
    """
    from fm_core.bench.micro import bench_micro

    with _going_on():
        found = bench_micro(out, quick=quick, only=only, seeds=seeds)
    _conclude(out, found)


@bench.command("all")
def everything(quick: Quick = False, out: Out = _OUT) -> None:
    """All suites into one folder, with one report; with --quick in about three minutes.

    Example: fm bench all --quick --out out/bench
    """
    from fm_core.bench.methods import bench_methods
    from fm_core.bench.micro import bench_micro
    from fm_core.bench.solvers import bench_solvers
    from fm_core.bench.throughput import bench_throughput
    from fm_core.errors import DataError

    with _going_on():
        found = [suite(out, quick=quick) for suite in (bench_solvers, bench_methods, bench_throughput)]
        try:
            found.append(bench_micro(out, quick=quick))
        except DataError as error:  # an installed package has no benchmarks/
            typer.echo(f"micro-benchmarks left out: {error}", err=True)
    _conclude(out, *found)


@bench.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of results.")] = _OUT) -> None:
    """Write the report of a folder of results anew.

    Example: fm bench report out/bench
    """
    _conclude(folder)


@bench.command()
def compare(
    before: Annotated[Path, typer.Argument(help="Folder of results.")],
    after: Annotated[Path, typer.Argument(help="Folder of results to hold against it.")],
    every: Annotated[bool, typer.Option("--all", help="Also the figures that did not change.")] = False,
) -> None:
    """What changed beyond noise between two folders of results; another machine or version is flagged.

    Example: fm bench compare out/before out/after
    """
    from fm_core.bench.comparing import compare as compared
    from fm_core.bench.records import read
    from fm_core.cli.tables import console
    from fm_core.cli.verdicts import show_comparison

    show_comparison(console(), compared(read(before), read(after)), every=every)


def _conclude(out: Path, *found: Results) -> None:
    """The table that says what to take, and where the report is; exit code 1 if some problem did but fail.

    Args:
        out: Folder of results.
        found: What suites were asked for; nothing to show all.
    """
    from attrs import evolve

    from fm_core.bench.records import read
    from fm_core.bench.report import write
    from fm_core.cli.tables import console
    from fm_core.cli.verdicts import show_results

    to, results = console(), read(out)
    if found:
        asked = frozenset[str]().union(*(one.asked or () for one in found))
        results = evolve(results, asked=asked, measured=sum(one.measured for one in found))
        if not results.measured:
            said = f"0 rows to measure: all {len(asked)} are there. To measure anew: --out {_fresh(out)}"
            to.print(said, style="yellow", highlight=False, markup=False, soft_wrap=True)
    show_results(to, results)
    to.print(f"report: {write(out)}", highlight=False, markup=False, soft_wrap=True)
    if found and results.failing:
        raise typer.Exit(1)


def _fresh(out: Path) -> Path:
    """A folder beside it that is not there."""
    named = out if out.name.strip(".") else out.resolve()
    return next(path for n in itertools.count(2) if not (path := named.with_name(f"{named.name}-{n}")).exists())


@contextmanager
def _going_on() -> Iterator[None]:
    """Ctrl-C ends the command with what is kept and how to go on."""
    import torch

    torch.set_num_threads(1)  # the networks are small: on more threads they wait for each other
    try:
        yield
    except KeyboardInterrupt as stop:
        typer.echo("\n".join(["interrupted.", *getattr(stop, "__notes__", ())]), err=True)
        raise typer.Exit(_INTERRUPTED) from None
