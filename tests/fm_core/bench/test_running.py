"""Cells become records in a fair order, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fm_core import DivergenceError, hookimpl, observing
from fm_core.bench import running
from fm_core.bench.records import RESULTS, Record, read
from fm_core.bench.running import Cell, NotHere, run
from fm_core.errors import DataError


def cell(contender: str = "heun", seed: int = 0, measure: Any = None, **more: Any) -> Cell:
    record = Record("solvers", more.pop("problem", "gaussian"), contender, {"nfe": more.pop("nfe", 10)}, seed)
    return Cell(record, measure or (lambda: {"error_median": 0.5}), **more)


def test_cells_become_records_of_one_run(tmp_path: Path) -> None:
    results = run([cell(seed=seed) for seed in range(3)], tmp_path, command="fm bench")
    assert [record.seed for record in results.records] == [0, 1, 2]
    (here,) = results.runs.values()
    assert {record.run for record in results.records} == {here.run}
    assert here.command == "fm bench"
    assert here.machine["cores"] >= 1
    assert "torch" in here.versions


def test_blocks_go_seed_by_seed_with_contenders_in_turn(tmp_path: Path) -> None:
    order: list[tuple[int, int, str]] = []

    def note(*at: Any) -> Any:
        return lambda: order.append(at) or {}

    kinds = [(c, n, s) for c in ("euler", "heun") for n in (5, 10) for s in (0, 1)]
    run([cell(c, s, note(s, n, c), nfe=n) for c, n, s in kinds], tmp_path)
    assert order == sorted(order)


def test_a_run_says_how_long_it_took_once_it_is_through(tmp_path: Path) -> None:
    def slow() -> dict[str, float]:
        time.sleep(0.02)
        return {}

    def stopped() -> dict[str, float]:
        raise KeyboardInterrupt

    (whole,) = run([cell("euler", measure=slow)], tmp_path / "a").runs.values()
    assert whole.seconds is not None
    assert 0.02 <= whole.seconds < 10
    with pytest.raises(KeyboardInterrupt):
        run([cell("euler"), cell("heun", measure=stopped)], tmp_path / "b")
    (torn,) = read(tmp_path / "b").runs.values()
    assert torn.seconds is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DivergenceError("not finite in step 3"), "diverged"),
        (NotHere("azula is not installed"), "skipped"),
        (ZeroDivisionError("division by zero"), "failed"),
        (DataError("no data"), "failed"),
    ],
)
def test_what_raises_is_a_row_with_its_reason(tmp_path: Path, error: Exception, status: str) -> None:
    def raises() -> Mapping[str, float]:
        raise error

    records = run([cell("bad", measure=raises), cell("good")], tmp_path).records
    by_name = {record.contender: record for record in records}
    assert (by_name["bad"].status, by_name["good"].status) == (status, "ok")
    assert str(error) in by_name["bad"].why
    assert "sample_s" not in by_name["bad"].figures


def interrupted_after(n: int) -> Iterator[None]:
    for _ in range(n):
        yield
    raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_and_leaves_the_same_rows(tmp_path: Path) -> None:
    calls = []

    def cells(stop: Iterator[None] | None = None) -> list[Cell]:
        def measure(at: tuple[str, int]) -> Any:
            def work() -> dict[str, float]:
                if stop is not None:
                    next(stop)
                calls.append(at)
                return {"error_median": len(at[0]) + at[1]}

            return work

        return [cell(c, s, measure((c, s))) for s in range(3) for c in ("euler", "heun")]

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = run(cells(), whole).records
    calls.clear()
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(cells(interrupted_after(3)), parts)
    assert "kept in" in "".join(stopped.value.__notes__)
    assert len(read(parts).records) == 3
    resumed = run(cells(), parts).records
    assert len(calls) == len(set(calls)) == 6
    strip = [(r.key, r.status, dict(r.figures)) for r in resumed]
    assert strip == [(r.key, r.status, dict(r.figures)) for r in expected]
    before = (parts / RESULTS).read_bytes()
    run(cells(), parts)
    assert (parts / RESULTS).read_bytes() == before, "a finished suite writes nothing"


def test_failed_rows_are_tried_again(tmp_path: Path) -> None:
    def fails() -> Mapping[str, float]:
        raise RuntimeError("once")

    assert run([cell(measure=fails)], tmp_path).records[0].status == "failed"
    (record,) = run([cell()], tmp_path).records
    assert record.status == "ok"


def test_a_full_disk_keeps_what_is_there_and_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run([cell()], tmp_path)

    def full(*lines: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(running, "append", full)
    with pytest.raises(DataError, match=r"No space left on device\. Finished rows are kept"):
        run([cell(seed=1)], tmp_path)
    assert len(read(tmp_path).records) == 1


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EROFS, "allow writing there"),
        (errno.EEXIST, "move what is in the way"),
        (errno.EINVAL, "mend it"),
    ],
)
def test_what_stops_the_writing_is_said_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def stops(*lines: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(running, "append", stops)
    with pytest.raises(DataError, match=remedy) as stopped:
        run([cell()], tmp_path)
    assert os.strerror(number) in str(stopped.value)
    assert ("make room" in str(stopped.value)) is (number == errno.ENOSPC)


def test_a_file_in_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="move what is in the way, or name another folder"):
        run([cell()], tmp_path / "file")


def test_what_was_asked_for_and_measured_is_told(tmp_path: Path) -> None:
    first = run([cell(seed=0), cell(seed=0)], tmp_path)
    assert (first.asked, first.measured) == ({cell(seed=0).record.key}, 1)
    second = run([cell(seed=0), cell(seed=1)], tmp_path)
    assert (len(second.asked or ()), second.measured, len(second.records)) == (2, 1, 2)
    assert run([cell(seed=0)], tmp_path).measured == 0
    assert read(tmp_path).asked is None


def test_a_failure_says_what_was_being_built(tmp_path: Path) -> None:
    def fails() -> Mapping[str, float]:
        error = RuntimeError("planted")
        error.add_note("while building problem/mine (plugin 'zoo' of zoo 1.0)")
        raise error

    (record,) = run([cell(measure=fails)], tmp_path).records
    assert record.why == "RuntimeError: planted; while building problem/mine (plugin 'zoo' of zoo 1.0)"


def test_observers_hear_of_every_record(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []

    class Ear:
        @hookimpl
        def fm_bench_record(self, record: Any) -> None:
            heard.append(record)

    with observing(Ear()):
        run([cell(seed=seed) for seed in range(2)], tmp_path)
    assert [(record["seed"], record["figures"]) for record in heard] == [(s, {"error_median": 0.5}) for s in range(2)]
