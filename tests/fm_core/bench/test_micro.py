"""pytest-benchmark's figures as records, from a small folder of benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from fm_core.bench import micro
from fm_core.bench.micro import QUICK, checkout, collected
from fm_core.errors import DataError, UnknownNameError

SOURCE = """
import pytest

@pytest.mark.parametrize("n", [1, 2])
def bench_sum(benchmark, n):
    benchmark.extra_info.update(nfe=n, by="hand")
    benchmark.pedantic(sum, args=([n],), rounds=3)

def bench_broken(benchmark):
    raise ZeroDivisionError("planted")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "bench_small.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return folder


def test_benchmarks_become_rows_with_what_they_noted(folder: Path, tmp_path: Path) -> None:
    records = micro.bench_micro(tmp_path / "out", folder=folder, only=["bench_small.py"]).records
    found = {record.contender: record for record in records}
    assert set(found) == {"sum[1]", "sum[2]", "broken"}
    assert {record.problem for record in records} == {"small"}
    assert found["sum[2]"].figures["nfe"] == 2
    assert found["sum[2]"].figures["rounds"] == 3
    assert 0 < found["sum[2]"].figures["median_s"] < 0.1
    assert "by" not in found["sum[2]"].figures
    assert found["broken"].status == "failed"
    assert "ZeroDivisionError" in found["broken"].why
    again = micro.bench_micro(tmp_path / "out", folder=folder, only=["bench_small.py::bench_sum"])
    assert again.records == records


def test_what_is_asked_for_must_be_there(folder: Path, tmp_path: Path) -> None:
    assert collected(folder, ["bench_small.py::bench_sum[2]"]) == ["bench_small.py::bench_sum[2]"]
    with pytest.raises(UnknownNameError, match=r"did you mean 'bench_small.py'"):
        collected(folder, ["bench_smal.py"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no benchmarks"):
        collected(empty)


def test_outside_a_checkout_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(micro.fm_core, "__file__", str(tmp_path / "site-packages" / "fm_core" / "__init__.py"))
    with pytest.raises(DataError, match="no part of the installed package"):
        micro.bench_micro(tmp_path)


def test_without_pytest_benchmark_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(micro.importlib.util, "find_spec", lambda name: None if name == "pytest_benchmark" else name)
    with pytest.raises(DataError, match="pytest_benchmark is not installed"):
        micro.bench_micro(tmp_path)


def test_a_quick_run_takes_the_marked_ones_and_few_rounds(folder: Path, tmp_path: Path) -> None:
    marked = "\n@pytest.mark.quick\ndef bench_sleep(benchmark):\n    benchmark(__import__('time').sleep, 0.001)\n"
    (folder / "bench_small.py").write_text(SOURCE + marked, encoding="utf-8")
    (record,) = micro.bench_micro(tmp_path / "out", folder=folder, quick=True).records
    assert record.contender == "sleep"
    assert 3 <= record.figures["rounds"] < 500, "a full run takes a second, a quick one a fifth of it"


def test_a_quick_row_is_no_stand_in_for_a_full_one(folder: Path, tmp_path: Path) -> None:
    named = "bench_small.py::bench_sum[1]"
    quick = micro.bench_micro(str(tmp_path / "out"), folder=folder, only=named, quick=True)
    both = micro.bench_micro(tmp_path / "out", folder=folder, only=named)
    assert (quick.measured, both.measured) == (1, 1)
    assert [one.notes for one in both.records] == [{"effort": "quick"}, {"effort": "full"}]
    assert micro.bench_micro(tmp_path / "out", folder=folder, only=[named], seeds=1).measured == 0


def test_a_folder_without_marks_has_no_quick_run(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no benchmarks marked quick"):
        micro.bench_micro(tmp_path / "out", folder=folder, quick=True)


def test_the_checkout_has_quick_ones_and_leaves_scripts_out() -> None:
    folder = checkout()
    scripts = {path.name for path in folder.glob("bench_*.py") if '__name__ == "__main__"' in path.read_text("utf-8")}
    assert scripts, "else this test shows nothing"
    quick = collected(folder, mark=QUICK)  # a script that is collected is an error, whatever the mark
    assert not scripts & {node.split("::")[0] for node in quick}
    assert 1 <= len(quick) < 8
