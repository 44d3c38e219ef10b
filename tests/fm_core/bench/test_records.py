"""Results are appended whole, survive torn lines and full disks, and cells are known by what was asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fm_core.bench.records import RESULTS, Record, Run, append, read
from fm_core.errors import DataError


def record(**changes: Any) -> Record:
    options: dict[str, Any] = {"suite": "solvers", "problem": "ring", "contender": "euler", "settings": {"nfe": 8}}
    return Record(**{**options, "seed": 0, "figures": {"error": 0.5}, **changes})


def test_what_was_appended_is_read_in_order(tmp_path: Path) -> None:
    run = Run("r1", "fm bench solvers", "2026-01-01T00:00:00Z", {"cores": 2}, {"torch": "2"}, {"commit": "abc"})
    first, second = record(run="r1"), record(seed=1, status="diverged", why="at t = 0.5", figures={})
    append(tmp_path / "new", run)
    append(tmp_path / "new", first, second)
    results = read(tmp_path / "new")
    assert results.runs == {"r1": run}
    assert results.records == (first, second)
    assert results.of("solvers") == (first, second)
    assert results.of("methods") == ()


def test_replicates_share_a_cell_and_no_key() -> None:
    assert record().cell == record(seed=1, figures={}, run="r2").cell
    assert record().key != record(seed=1).key
    others = [
        record(settings={"nfe": 9}),
        record(contender="heun"),
        record(notes={"grid": "log_snr"}),
        record(group="x"),
    ]
    assert len({record().cell, *(other.cell for other in others)}) == 5


def test_key_survives_the_file(tmp_path: Path) -> None:
    """JSON has lists and no tuples, and one kind of mapping."""
    asked = record(settings={"times": (0.0, 1.0), "nfe": 2})
    append(tmp_path, asked)
    assert read(tmp_path).records[0].key == asked.key


def test_later_record_of_a_key_counts(tmp_path: Path) -> None:
    append(tmp_path, record(), record(seed=1), record(figures={"error": 0.25}))
    assert [(r.seed, r.figures["error"]) for r in read(tmp_path).records] == [(1, 0.5), (0, 0.25)]


def test_torn_line_is_left_out_and_the_next_stands_alone(tmp_path: Path) -> None:
    append(tmp_path, record())
    path = tmp_path / RESULTS
    path.write_bytes(path.read_bytes() + b'{"suite": "solvers", "prob')
    append(tmp_path, record(seed=1))
    results = read(tmp_path)
    assert [r.seed for r in results.records] == [0, 1]
    assert results.torn == 1


@pytest.mark.parametrize(
    "line",
    [
        {"figures": None},
        {"settings": None},
        {"notes": None},
        {"seed": "3"},
        {"status": "fine"},
        {"why": None},
        {"problem": 3},
        {"of a later version": 1},
    ],
)
def test_a_line_of_other_types_is_left_out_and_counted(tmp_path: Path, line: dict[str, Any]) -> None:
    append(tmp_path, record())
    whole = json.loads((tmp_path / RESULTS).read_text())
    runs = [{"run": "r", "command": "", "started": "", "machine": None}, {"run": 3, "command": "", "started": ""}, 3]
    with (tmp_path / RESULTS).open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in ({**whole, **line}, *runs))
    results = read(tmp_path)
    assert results.records == (record(),)
    assert not results.runs
    assert results.torn == 4


@pytest.mark.parametrize("line", ['{"suite": ' + 100_000 * "[", '{"settings": {"nfe": 1' + 400 * "0" + "}}", "[]"])
def test_a_line_that_no_program_of_ours_can_hold_is_left_out_and_counted(tmp_path: Path, line: str) -> None:
    """Brackets without end, numbers without end."""
    append(tmp_path, record())
    whole = json.loads((tmp_path / RESULTS).read_text())
    with (tmp_path / RESULTS).open("a") as file:
        file.write((json.dumps(whole)[:-1] + ", " + line[1:] if "settings" in line else line) + "\n")
    results = read(tmp_path)
    assert results.records == (record(),)
    assert results.torn == 1


@pytest.mark.parametrize("said", ["two\u2028lines", "next\x85line", "a\nb\r\nc", "b\udcff"])
def test_any_text_is_read_as_it_was_written(tmp_path: Path, said: str) -> None:
    """Separators of lines that are none of the file's, and names of files that are no text."""
    one = record(problem=said, status="failed", why=said, figures={})
    append(tmp_path, one, Run(said, said, "now"))
    results = read(tmp_path)
    assert results.records == (one,)
    assert results.records[0].key == one.key
    assert results.runs[said].command == said
    assert not results.torn


def test_what_is_measured_takes_the_place_of_what_said_why_it_was_not(tmp_path: Path) -> None:
    """As a peer that was not installed: of that one nothing was known, so its notes are fewer."""
    bare, known = {"samples": 64}, {"samples": 64, "order": 2}
    absent = record(seed=0, status="skipped", why="azula is not installed", figures={}, notes=bare)
    append(tmp_path, absent, record(seed=1, notes=known))
    assert len(read(tmp_path).records) == 2
    other = record(seed=0, notes={"samples": 128, "order": 2})
    append(tmp_path, other)
    assert absent in read(tmp_path).records, "it was asked for something else"
    append(tmp_path, record(seed=0, notes=known))
    assert [(r.seed, r.status) for r in read(tmp_path).records] == [(1, "ok"), (0, "ok"), (0, "ok")]


def test_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path, record())
    before = (tmp_path / RESULTS).read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        append(tmp_path, record(seed=1))
    assert (tmp_path / RESULTS).read_bytes() == before


def test_numbers_that_json_lacks_are_none(tmp_path: Path) -> None:
    append(tmp_path, record(figures={"error": float("inf"), "other": float("nan")}))
    (line,) = (tmp_path / RESULTS).read_text().splitlines()
    assert json.loads(line)["figures"] == {"error": None, "other": None}


def test_folder_without_results_says_who_writes_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fm bench"):
        read(tmp_path)
