"""Proof of life: strangers' wheels, installed by pip beside the library, are found, used, and gone when uninstalled.

The environment is a fresh one that sees this one's packages, so that torch is not copied.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from fm_core.scaffold import scaffold

ROOT = Path(__file__).parents[2]
BROKEN = """
from fm_core import Component, hookimpl
import a_module_that_nobody_has

@hookimpl
def fm_components():
    return [Component("solver", "never_seen", "broken_zoo:X")]
"""
PYPROJECT = """
[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = "broken-zoo"
version = "0.3"

[project.entry-points."fm.plugins"]
broken_zoo = "broken_zoo"
"""
USE = """
import sys
import torch
import fm_core as fm

net = fm.build("model", "mlp", shape=2, width=8, seed=0)
pipe = fm.compose(path="flow_zoo", model=net, objective="cfm", solver="flow_zoo")
pipe = pipe.fit(torch.zeros(16, 2), steps=2, batch_size=8, seed=0).pipeline
pipe.save("saved")
out = fm.load("saved").sample((4, 2), nfe=8, seed=0)
assert out.nfe == 8 and out.x.isfinite().all()
assert torch.equal(out.x, pipe.sample((4, 2), nfe=8, seed=0).x)
try:
    fm.build("solver", "broken-zoo:never_seen")
except fm.PluginError as error:
    print(error)
print(sorted(name for name in sys.modules if name.startswith("flow_zoo")))
"""
GONE = """
import fm_core as fm

for use in (lambda: fm.build("solver", "flow_zoo"), lambda: fm.load("saved")):
    try:
        use()
    except fm.FMError as error:
        print(type(error).__name__, error)
"""


class Environment:
    """A fresh virtual environment beside this one, and what can be done in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
        site = Path(sysconfig.get_path("purelib", vars=paths))
        # This environment's packages come after its own, with what their .pth files add (editable installs).
        homes = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        lines = [f"import site; site.addsitedir({home!r})" for home in sorted(homes)]
        (site / "parent.pth").write_text("\n".join([*lines, str(ROOT)]))

    def pip(self, *arguments: str) -> None:
        """This environment's pip, acting on that one."""
        run([sys.executable, "-m", "pip", "--python", str(self.python), *arguments], self.folder)

    def fm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-c", "from fm_core.cli import main; main()", *arguments)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run([str(self.python), *arguments], self.folder, check=False)


def run(command: list[str], cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    dropped = ("FM_", "PYTHON", "PIP_REQUIRE", "PYTEST_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environ |= {"COLUMNS": "200", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{command}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Two strangers' wheels, one sound and one broken, built and installed."""
    folder = tmp_path_factory.mktemp("third_party")
    sound = scaffold("flow_zoo", ["solver", "path"], folder)
    broken = folder / "broken_zoo"
    (broken / "broken_zoo").mkdir(parents=True)
    (broken / "pyproject.toml").write_text(PYPROJECT)
    (broken / "broken_zoo" / "__init__.py").write_text(BROKEN)
    try:
        made = Environment(folder)
        __import__("hatchling")
        build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder / "wheels")]
        run([sys.executable, "-m", "pip", *build, str(sound), str(broken)], folder)
    except (OSError, subprocess.SubprocessError, ImportError, AssertionError) as error:
        pytest.skip(f"pip, venv or hatchling cannot be used here: {error}")
    made.pip("install", "--no-deps", "--no-index", *map(str, (folder / "wheels").glob("*.whl")))
    return made


def strangers(listed: str) -> list[tuple[str, ...]]:
    keys = ("kind", "name", "distribution", "version", "status")
    return [tuple(row[key] for key in keys) for row in json.loads(listed) if "zoo" in row["distribution"]]


def test_strangers_wheels_are_found_used_and_gone_when_uninstalled(environment: Environment) -> None:
    listed = strangers(environment.fm("plugins", "--json").stdout)
    assert listed == [
        ("path", "flow_zoo", "flow-zoo", "0.1.0", "ok"),
        ("solver", "flow_zoo", "flow-zoo", "0.1.0", "ok"),
        ("plugin", "broken_zoo", "broken-zoo", "0.3", "broken"),
    ]

    doctor = environment.fm("doctor", "--strict", "--quick")
    assert doctor.returncode == 1
    report = doctor.stdout[doctor.stdout.index("broken broken_zoo") :]
    assert "plugin 'broken_zoo' of broken-zoo 0.3" in report
    assert "No module named 'a_module_that_nobody_has'" in report
    assert "FM_PLUGINS_BLOCK=broken_zoo" in report

    checked = environment.fm("check", "flow_zoo", "--json")
    results = [json.loads(line) for line in checked.stdout.splitlines()]
    assert checked.returncode == 0, [result for result in results if result["status"] == "FAIL"]
    assert {result["component"] for result in results} == {"path/flow_zoo", "solver/flow_zoo"}
    assert {"component", "plugin", "check", "status", "figure", "why"} <= set(results[0])
    assert sum(result["status"] == "PASS" for result in results) > 15

    used = environment.run("-c", USE)
    assert used.returncode == 0, used.stderr
    said, modules = used.stdout.splitlines()
    assert "plugin 'broken_zoo' of broken-zoo 0.3 is broken" in said
    assert modules == "['flow_zoo', 'flow_zoo.path', 'flow_zoo.solver']"

    environment.pip("uninstall", "--yes", "flow-zoo", "broken-zoo")
    assert strangers(environment.fm("plugins", "--json").stdout) == []
    gone = environment.run("-c", GONE).stdout.splitlines()
    assert [line.split()[0] for line in gone] == ["UnknownNameError"] * 2
    assert all("'flow_zoo'" in line for line in gone)
