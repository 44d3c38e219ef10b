"""`fm new-plugin` makes a package that is whole, clean and right, or nothing at all."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fm_core.cli.new_plugin import new_plugin
from fm_core.discovery import Source
from fm_core.errors import PluginError, UnknownNameError
from fm_core.hookspecs import KINDS, Component
from fm_core.registry import Registry
from fm_core.scaffold import LONGEST, SCAFFOLDED, scaffold, template

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FM_", "PYTEST_"))} | environ
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, env=own, capture_output=True, text=True, check=False
    )


def declared(package: Path) -> list[Component]:
    namespace: dict[str, Any] = {}
    exec((package / package.name / "__init__.py").read_text(), namespace)
    components: list[Component] = namespace["fm_components"]()
    return components


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with a component of every kind."""
    return scaffold("whole_zoo", SCAFFOLDED, tmp_path_factory.mktemp("whole"))


def test_the_template_of_a_checkout_is_the_one_in_docs() -> None:
    assert template() == ROOT / "docs" / "plugin_template"
    assert SCAFFOLDED == KINDS


def test_a_package_of_every_kind_passes_its_own_tests(whole: Path) -> None:
    arguments = ("-q", "-p", "no:cacheprovider", "--ignore", "tests/test_conformance.py")
    paths = os.pathsep.join([str(whole), str(ROOT)])
    done = run("pytest", *arguments, cwd=whole, PYTHONPATH=paths, PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["x", "flow_zoo_" + "y" * (LONGEST - 9)])
@pytest.mark.parametrize("kinds", [("path",), SCAFFOLDED], ids=["one", "all"])
def test_what_is_made_is_clean_whatever_its_name(name: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    made = scaffold(name, kinds, tmp_path)
    for command in (("ruff", "check", "--no-cache"), ("ruff", "format", "--check", "--no-cache")):
        done = run(*command, cwd=made)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_a_package_holds_what_its_kinds_need_and_nothing_else(kind: str, tmp_path: Path) -> None:
    made = scaffold("flow_zoo", [kind], tmp_path)
    files = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    own = {f"tests/test_{kind}.py"} | ({f"flow_zoo/{kind}.py"} if kind != "recipe" else set())
    assert files == own | {
        ".github/workflows/tests.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "flow_zoo/__init__.py",
        "flow_zoo/py.typed",
        "tests/test_conformance.py",
    }
    (component,) = declared(made)
    assert component.key == f"{kind}/flow_zoo"
    assert isinstance(component.target, str) == (kind != "recipe")  # declared without torch
    table = [line for line in (made / "README.md").read_text().splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in table[2:]] == [f"| {kind}"]


def test_the_name_is_everywhere_and_the_templates_nowhere(whole: Path) -> None:
    for path in whole.rglob("*"):
        text = path.read_text() if path.is_file() else ""
        assert "my_plugin" not in f"{path}{text}"
        assert "my-plugin" not in f"{path}{text}"
    project = tomllib.loads((whole / "pyproject.toml").read_text())["project"]
    assert project["name"] == "whole-zoo"
    assert project["entry-points"] == {"fm.plugins": {"whole_zoo": "whole_zoo"}}
    assert {component.kind for component in declared(whole)} == set(SCAFFOLDED)
    assert 'parametrize_plugin("whole_zoo")' in (whole / "tests" / "test_conformance.py").read_text()


def test_every_component_has_an_example_it_can_be_built_with(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(whole)

    registry = Registry([Source("whole_zoo", lambda: import_module("whole_zoo"), "whole-zoo", "0.1.0")], {})
    assert [plugin.reason for plugin in registry.plugins()] == [""]
    for item in registry.components():
        assert registry.build(item.kind, item.name, **item.component.example) is not None


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("Flow-Zoo", "'flow_zoo' would do"),
        ("flow zoo", "'flow_zoo' would do"),
        ("../evil", "'evil' would do"),
        ("2fast", "starts with a letter"),
        ("", "got ''"),
        ("_x", "'x' would do"),
        ("a" * (LONGEST + 1), "at most 40"),
        ("class", "means something in Python"),
        ("json", "means something in Python"),
        ("tests", "means something in Python"),
        ("torch", "a module 'torch' is installed"),
        ("fm_core", "a module 'fm_core' is installed"),
        ("runge_kutta", "an installed plugin is called 'runge_kutta'"),
        ("heun", r"a solver 'heun' already, in plugin 'runge_kutta' of fm-core"),
    ],
)
def test_names_that_cannot_be_used_are_refused_with_a_reason(name: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=complaint):
        scaffold(name, ["solver"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_another_kind_bears_is_free(tmp_path: Path) -> None:
    assert scaffold("heun", ["path"], tmp_path).is_dir()


def test_kinds_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'solver'"):
        scaffold("flow_zoo", ["path", "solvr"], tmp_path)
    with pytest.raises(PluginError, match="give --kind"):
        scaffold("flow_zoo", [], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["folder", "empty folder", "file", "dead link"])
def test_nothing_is_ever_overwritten(what: str, tmp_path: Path) -> None:
    target = tmp_path / "flow_zoo"
    if what == "file":
        target.write_text("mine")
    elif what == "dead link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        target.mkdir()
        if what == "folder":
            (target / "mine").write_text("mine")
    with pytest.raises(PluginError, match="nothing is overwritten"):
        scaffold("flow_zoo", ["solver"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["flow_zoo"]


def test_a_package_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    write = Path.write_text

    def full_disk(self: Path, text: str, **options: Any) -> int:
        written.append(self)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        return write(self, text, **options)

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(PluginError, match="cannot be made: No space left on device"):
        scaffold("flow_zoo", ["solver"], tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PluginError, match=r"cannot be made: .*choose another --out"):
        scaffold("flow_zoo", ["solver"], tmp_path / "file" / "below")


def test_the_command_says_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_plugin("flow_zoo", ["solver", "path"], tmp_path)
    assert {component.kind for component in declared(tmp_path / "flow_zoo")} == {"solver", "path"}
    assert "fm check flow_zoo && pytest" in capsys.readouterr().out
