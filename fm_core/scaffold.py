"""Makes a new plugin package from the template `docs/plugin_template`, which wheels carry as `fm_core/plugin_template`.

The template is a package that works: `my_plugin`, with a component of every kind, each in a file of its own beside its
test. A new package is a copy of it under another name, with the kinds that were asked for.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import keyword
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from fm_core import registry
from fm_core.discovery import installed
from fm_core.errors import PluginError, UnknownNameError, did_you_mean
from fm_core.hookspecs import KINDS

__all__ = ["SCAFFOLDED", "scaffold", "template"]

MODULE, DISTRIBUTION = "my_plugin", "my-plugin"
"""What the template is called."""

SCAFFOLDED = KINDS
"""Kinds that the template has a component of."""

LONGEST = 40
"""Characters of a name, so that no line of the package outgrows its limit."""

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def template() -> Path:
    """The folder of the template: in a wheel beside this module, in a checkout below docs.

    Raises:
        PluginError: If this installation has neither.
    """
    here = Path(__file__).parent
    for folder in (here / "plugin_template", here.parent / "docs" / "plugin_template"):
        if (folder / MODULE / "__init__.py").is_file():
            return folder
    raise PluginError("this installation of fm-core has no plugin template; install it from a wheel or a checkout")


def scaffold(name: str, kinds: Sequence[str], out: Path) -> Path:
    """Makes the package `name` in `out/name`: whole, or not at all.

    Args:
        name: Name of module, plugin and components, snake_case; the distribution has `-` for `_`.
        kinds: Kinds of its components, each once or more.
        out: Folder to make it in; made if it is not there.

    Returns:
        The new folder.

    Raises:
        PluginError: For a name that cannot be used or is taken, or a folder that exists or cannot be made.
        UnknownNameError: For a kind that does not exist.
    """
    chosen = frozenset(kinds)
    _require_kinds(chosen)
    _require_name(name, chosen)
    target = out / name
    if os.path.lexists(target):
        raise PluginError(f"{target} exists already, and nothing is overwritten; choose another name or another --out")
    source = template()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=out) as making:
            made = Path(making) / name
            for path in _files(source, chosen):
                new = made / _renamed(str(path), name)
                new.parent.mkdir(parents=True, exist_ok=True)
                text = (source / path).read_text(encoding="utf-8")
                new.write_text(_renamed(_filtered(path, text, chosen), name), encoding="utf-8")
            made.rename(target)
    except OSError as error:
        raise PluginError(f"{target} cannot be made: {error.strerror or error}; choose another --out") from error
    return target


def _require_kinds(kinds: frozenset[str]) -> None:
    for kind in sorted(kinds):
        if kind not in SCAFFOLDED:
            raise UnknownNameError(f"there is no template for the kind {kind!r}; {did_you_mean(kind, SCAFFOLDED)}")
    if not kinds:
        raise PluginError(f"a plugin offers something: give --kind, one or more of {', '.join(SCAFFOLDED)}")


def _require_name(name: str, kinds: frozenset[str]) -> None:
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        proper = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        hint = f"; {proper!r} would do" if proper != name and _NAME.fullmatch(proper) else ""
        raise PluginError(
            f"a plugin's name is lower-case letters and digits joined by underscores, starts with a letter and has at "
            f"most {LONGEST} characters; got {name!r}{hint}"
        )
    if keyword.iskeyword(name) or name in sys.stdlib_module_names or name == "tests":
        raise PluginError(f"{name!r} means something in Python already, so no module of that name can be imported")
    if name in {source.name for source in installed()}:
        raise PluginError(f"an installed plugin is called {name!r} already, see fm plugins; choose another name")
    taken = [item for item in registry.components() if item.kind in kinds and item.name == name]
    if taken:
        raise PluginError(
            f"there is a {taken[0].kind} {name!r} already, in {taken[0].source.where}; beside it yours would be "
            "reached by its distribution's name only. Choose another name."
        )
    module = importlib.util.find_spec(name)
    if module is not None and module.origin is not None:  # without an origin it is a mere folder of that name
        raise PluginError(f"a module {name!r} is installed already; choose another name")


def _files(source: Path, kinds: frozenset[str]) -> Iterator[Path]:
    """The template's files that a package of these kinds has, relative to it."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        caches = {"__pycache__", "build", "dist"}.intersection(relative.parts)
        hidden = any(part.startswith(".") for part in relative.parts) and relative.parts[0] not in {
            ".github",
            ".gitignore",
        }
        kind = relative.stem.removeprefix("test_")
        if path.is_file() and not caches and not hidden and (kind not in SCAFFOLDED or kind in kinds):
            yield relative


def _filtered(path: Path, text: str, kinds: frozenset[str]) -> str:
    """The text without what belongs to other kinds: their components, their lines in tables."""
    lines = text.splitlines(keepends=True)
    if path == Path(MODULE, "__init__.py"):
        for first, last, kind in reversed(list(_components(text))):
            if kind not in kinds:
                del lines[first:last]
    elif path.suffix == ".md":
        others = tuple(f"| {kind} |" for kind in SCAFFOLDED if kind not in kinds)
        lines = [line for line in lines if not line.startswith(others)]
    return "".join(lines)


def _components(text: str) -> Iterator[tuple[int, int, str]]:
    """First line, line after the last, and kind of every component that is declared."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Component" and node.end_lineno is not None:
            with contextlib.suppress(ValueError):
                yield node.lineno - 1, node.end_lineno, ast.literal_eval(node.args[0])


def _renamed(text: str, name: str) -> str:
    return text.replace(MODULE, name).replace(DISTRIBUTION, name.replace("_", "-"))
