"""`fm` as a user meets it: a process of its own, over fake installed distributions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fm_core.cli import COMMANDS

ROOT = Path(__file__).parents[2]
HEALTHY = """
from fm_core import Component, hookimpl

@hookimpl
def fm_components():
    heun = Component("solver", "zoo_heun", "no_such_module:Heun", summary="order 2 [explicit]")
    return [heun, Component("grid", "{grid}", "x:y")]
"""

PROGRAM = """
import atexit, sys
from fm_core.cli import main

heavy = {"torch", "numpy", "scipy"}
atexit.register(lambda: print("HEAVY", *sorted(heavy & set(sys.modules)), file=sys.stderr))
sys.argv[0] = "fm"
main()
"""


def fm(site: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs `fm` as its console script does, with the plugins of `site` alone; it tells what heavy it imported."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FM_", "COLUMNS", "FORCE_COLOR"))}
    own |= {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "FM_PLUGINS_BLOCK": _builtin_names()} | environ
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=own, capture_output=True, text=True, check=False
    )


def _builtin_names() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return ",".join(project["entry-points"]["fm.plugins"])


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two healthy distributions that clash in one name, and a broken one."""
    for name, plugin in (
        ("ark", HEALTHY.format(grid="shared")),
        ("zoo", HEALTHY.format(grid="own")),
        ("ruin", "import no_ot"),
    ):
        info = tmp_path / f"fake_{name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fake-{name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[fm.plugins]\n{name}_plugin = fake_{name}\n")
        (tmp_path / f"fake_{name}.py").write_text(plugin)
    own = tmp_path / "fm_core-9.9.dist-info"
    own.mkdir()
    (own / "METADATA").write_text("Metadata-Version: 2.1\nName: fm-core\nVersion: 9.9\n")
    return tmp_path


def rows(run: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = json.loads(run.stdout)
    return [row for row in listed if row["status"] != "blocked"]


def test_plugins_lists_components_and_broken_plugins_without_torch(site: Path) -> None:
    run = fm(site, "plugins", "--json")
    assert run.returncode == 0
    assert [(row["kind"], row["name"], row["distribution"], row["status"]) for row in rows(run)] == [
        ("solver", "fake-ark:zoo_heun", "fake-ark", "ok"),  # the name alone would be ambiguous
        ("solver", "fake-zoo:zoo_heun", "fake-zoo", "ok"),
        ("grid", "own", "fake-zoo", "ok"),
        ("grid", "shared", "fake-ark", "ok"),
        ("plugin", "ruin_plugin", "fake-ruin", "broken"),
    ]
    assert rows(run)[0]["version"] == "1.5"
    assert rows(run)[-1]["summary"] == "ModuleNotFoundError: No module named 'no_ot'"
    assert run.stderr.split() == ["HEAVY"]


def test_the_table_has_one_line_a_component_in_a_pipe_and_says_what_helps(site: Path) -> None:
    run = fm(site, "plugins")
    line = next(line for line in run.stdout.splitlines() if "fake-zoo:zoo_heun" in line)
    assert "order 2 [explicit]" in line  # not taken for markup
    assert "ok" in line
    broken = next(line for line in run.stdout.splitlines() if "ruin_plugin" in line)
    assert "broken" in broken
    assert "No module named 'no_ot'" in broken
    assert "install what provides 'no_ot'" in run.stdout
    assert "Traceback" not in run.stdout
    assert run.stderr.split() == ["HEAVY"]


def test_verbose_shows_tracebacks_of_broken_plugins(site: Path) -> None:
    run = fm(site, "plugins", "--verbose")
    assert "Traceback" in run.stdout
    assert str(site / "fake_ruin.py") in run.stdout


def test_kind_filters_components_and_keeps_what_is_broken(site: Path) -> None:
    names = [row["name"] for row in rows(fm(site, "plugins", "--kind", "grid", "--json"))]
    assert names == ["own", "shared", "ruin_plugin"]


def test_blocked_plugins_are_listed_with_the_reason(site: Path) -> None:
    run = fm(site, "plugins", "--json", FM_PLUGINS="zoo_plugin", FM_PLUGINS_BLOCK="")
    reasons = {row["name"]: row["summary"] for row in json.loads(run.stdout) if row["status"] == "blocked"}
    assert reasons["ruin_plugin"] == "not named by FM_PLUGINS"
    assert {row["name"] for row in rows(run)} == {"zoo_heun", "own"}


def test_errors_are_one_plain_message_and_exit_code_one(site: Path) -> None:
    run = fm(site, "plugins", "--kind", "solvr")
    assert run.returncode == 1
    assert "error: there is no kind of component called 'solvr'; did you mean 'solver'?" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_tracebacks_are_shown_on_request(site: Path, how: str) -> None:
    if how == "argument":
        run = fm(site, "--verbose", "plugins", "--kind", "solvr")
    else:
        run = fm(site, "plugins", "--kind", "solvr", FM_TRACEBACK="1")
    assert run.returncode == 1
    assert "Traceback" in run.stderr


def test_strict_fails_and_names_the_broken_plugin(site: Path) -> None:
    run = fm(site, "plugins", FM_PLUGINS_STRICT="1")
    assert run.returncode == 1
    assert "plugin 'ruin_plugin' of fake-ruin 1.5" in run.stderr


def test_version_is_that_of_the_distribution(site: Path) -> None:
    assert fm(site, "--version").stdout.strip() == "fm-core 9.9"


def test_a_mistyped_command_is_answered_with_the_nearest(site: Path) -> None:
    run = fm(site, "plugin")
    assert run.returncode == 2
    assert "'plugins'" in run.stderr


def test_every_command_has_help_with_an_example_and_needs_nothing_heavy(site: Path) -> None:
    overview = fm(site, "--help")
    assert "Example: fm" in overview.stdout
    assert overview.stderr.split() == ["HEAVY"]
    for command in COMMANDS:
        assert command in overview.stdout
        run = fm(site, command, "--help")
        assert run.returncode == 0
        assert f"Example: fm {command}" in run.stdout
        assert run.stderr.split() == ["HEAVY"]
