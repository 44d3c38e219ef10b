"""What a run of the suite writes: `results.jsonl`, one JSON object a line, appended as each cell is finished.

Two kinds of line. A *run* says on what machine, with which versions, from which commit and by which command, and, once
it is through, again, how long it took; a *record* is one cell of a suite: a contender on a problem under settings, one
seed. A cell is known by its `key`, so an interrupted suite goes on where it stopped, and a line torn by a full disk or
a kill is left out when read.

    {"run": "1f0c…", "command": "fm bench solvers --quick", "machine": {…}, "versions": {…}, "git": {…}, …}
    {"suite": "solvers", "problem": "eight_gaussians", "contender": "auto", "settings": {"nfe": 10}, "seed": 0, …}
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from attrs import asdict, field, frozen

from fm_core.errors import DataError
from fm_core.signatures import check_arguments

__all__ = ["ESCAPED", "RESULTS", "Record", "Results", "Run", "append", "read"]

RESULTS = "results.jsonl"
"""Name of the file in a folder of results."""

ESCAPED = "backslashreplace"
"""How names are kept that are no text, such as those of files: as JSON escapes, which are read as what they were."""

T = TypeVar("T")

Status = Literal["ok", "diverged", "skipped", "failed"]


@frozen
class Run:
    """Where and how records came about.

    Args:
        run: Identifies the run.
        command: What was typed.
        started: Time of the start, ISO 8601, UTC.
        machine: Processor, cores, threads, memory, GPU, and system.
        versions: Of Python, torch, this library, and the peers.
        git: Commit, and whether the tree was changed; empty outside a checkout.
        seconds: How long it took; None where it was interrupted, or is of an earlier version.
    """

    run: str
    command: str
    started: str
    machine: Mapping[str, Any] = field(factory=dict)
    versions: Mapping[str, str] = field(factory=dict)
    git: Mapping[str, Any] = field(factory=dict)
    seconds: float | None = None


@frozen
class Record:
    """One cell: a contender on a problem under settings, one seed.

    Args:
        suite: "solvers", "methods", "throughput" or "micro".
        problem: Name of the problem.
        contender: Name of what competes: a solver with its grid, a method, an operation.
        settings: What the cell was asked for, such as `{"nfe": 10}`; the x axis of a picture.
        seed: Seed of this cell; replicates of one cell differ in it alone.
        group: Whose contender it is: "ours", or the name of the peer's library.
        status: "ok", "diverged" (no figures), "skipped" or "failed".
        why: Reason of any other status than "ok".
        figures: Measured numbers by name; those in seconds end in "_s".
        notes: What else identifies the contender, such as its configuration.
        run: The run that it belongs to.
    """

    suite: str
    problem: str
    contender: str
    settings: Mapping[str, Any]
    seed: int
    group: str = "ours"
    status: Status = "ok"
    why: str = ""
    figures: Mapping[str, float] = field(factory=dict)
    notes: Mapping[str, Any] = field(factory=dict)
    run: str = ""

    @property
    def cell(self) -> str:
        """What replicates share: a digest of all that was asked for but the seed."""
        asked = (self.suite, self.problem, self.contender, self.group, self.settings, self.notes)
        text = json.dumps(asked, sort_keys=True, ensure_ascii=False, default=dict)
        return hashlib.sha256(text.encode(errors=ESCAPED)).hexdigest()[:16]

    @property
    def place(self) -> str:
        """What cells share that differ in their notes alone, such as one before and after its library was installed."""
        asked = (self.suite, self.problem, self.contender, self.group, self.settings)
        return json.dumps(asked, sort_keys=True, ensure_ascii=False, default=dict)

    @property
    def key(self) -> str:
        """What no other record has: the cell and its seed."""
        return f"{self.cell}-{self.seed}"


@frozen
class Results:
    """All that a folder of results holds.

    Args:
        runs: By identifier.
        records: In the order in which they were written; of two with one key the later counts, and so does what was
            measured at a place over an earlier row there that only said why it was not.
        torn: Lines that hold neither a run nor a record, and were left out.
        asked: Keys of the records that a suite was asked for; None where none was.
        measured: How many of them it had to measure.
    """

    runs: Mapping[str, Run]
    records: tuple[Record, ...]
    torn: int = 0
    asked: frozenset[str] | None = None
    measured: int = 0

    @property
    def failing(self) -> tuple[str, ...]:
        """Problems of what was asked for of which a row failed and none is "ok"."""
        asked = [one for one in self.records if self.asked is None or one.key in self.asked]
        well = {(one.suite, one.problem) for one in asked if one.status == "ok"}
        bad = {(one.suite, one.problem): one.problem for one in asked if one.status == "failed"}
        return tuple(dict.fromkeys(problem for place, problem in bad.items() if place not in well))

    def of(self, suite: str) -> tuple[Record, ...]:
        """The records of one suite."""
        return tuple(record for record in self.records if record.suite == suite)


def append(folder: Path, *lines: Run | Record) -> None:
    """Adds lines to the folder's results, each whole or not at all, on disk before it returns.

    Raises:
        OSError: If the disk is full; what was written before stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(_plain(asdict(line)), ensure_ascii=False) + "\n" for line in lines)
    with (folder / RESULTS).open("ab", buffering=0) as file:
        start = file.tell()
        if start and not _ends_whole(folder / RESULTS):
            text = "\n" + text  # a line was torn: the next begins on its own
        whole = text.encode(errors=ESCAPED)
        try:
            if file.write(whole) < len(whole):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / RESULTS))
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), start)
            raise


def read(folder: Path) -> Results:
    """The runs and records of a folder.

    Raises:
        DataError: If it holds no results.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise DataError(f"{folder} holds no {RESULTS}; a suite writes it: fm bench solvers --out {folder}")
    runs: dict[str, Run] = {}
    records: dict[str, Record] = {}
    waiting: dict[tuple[str, int], Record] = {}
    torn = 0
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            said = json.loads(line, parse_int=_whole)
            if "suite" in said:
                record = _typed(Record, said)
                records.pop(record.key, None)
                earlier = waiting.get((record.place, record.seed)) if waiting else None
                if earlier and earlier.notes.items() <= record.notes.items():
                    records.pop(earlier.key, None)
                records[record.key] = record
                if record.status in ("skipped", "failed"):
                    waiting[record.place, record.seed] = record
            else:
                runs[said["run"]] = _typed(Run, said)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            torn += bool(line.strip())
    return Results(runs, tuple(records.values()), torn)


def _typed(kind: type[T], said: Mapping[str, Any]) -> T:
    """A line as what it says it is, with values of its types: a stranger's program may have written anything."""
    check_arguments(kind, **said)
    return kind(**said)


def _whole(digits: str) -> int:
    """A whole number; one that no float holds is none that was measured or asked for."""
    float(number := int(digits))
    return number


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN: they are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, str) or not isinstance(value, Iterable):
        return value
    return [_plain(entry) for entry in value]
