"""The shape of the repository, read from its files: who may import whom, what files may be called, what is declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import fm_core

ROOT = Path(__file__).parents[1]
PACKAGES = ("fm_core", "fm_plugins")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["fm.plugins"]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every module that a file imports, by statement or by `import_module("…")`, made absolute."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = (
                    [*package[: len(package) - level + 1], *([module] if module else [])] if level else [module or ""]
                )
                yield from ((node.lineno, ".".join([*base, alias.name])) for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield node.lineno, module


def offences(path: Path, imported: Iterator[tuple[int, str]]) -> list[str]:
    """The imports of a file that the dependency rule forbids."""
    top, *below = path.relative_to(ROOT).parts
    folder = f"fm_plugins.{below[0]}" if top == "fm_plugins" and len(below) > 1 else None

    def forbidden(name: str) -> bool:
        if name != "fm_plugins" and not name.startswith("fm_plugins."):
            return False
        return folder is None or not (name == folder or name.startswith(f"{folder}."))

    return [f"{path.relative_to(ROOT)}:{line} imports {name}" for line, name in imported if forbidden(name)]


def test_core_imports_no_plugin_and_no_plugin_imports_another() -> None:
    """Third party → fm_core ← fm_plugins. Broken, a built-in has a way that a stranger's plugin does not."""
    found = [offence for path in MODULES for offence in offences(path, imports(path))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "source", "allowed"),
    [
        ("fm_core/x.py", "import fm_plugins", False),
        ("fm_core/x.py", "def f():\n    from fm_plugins.cfm import objective", False),
        ("fm_core/x.py", "from importlib import import_module\nimport_module('fm_plugins.cfm')", False),
        ("fm_core/x.py", "from . import errors", True),
        ("fm_plugins/ot_cfm/x.py", "from fm_plugins.cfm.objective import CFM", False),
        ("fm_plugins/ot_cfm/x.py", "from ..cfm import objective", False),
        ("fm_plugins/ot_cfm/x.py", "from fm_plugins import cfm", False),
        ("fm_plugins/cfm/x.py", "from fm_plugins.cfm.objective import CFM\nfrom .path import linear", True),
        ("fm_plugins/cfm/x.py", "from fm_core.errors import FMError", True),
    ],
)
def test_the_dependency_rule_sees_every_way_to_import(
    file: str, source: str, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert (not offences(path, imports(path))) == allowed


def test_no_file_is_a_drawer_of_odds_and_ends() -> None:
    """A file is one idea; a name that says nothing lets it hold several."""
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    found = [
        path
        for top in (*PACKAGES, "tests", "benchmarks", "docs")
        for path in (ROOT / top).rglob("*")
        if path.stem in vague
    ]
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path.relative_to(ROOT)} has no docstring"


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_entry_point_is_a_folder_that_declares_components(name: str) -> None:
    """An entry point to nothing is a broken plugin in every user's `fm plugins`."""
    target = ENTRY_POINTS[name]
    assert target == f"fm_plugins.{name}"
    init = ROOT / "fm_plugins" / name / "__init__.py"
    assert init.is_file(), f"{target} does not exist"
    functions = {
        node.name: node
        for node in ast.parse(init.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert "fm_components" in functions, f"{target} declares no components"
    assert "hookimpl" in {
        ast.unparse(mark).split("(")[0].split(".")[-1] for mark in functions["fm_components"].decorator_list
    }


def test_every_plugin_folder_has_an_entry_point() -> None:
    """Without one, a method is shipped that nobody can reach by name."""
    folders = {path.parent.name for path in (ROOT / "fm_plugins").glob("*/__init__.py")}
    assert folders <= set(ENTRY_POINTS)


def test_registry_and_kit_need_no_import_of_their_own() -> None:
    code = (
        "import fm_core as fm; fm.registry.register; fm.testing.check; assert {'registry', 'testing'} <= set(dir(fm))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lazy_names_are_those_that_type_checkers_see() -> None:
    """`_HOME` serves the interpreter, the TYPE_CHECKING imports serve mypy: a name in one works for one only."""
    tree = ast.parse((ROOT / "fm_core" / "__init__.py").read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = [
        (alias.asname, f"{node.module}.{alias.name}")
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(seen) == sorted(
        (name, f"fm_core.{module}.{name}") for module, names in fm_core._HOME.items() for name in names
    )


@pytest.mark.parametrize("name", fm_core.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(fm_core, name) is not None


def test_importing_the_library_imports_nothing_heavy() -> None:
    """Listing plugins and answering `--help` pay for every import that is made here."""
    heavy = {"torch", "numpy", "attrs", "attr", "pluggy", "rich", "typer"}
    code = f"import fm_core, sys; print(sorted({heavy!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert loaded.strip() == "[]"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_code_block_names_a_language_that_is_known_to_run_or_not(page: Path) -> None:
    """A block marked `py`, `python3`, or nothing at all would be skipped by the runner in silence."""
    fences = re.findall(r"^[ \t>]*(?:`{3,}|~{3,})[ \t]*(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) % 2 == 0, "a code block is not closed"
    known = {"python", "bash", "text", "toml", "json", "yaml"}
    assert {language.strip() for language in fences[::2]} <= known
