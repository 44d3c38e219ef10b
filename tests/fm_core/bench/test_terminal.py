"""`fm bench` and `fm recommend` as one types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fm_core import UnknownNameError, build
from fm_core.bench import solvers as suite
from fm_core.bench.records import read
from fm_core.cli import app


def fm(*arguments: str, expect: int = 0) -> Result:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})
    assert done.exit_code == expect, (done.output, done.exception)
    return done


SMALL = ("--problem", "gaussian", "--seeds", "2", "--samples", "8", "--no-peers")


def solvers(out: Path, *more: str, expect: int = 0) -> Result:
    return fm("bench", "solvers", *SMALL, "--nfe", "4", "--nfe", "8", "--out", str(out), *more, expect=expect)


def test_solvers_end_with_what_to_take_and_a_report(tmp_path: Path) -> None:
    done = solvers(tmp_path, "--solver", "heun", "--solver", "euler", "--solver", "rk4@cosine")
    assert "Take " in done.output
    assert "4 NFE" in done.output
    assert (tmp_path / "report.html").is_file()
    assert f"report: {tmp_path / 'report.html'}" in done.output
    assert len(read(tmp_path).records) == 3 * 2 * 2
    before = read(tmp_path).records
    solvers(tmp_path, "--solver", "heun", "--solver", "euler", "--solver", "rk4@cosine")
    assert read(tmp_path).records == before, "what is there is not measured again"


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
    assert len(read(tmp_path).records) == 2


def test_compare_says_what_changed_and_flags_what_differs(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for out in (a, b):
        solvers(out, "--solver", "heun", "--solver", "euler")
    text = (b / "results.jsonl").read_text()
    (b / "results.jsonl").write_text(text.replace('"processor": "', '"processor": "another '))
    done = fm("bench", "compare", str(a), str(b))
    assert "not the same machine: processor" in done.output
    assert "figures changed beyond noise" in done.output


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
