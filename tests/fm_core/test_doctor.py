"""`fm doctor` says what is wrong, where, and what to do, and nothing that is broken breaks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fm_core.diagnosis import Diagnosis, Finding, diagnose
from fm_core.discovery import Source
from fm_core.hookspecs import Component, hookimpl

ROOT = Path(__file__).parents[2]


class Offers:
    def __init__(self, *components: Component) -> None:
        self.components = components

    @hookimpl
    def fm_components(self) -> list[Component]:
        return list(self.components)


def offering(name: str, *components: Component, distribution: str = "zoo") -> Source:
    return Source(name, lambda: Offers(*components), distribution, "1.0")


def findings(*sources: Source, deep: bool = True, **environ: str) -> list[Finding]:
    return list(diagnose(sources, environ, deep=deep).findings)


HEUN = Component("solver", "heun", len)


# From Python


def test_what_is_healthy_needs_no_words() -> None:
    diagnosis = diagnose([offering("a", HEUN)], {})
    assert diagnosis.findings == ()
    assert diagnosis.healthy
    assert [plugin.status for plugin in diagnosis.plugins] == ["ok"]


def test_a_target_that_does_not_import_is_found_unless_it_is_to_be_quick() -> None:
    plugin = offering("a", HEUN, Component("grid", "gone", "json:Nothing"), Component("path", "x", "no_such_module:X"))
    found = {finding.subject: finding for finding in findings(plugin)}
    gone, missing = found.pop("grid/gone"), found.pop("path/x")
    assert not found
    assert (gone.severity, gone.subject, gone.plugin, gone.distribution) == ("broken", "grid/gone", "a", "zoo")
    assert "module 'json' has no attribute 'Nothing'" in gone.what
    assert "FM_PLUGINS_BLOCK=a" in gone.what
    assert "AttributeError" in gone.traceback
    assert "install what provides 'no_such_module'" in missing.what
    assert findings(plugin, deep=False) == []


@pytest.mark.parametrize("error", ["SystemExit(1)", "BaseException('panic')", "SyntaxError('bad')"])
def test_a_target_may_raise_anything(error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raising_target.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "raising_target", raising=False)
    (finding,) = findings(offering("a", Component("grid", "x", "raising_target:X")))
    assert (finding.severity, finding.subject) == ("broken", "grid/x")


def test_a_target_that_lacks_an_optional_package_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fm_core.extras._is_missing", lambda distribution: distribution == "diffusers")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    component = Component("model", "x", "diffusers:UNet2DModel")
    diagnosis = diagnose([offering("a", component, distribution="fm-core")], {})
    (finding,) = (finding for finding in diagnosis.findings if finding.subject == "model/x")
    assert finding.severity == "warning"
    assert "pip install 'fm-core[diffusers]'" in finding.what
    assert diagnosis.healthy


def test_equal_names_of_two_distributions_are_a_warning_with_both_ways_out() -> None:
    (finding,) = findings(offering("a", HEUN), offering("b", HEUN, distribution="ark"))
    assert (finding.severity, finding.subject) == ("warning", "solver/heun")
    assert "plugin 'b' of ark 1.0 and plugin 'a' of zoo 1.0" in finding.what
    assert "'ark:heun' or 'zoo:heun'" in finding.fix
    assert "FM_PLUGINS_BLOCK=zoo:a" in finding.fix


def test_a_stranger_is_left_out_rather_than_a_built_in() -> None:
    given = offering("runge_kutta", HEUN, distribution="fm-core"), offering("a", HEUN, distribution="ark")
    (finding,) = (finding for finding in findings(*given) if finding.subject == "solver/heun")
    assert "FM_PLUGINS_BLOCK=ark:a" in finding.fix


def test_equal_names_in_one_distribution_are_broken_since_neither_can_be_reached() -> None:
    (finding,) = findings(offering("a", HEUN), offering("b", HEUN))
    assert (finding.severity, finding.subject) == ("broken", "solver/heun")
    assert "FM_PLUGINS_BLOCK=zoo:b" in finding.fix


def test_a_block_list_that_blocks_nothing_is_pointed_out() -> None:
    (finding,) = findings(offering("heun", HEUN), FM_PLUGINS_BLOCK="huen")
    assert (finding.severity, finding.subject) == ("warning", "FM_PLUGINS_BLOCK")
    assert "'huen'" in finding.what
    assert "did you mean 'heun'?" in finding.fix


def test_the_worst_comes_first_and_strictness_is_not_obeyed() -> None:
    def load() -> object:
        raise OSError("no disk")

    given = [offering("a", HEUN), offering("b", HEUN, distribution="ark"), Source("c", load, "zoo", "1.0")]
    found = findings(*given, offering("d"), FM_PLUGINS_BLOCK="d", FM_PLUGINS_STRICT="1")
    assert [finding.severity for finding in found] == ["broken", "warning", "note"]
    assert (found[0].subject, found[0].what, found[0].file) == ("c", "OSError: no disk", __file__)
    assert "OSError: no disk" in found[0].traceback
    assert found[2].what == "named by FM_PLUGINS_BLOCK"


def test_the_environment_in_force_is_told() -> None:
    environ = {"FM_PLUGINS": "a", "FM_PLUGINS_STRICT": "0", "FM_PLUGINS_BLOCK": "", "HOME": "/root"}
    told = diagnose([offering("a", HEUN)], environ).environment
    assert sys.executable in told["python"]
    assert {"fm-core", "torch", "FM_PLUGINS"} <= set(told)
    assert not {"FM_PLUGINS_STRICT", "FM_PLUGINS_BLOCK", "HOME"} & set(told)


def test_only_ctrl_c_ends_a_diagnosis() -> None:
    def load() -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diagnose([Source("a", load)], {})


# From the terminal: a process of its own, over fake installed distributions

PLUGIN = """
from fm_core import Component, hookimpl
print("a plugin that talks")

@hookimpl
def fm_components():
    return {components}
"""
PROGRAM = """
import atexit, sys
from fm_core.cli import main

atexit.register(lambda: print("HEAVY", *sorted({"torch", "numpy"} & set(sys.modules)), file=sys.stderr))
sys.argv[0] = "fm"
main()
"""


def install(site: Path, name: str, code: str) -> None:
    info = site / f"{name}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[fm.plugins]\n{name}_plugin = {name}\n")
    (site / f"{name}.py").write_text(code)


def fm(site: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FM_", "COLUMNS", "FORCE_COLOR"))}
    builtin = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["fm.plugins"]
    own |= {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "FM_PLUGINS_BLOCK": ",".join(builtin)} | environ
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=own, capture_output=True, text=True, check=False
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    install(tmp_path, "zoo", PLUGIN.format(components="[Component('metric', 'zoo_size', 'json:dumps')]"))
    install(tmp_path, "ruin", "import no_ot\n")
    return tmp_path


def own(report: dict[str, Any], key: str, field: str) -> list[dict[str, Any]]:
    return [item for item in report[key] if item[field] in {"zoo", "ruin"}]


def test_the_report_says_plugin_distribution_version_file_reason_and_fix(site: Path) -> None:
    run = fm(site, "doctor")
    assert run.returncode == 0
    row = next(line for line in run.stdout.splitlines() if "zoo_plugin" in line)
    assert "1.5" in row
    assert "ok" in row
    report = run.stdout[run.stdout.index("broken ruin_plugin") :].splitlines()
    assert report[1:5] == [
        "  plugin 'ruin_plugin' of ruin 1.5",
        f"  {site / 'ruin.py'}",
        "  ModuleNotFoundError: No module named 'no_ot'",
        "  What helps: install what provides 'no_ot'; update ruin (pip install --upgrade ruin) or uninstall it; leave "
        "the plugin out (FM_PLUGINS_BLOCK=ruin_plugin).",
    ]
    assert "Something is broken: 1 broken, 0 warnings" in run.stdout
    assert "Traceback" not in run.stdout
    assert "a plugin that talks" not in run.stdout
    assert "a plugin that talks" in run.stderr


def test_verbose_shows_the_full_traceback_and_what_is_blocked(site: Path) -> None:
    run = fm(site, "doctor", "--verbose")
    assert "Traceback" in run.stdout
    assert "import no_ot" in run.stdout
    assert "named by FM_PLUGINS_BLOCK" in run.stdout


def test_json_is_one_object_that_holds_everything(site: Path) -> None:
    run = fm(site, "doctor", "--json")
    report = json.loads(run.stdout)
    assert report["healthy"] is False
    assert own(report, "plugins", "distribution") == [
        {
            "plugin": "ruin_plugin",
            "distribution": "ruin",
            "version": "1.5",
            "file": str(site / "ruin.py"),
            "status": "broken",
            "components": [],
        },
        {
            "plugin": "zoo_plugin",
            "distribution": "zoo",
            "version": "1.5",
            "file": str(site / "zoo.py"),
            "status": "ok",
            "components": ["metric/zoo_size"],
        },
    ]
    (finding,) = own(report, "findings", "distribution")
    assert (finding["severity"], finding["subject"]) == ("broken", "ruin_plugin")
    assert "Traceback" in finding["traceback"]


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_strict_exits_with_one_after_the_whole_report(site: Path, how: str) -> None:
    run = fm(site, "doctor", "--strict") if how == "argument" else fm(site, "doctor", FM_PLUGINS_STRICT="1")
    assert run.returncode == 1
    assert "broken ruin_plugin" in run.stdout
    assert "zoo_plugin" in run.stdout


def test_strict_is_content_where_nothing_is_broken(tmp_path: Path) -> None:
    install(tmp_path, "zoo", PLUGIN.format(components="[Component('metric', 'zoo_size', 'json:dumps')]"))
    run = fm(tmp_path, "doctor", "--strict")
    assert run.returncode == 0, run.stdout
    assert "Nothing is broken." in run.stdout


def test_quick_imports_nothing_heavy(site: Path) -> None:
    install(site, "heavy", PLUGIN.format(components="[Component('metric', 'x', 'torch:Tensor')]"))
    assert "HEAVY\n" in fm(site, "doctor", "--quick").stderr
    assert "HEAVY numpy torch" in fm(site, "doctor").stderr


def test_all_that_is_built_in_is_healthy() -> None:
    """The one place where every target of every built-in component is imported."""
    diagnosis: Diagnosis = diagnose()
    broken = [f for f in diagnosis.findings if f.severity == "broken" and f.distribution == "fm-core"]
    assert not broken, broken


def test_two_hundred_plugins_of_which_twenty_are_broken_are_listed_without_torch(tmp_path: Path) -> None:
    for i in range(200):
        components = f"[Component('solver', 's{i}', 'torch:Tensor'), Component('grid', 'g{i}', 'json:dumps')]"
        broken = i % 10 == 0
        install(tmp_path, f"many_{i}", "import no_such_module\n" if broken else PLUGIN.format(components=components))
    run = fm(tmp_path, "plugins", "--json")  # in how long, benchmarks/bench_import.py measures
    rows = [row for row in json.loads(run.stdout) if row["distribution"].startswith("many_")]
    assert sum(row["status"] == "ok" for row in rows) == 360
    assert sum(row["status"] == "broken" for row in rows) == 20
    assert run.stderr.splitlines()[-1] == "HEAVY"
    usable = "from fm_core.registry import build; print(build('grid', 'g11', obj=[1]))"
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    used = subprocess.run([sys.executable, "-c", usable], env=environ, capture_output=True, text=True, check=True)
    assert used.stdout.splitlines()[-1] == "[1]"


def test_a_pipeline_imports_the_implementations_of_its_own_components_only() -> None:
    program = """
import sys
import fm_core as fm
pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: x, predicts="velocity"), solver="heun")
pipe.sample((2, 2), steps=2, seed=0)
fm.components()
loaded = {name for name in sys.modules if name.startswith("fm_plugins.") and name.count(".") > 1}
print(*sorted(loaded))
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    implementations = set(run.stdout.split())
    assert {name.split(".")[1] for name in implementations} <= {"cfm", "runge_kutta", "grids"}
    assert implementations <= {
        "fm_plugins.cfm.linear",
        "fm_plugins.runge_kutta.solver",
        "fm_plugins.runge_kutta.tableau",
        "fm_plugins.grids.uniform",
        "fm_plugins.grids.warp",
    }
