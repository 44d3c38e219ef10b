"""Cells to records: one after the other in a fair order, written as they come, gone on with after an interruption.

A cell is a record that lacks its figures, and what measures them. Cells of one suite, problem, settings and seed make a
*block*: what is compared with each other. A block's cells are measured one after the other, so a busy machine slows all
alike. Blocks go seed by seed: every seed is a round of timing, and an interrupted suite has all contenders, with fewer
replicates.

    run([Cell(Record("solvers", "gaussian", "heun", {"nfe": 10}, seed=0), measure)], Path("out/bench"))
"""

from __future__ import annotations

import contextlib
import errno
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from attrs import asdict, evolve, frozen

from fm_core import registry
from fm_core.bench.machine import this_run
from fm_core.bench.records import RESULTS, Record, Results, Run, append, read
from fm_core.errors import CompatError, DataError, DivergenceError
from fm_core.fit.progress import someone_looks

__all__ = ["Cell", "NotHere", "run"]

Figures = Mapping[str, float]

FINISHED = frozenset({"ok", "diverged"})
"""Status of records that a suite does not measure again."""


class NotHere(Exception):
    """What a cell raises that cannot be measured here, with the reason: it becomes a row that is "skipped"."""


@frozen(eq=False)
class Cell:
    """What is to be measured.

    Args:
        record: Suite, problem, contender, settings, seed, group and notes: its key.
        measure: Gives the figures. Its DivergenceError makes the row "diverged", its `NotHere` and CompatError
            "skipped", any other exception "failed"; the run goes on.
    """

    record: Record
    measure: Callable[[], Figures]


def run(
    cells: Iterable[Cell],
    out: Path,
    *,
    command: str | None = None,
    title: str = "bench",
    progress: bool | None = None,
) -> Results:
    """Measures the cells that the folder does not hold yet.

    Args:
        cells: In any order; they run seed by seed, block by block.
        out: Folder of `results.jsonl`.
        command: What was typed, for the record; by default the process's arguments.
        title: Name of the progress bar.
        progress: Whether to show a bar with the time left; None on a terminal.

    Returns:
        All that the folder holds then, and which of it was asked for.

    Raises:
        DataError: If the folder cannot be written, as on a full disk. Finished rows are kept.
        KeyboardInterrupt: Ctrl-C. Finished rows are kept.
    """
    with _kept(out):
        before = read(out) if (out / RESULTS).is_file() else Results({}, ())
    done = {record.key for record in before.records if record.status in FINISHED}
    wanted = {cell.record.key: cell for cell in cells}
    todo = [cell for key, cell in wanted.items() if key not in done]
    if not todo:
        return evolve(before, asked=frozenset(wanted))
    here, began = this_run(command), time.perf_counter()
    with _kept(out), _shown(title, len(todo), progress) as advance:
        append(out, here)
        for cell in _in_turn(todo):
            advance(0, f"{cell.record.problem} · {cell.record.contender}")
            record = _measured(cell, here)
            append(out, record)
            _tell(record)
            advance(1)
        append(out, evolve(here, seconds=time.perf_counter() - began))
    return evolve(read(out), asked=frozenset(wanted), measured=len(todo))


def _in_turn(cells: Sequence[Cell]) -> Iterator[Cell]:
    """Block by block, seed by seed, else in the order given."""
    blocks: dict[tuple[int, str, str, str], list[Cell]] = {}
    for cell in cells:
        record = cell.record
        key = (record.seed, record.suite, record.problem, json.dumps(record.settings, sort_keys=True, default=dict))
        blocks.setdefault(key, []).append(cell)
    for block in sorted(blocks.values(), key=lambda block: block[0].record.seed):
        yield from block


def _measured(cell: Cell, here: Run) -> Record:
    record = evolve(cell.record, run=here.run)
    try:
        return evolve(record, figures=dict(cell.measure()))
    except DivergenceError as error:
        return evolve(record, status="diverged", why=str(error))
    except (NotHere, CompatError) as error:
        return evolve(record, status="skipped", why=str(error))
    except Exception as error:
        said = [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]  # the plugin is in the notes
        return evolve(record, status="failed", why="; ".join(said))


def _tell(record: Record) -> None:
    observers = registry.observers("fm_bench_record")
    if observers is not None:
        registry.notify(observers, record=asdict(record))


@contextlib.contextmanager
def _kept(out: Path) -> Iterator[None]:
    """Whatever stops the run, what was finished is on disk, and this says so."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(f"Finished rows are kept in {out / RESULTS}; the same command goes on from there.")
        raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "mend it")
        raise DataError(
            f"results cannot be kept in {out / RESULTS}: {error.strerror or error}. Finished rows are kept; {remedy}, "
            "and the same command goes on from there."
        ) from error


_REMEDIES: Mapping[int, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "allow writing there"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), "move what is in the way, or name another folder"),
}
"""What helps, by the kind of error."""


class Advance(Protocol):
    """Moves the bar on by finished rows, and says what is being measured."""

    def __call__(self, rows: int, now: str = "") -> None: ...


@contextlib.contextmanager
def _shown(title: str, total: int, progress: bool | None) -> Iterator[Advance]:
    if not (someone_looks() if progress is None else progress):
        yield lambda rows, now="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, now="")

        def advance(rows: int, now: str = "") -> None:
            bar.update(task, advance=rows)
            if now:
                bar.update(task, now=now)

        yield advance
