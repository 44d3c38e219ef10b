"""Each plugin is loaded alone, from one scan of the metadata, as the environment allows."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fm_core.discovery import Plugin, Source, brief, discover, installed, unmatched
from fm_core.errors import PluginError
from fm_core.extras import providing
from fm_core.hookspecs import Component, hookimpl
from fm_core.registry import Registry

ROOT = Path(__file__).parents[2]


class Offers:
    """A plugin that offers what it is given."""

    def __init__(self, *components: Any) -> None:
        self.components = components

    @hookimpl
    def fm_components(self) -> list[Component]:
        return list(self.components)


def source(plugin: object, name: str = "mine", distribution: str = "zoo", version: str = "1.0") -> Source:
    return Source(name, lambda: plugin, distribution, version)


def failing(error: BaseException, name: str = "bad") -> Source:
    def load() -> object:
        raise error

    return Source(name, load, "zoo", "1.0")


def only(plugin: object) -> Plugin:
    (loaded,), _ = discover([source(plugin)], {})
    return loaded


class Panic(BaseException):
    """What a panic in an extension module written in Rust (pyo3) raises: no Exception."""


HEALTHY = Component("solver", "heun", "zoo.heun:Heun")


@pytest.mark.parametrize(
    "error",
    [
        ImportError("no such thing"),
        SyntaxError("bad"),
        SystemExit(3),
        RecursionError("deep"),
        ValueError(),
        MemoryError(),
        Panic("in Rust"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_plugin_that_fails_to_import_takes_no_other_down(error: BaseException) -> None:
    sources = [failing(error, "b"), source(Offers(HEALTHY), "a"), source(Offers(Component("grid", "x", 1)), "c")]
    plugins, _ = discover(sources, {})
    assert [(plugin.source.name, plugin.status) for plugin in plugins] == [("a", "ok"), ("b", "broken"), ("c", "ok")]
    assert plugins[1].error is error
    assert plugins[1].reason.startswith(type(error).__name__)
    assert type(error).__name__ in plugins[1].traceback


def test_keyboard_interrupt_is_not_swallowed_and_what_it_broke_off_is_done_anew() -> None:
    loads: list[int] = []

    def load() -> object:
        loads.append(1)
        if len(loads) == 1:
            raise KeyboardInterrupt
        return Offers(HEALTHY)

    registry = Registry([source(Offers(Component("grid", "x", 1)), "a"), Source("b", load, "zoo", "1.0")])
    with pytest.raises(KeyboardInterrupt):
        registry.plugins()
    assert [plugin.status for plugin in registry.plugins()] == ["ok", "ok"]
    assert registry.find("solver", "heun").plugin == "b"


def test_keyboard_interrupt_in_a_hook_is_not_swallowed() -> None:
    class Interrupted:
        @hookimpl
        def fm_components(self) -> list[Component]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        discover([source(Interrupted())], {})


def test_an_error_that_cannot_say_what_it_is_is_still_one_line() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    plugins, _ = discover([failing(Mute(), "a"), source(Offers(HEALTHY), "b")], {})
    assert [plugin.status for plugin in plugins] == ["broken", "ok"]
    assert plugins[0].reason == "Mute: an error that cannot say what it is"
    assert "Mute" in plugins[0].traceback


def test_objects_that_answer_for_everything_trouble_no_other_plugin() -> None:
    """pluggy compares plugins by `==` and looks at their attributes; neither may run a stranger's code."""

    class Quarrelsome:
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        __hash__ = None  # type: ignore[assignment]

        def __getattr__(self, name: str) -> object:
            raise ValueError(name)

        @property
        def expensive(self) -> object:
            raise AssertionError("a property was run")

        @hookimpl
        def fm_components(self) -> list[Component]:
            return [HEALTHY]

    class Broken(Quarrelsome):
        @hookimpl
        def fm_components(self) -> list[Component]:
            raise OSError("no")

    class Equal(Offers):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    given: list[object] = [Quarrelsome(), Equal(), Equal(), Broken(), Offers(Component("grid", "x", 1))]
    plugins, _ = discover([source(plugin, name) for plugin, name in zip(given, "abcde", strict=True)], {})
    assert [plugin.status for plugin in plugins] == ["ok", "ok", "ok", "broken", "ok"]


def test_a_plugin_that_is_a_package_with_lazy_names_stays_unimported() -> None:
    """PEP 562, as fm_core has it: to look for hooks must not resolve the names, which would import torch."""
    package = ModuleType("lazy_package")

    def resolve(name: str) -> object:
        raise AssertionError(f"{name} was resolved")

    vars(package).update(fm_components=hookimpl(lambda: [HEALTHY]), __getattr__=resolve, __dir__=lambda: ["Heavy"])
    assert only(package).components == (HEALTHY,)


def test_a_raising_hook_takes_no_other_down_and_leaves_no_hook_behind() -> None:
    class Raises:
        @hookimpl
        def fm_components(self) -> list[Component]:
            raise ZeroDivisionError("in the hook")

        @hookimpl
        def fm_bench_record(self, record: object) -> None: ...

    plugins, manager = discover([source(Raises(), "a"), source(Offers(HEALTHY), "b")], {})
    assert [plugin.status for plugin in plugins] == ["broken", "ok"]
    assert plugins[0].reason == "ZeroDivisionError: in the hook"
    assert plugins[0].file == __file__
    assert manager.hook.fm_bench_record.get_hookimpls() == []
    assert plugins[1].components == (HEALTHY,)


def test_wrong_signatures_unknown_hooks_and_wrappers_are_refused() -> None:
    class Signature:
        @hookimpl
        def fm_fit_step(self, step: int, temperature: float) -> None: ...

    class Unknown:
        @hookimpl
        def fm_component(self) -> list[Component]:
            return []

    class Async:
        @hookimpl
        async def fm_fit_step(self, step: int) -> None: ...

    class Wrapper:
        @hookimpl(wrapper=True)
        def fm_components(self) -> Any:
            return (yield)

    assert "{'temperature'}" in only(Signature()).reason
    assert "\n" not in only(Signature()).reason
    assert "did you mean 'fm_components'?" in only(Unknown()).reason
    assert "its fm_fit_step is an async function" in only(Async()).reason
    assert "is a hook wrapper; plugins stand alone" in only(Wrapper()).reason


@pytest.mark.parametrize("plugin", [None, ModuleType("empty"), SimpleNamespace(fm_components=list)])
def test_a_plugin_without_hooks_is_told_of_the_marker(plugin: object) -> None:
    assert "@fm_core.hookimpl" in only(plugin).reason


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (None, "returned None"),
        ("solver", "returned 'solver'"),
        (iter([HEALTHY]), "where a list of Component is due"),
        ([HEALTHY, "solver"], "with 'solver' in it"),
        ([HEALTHY, HEALTHY], "offers solver/heun twice"),
        ([Component("solver", "heun", "zoo:Heun", api=99)], "api 99 and this fm-core speaks api 1: update fm-core"),
        ([Component("solver", "heun", "zoo:Heun", api=0)], "api 0 and this fm-core speaks api 1: update the plugin"),
    ],
)
def test_wrong_answers_of_fm_components_are_refused(answer: object, complaint: str) -> None:
    class Answers:
        @hookimpl
        def fm_components(self) -> object:
            return answer

    plugin = only(Answers())
    assert plugin.status == "broken"
    assert complaint in plugin.reason


def test_an_invalid_component_breaks_its_plugin_alone() -> None:
    class Invalid:
        @hookimpl
        def fm_components(self) -> list[Component]:
            return [Component("solvr", "heun", "zoo:Heun")]

    plugins, _ = discover([source(Invalid(), "a"), source(Offers(HEALTHY), "b")], {})
    assert plugins[0].reason == "'solvr' is no kind of component; did you mean 'solver'?"
    assert plugins[1].status == "ok"


def test_equal_entry_point_names_of_two_distributions_are_both_loaded() -> None:
    sources = [source(Offers(HEALTHY), "x", "beta"), source(Offers(HEALTHY), "x", "alpha")]
    plugins, _ = discover(sources, {})
    assert [(plugin.source.distribution, plugin.status) for plugin in plugins] == [("alpha", "ok"), ("beta", "ok")]


def test_one_object_declared_twice_observes_once() -> None:
    class Observer:
        @hookimpl
        def fm_bench_record(self, record: object) -> None: ...

    shared = Observer()
    plugins, manager = discover([source(shared, "a"), source(shared, "b")], {})
    assert [plugin.status for plugin in plugins] == ["ok", "broken"]
    assert "the same object as plugin 'a' of zoo 1.0" in plugins[1].reason
    assert len(manager.hook.fm_bench_record.get_hookimpls()) == 1


def test_a_name_declared_twice_by_one_distribution_keeps_the_first() -> None:
    plugins, _ = discover([source(Offers(HEALTHY), "a"), source(Offers(Component("grid", "x", 1)), "a")], {})
    assert [(plugin.status, plugin.components[:1]) for plugin in plugins] == [("ok", (HEALTHY,)), ("broken", ())]


@pytest.mark.parametrize(
    ("environ", "statuses"),
    [
        ({}, "ok ok ok"),
        ({"FM_PLUGINS": "a, c"}, "ok blocked ok"),
        ({"FM_PLUGINS": ""}, "ok ok ok"),
        ({"FM_PLUGINS_BLOCK": "b"}, "ok blocked ok"),
        ({"FM_PLUGINS": "a,b", "FM_PLUGINS_BLOCK": "b"}, "ok blocked blocked"),
        ({"FM_PLUGINS_DISABLE_AUTOLOAD": "1"}, "blocked blocked blocked"),
        ({"FM_PLUGINS_DISABLE_AUTOLOAD": "0"}, "ok ok ok"),
        ({"FM_PLUGINS_DISABLE_AUTOLOAD": "1", "FM_PLUGINS": "b"}, "blocked ok blocked"),
        ({"FM_PLUGINS_BLOCK": "B"}, "ok blocked ok"),
        ({"FM_PLUGINS_BLOCK": "Zoo:b"}, "ok blocked ok"),
        ({"FM_PLUGINS_BLOCK": "ark:b"}, "ok ok ok"),
        ({"FM_PLUGINS": "zoo:a"}, "ok blocked blocked"),
    ],
)
def test_the_environment_decides_what_is_loaded(environ: dict[str, str], statuses: str) -> None:
    loaded: list[str] = []

    def load(name: str) -> object:
        loaded.append(name)
        return Offers(HEALTHY)

    plugins, _ = discover([Source(name, partial(load, name), "zoo", "1.0") for name in "abc"], environ)
    assert " ".join(plugin.status for plugin in plugins) == statuses
    assert loaded == [plugin.source.name for plugin in plugins if plugin.status == "ok"]  # blocked code never runs
    assert all(plugin.reason.startswith(("named", "not named", "FM_")) for plugin in plugins if plugin.blocked)


def test_one_of_two_plugins_of_equal_names_is_blocked_by_its_distribution() -> None:
    sources = [source(Offers(HEALTHY), "x", home) for home in ("ark", "zoo")]
    plugins, _ = discover(sources, {"FM_PLUGINS_BLOCK": "zoo:x"})
    assert [plugin.status for plugin in plugins] == ["ok", "blocked"]


def test_a_misspelt_name_in_the_block_list_is_told_from_one_that_blocks() -> None:
    sources = [source(Offers(HEALTHY), name, "Flow_Zoo") for name in ("heun", "euler_2")]
    block = {"FM_PLUGINS_BLOCK": "heun, huen, Euler-2, flow-zoo:heun, ark:heun"}
    assert unmatched("FM_PLUGINS_BLOCK", sources, block) == ["ark:heun", "huen"]


def test_a_name_in_the_allow_list_that_is_not_installed_is_reported() -> None:
    plugins, _ = discover([source(Offers(HEALTHY), "heun")], {"FM_PLUGINS": "heun,huen"})
    assert {plugin.source.name: plugin.status for plugin in plugins} == {"heun": "ok", "huen": "broken"}
    assert "did you mean 'heun'?" in next(plugin.reason for plugin in plugins if plugin.status == "broken")


def test_strict_makes_any_broken_plugin_fatal_and_names_all() -> None:
    sources = [failing(ImportError("one"), "a"), source(Offers(HEALTHY), "b"), failing(SystemExit(2), "c")]
    with pytest.raises(PluginError, match=r"plugin 'a' of zoo 1.0: ImportError: one\n.*'c' of zoo 1.0: SystemExit: 2"):
        discover(sources, {"FM_PLUGINS_STRICT": "1"})
    plugins, _ = discover([sources[1]], {"FM_PLUGINS_STRICT": "1"})
    assert plugins[0].status == "ok"


def test_order_does_not_depend_on_the_order_of_declaration() -> None:
    sources = [source(Offers(HEALTHY), name, home) for name in "ba" for home in ("Zoo", "ark")]
    orders = [
        [(plugin.source.distribution, plugin.source.name) for plugin in discover(given, {})[0]]
        for given in (sources, sources[::-1])
    ]
    assert orders[0] == orders[1] == [("ark", "a"), ("ark", "b"), ("Zoo", "a"), ("Zoo", "b")]


def test_missing_dependencies_are_told_with_what_helps() -> None:
    plugins, _ = discover([failing(ModuleNotFoundError("No module named 'ot'", name="ot"))], {})
    assert "install what provides 'ot'" in plugins[0].remedy
    assert "pip install --upgrade zoo" in plugins[0].remedy
    assert "FM_PLUGINS_BLOCK=bad" in plugins[0].remedy


def test_a_missing_dependency_that_is_an_extra_is_told_as_the_extra() -> None:
    missing = ModuleNotFoundError("No module named 'diffusers'", name="diffusers.models")
    extra = Source("bad", lambda: (_ for _ in ()).throw(missing), "fm-core", "0.1.0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fm_core.extras._is_missing", lambda distribution: distribution == "diffusers")
        (plugin,), _ = discover([extra], {})
        assert "pip install 'fm-core[diffusers]'" in plugin.remedy
        assert providing("fm-core", "ot.da") == ""  # POT is there
        patch.setattr("fm_core.extras._is_missing", lambda distribution: True)
        assert providing("fm-core", "ot.da") == "fm-core[ot]"  # not one for developers that has it too


def test_threads_load_each_plugin_once_and_see_the_same_components() -> None:
    loads: list[int] = []
    gate = threading.Barrier(8)

    def load() -> object:
        loads.append(1)
        threading.Event().wait(0.02)  # long enough for every thread to ask meanwhile
        return Offers(HEALTHY)

    registry = Registry([Source("mine", load)])
    seen: list[object] = []

    def ask() -> None:
        gate.wait()
        seen.append(registry.find("solver", "heun"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(seen) == 8
    assert all(found is seen[0] for found in seen)


def test_a_plugin_that_asks_the_registry_while_loading_is_broken_not_a_deadlock() -> None:
    def load() -> object:
        registry.components()
        return Offers(HEALTHY)

    registry = Registry([Source("mine", load), source(Offers(HEALTHY), "other")])
    assert [plugin.status for plugin in registry.plugins()] == ["broken", "ok"]
    assert "only say what there is" in registry.plugins()[0].reason


# Installed distributions: fake .dist-info folders on sys.path.


def install(site: Path, name: str, entry_points: str, version: str = "1.0") -> None:
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second")])
    importlib.invalidate_caches()
    return tmp_path


def test_entry_points_are_read_with_distribution_and_version(site: Path) -> None:
    install(site / "first", "Flow_Zoo", "[fm.plugins]\nzoo = flow_zoo\nextra = flow_zoo.extra:plugin\n", "2.1")
    install(site / "first", "other", "[console_scripts]\nfm = other:main\n")
    found = sorted((item.name, item.distribution, item.version) for item in installed())
    assert found == [("extra", "Flow_Zoo", "2.1"), ("zoo", "Flow_Zoo", "2.1")]


def test_a_second_copy_of_a_distribution_is_shadowed_by_the_first_on_the_path(site: Path) -> None:
    install(site / "first", "flow_zoo", "[fm.plugins]\nzoo = new\n", "2.0")
    install(site / "second", "Flow-Zoo", "[fm.plugins]\nzoo = old\n", "1.0")
    assert [item.version for item in installed()] == ["2.0"]


@pytest.mark.parametrize("damage", ["entry_points.txt", "METADATA"])
def test_unreadable_metadata_is_one_broken_plugin(site: Path, damage: str) -> None:
    install(site / "first", "flow_zoo", "[fm.plugins]\nzoo = flow_zoo\n")
    install(site / "first", "ruin", "[fm.plugins]\nruin = ruin\n")
    (site / "first" / "ruin-1.0.dist-info" / damage).write_bytes(b"[fm.plugins]\nno equals sign\n\xff")
    plugins, _ = discover(environ={})
    assert len(plugins) == 2  # zoo cannot be imported here, but it is found
    assert str(site / "first") in next(item for item in plugins if item.source.name != "zoo").source.where


@pytest.mark.parametrize("left", [None, "Metadata-Version: 2.1\nVersion: 1.0\n"], ids=["no METADATA", "no name in it"])
def test_half_removed_distribution_is_one_broken_plugin(site: Path, left: str | None) -> None:
    install(site / "first", "flow_zoo", "[fm.plugins]\nzoo = flow_zoo\n")
    install(site / "first", "ruin", "[fm.plugins]\nruin = ruin\n")
    metadata = site / "first" / "ruin-1.0.dist-info" / "METADATA"
    metadata.unlink() if left is None else metadata.write_text(left)
    plugins, _ = discover(environ={})
    (ruin,) = (plugin for plugin in plugins if plugin.source.name != "zoo")
    assert ruin.status == "broken"
    assert "no METADATA that names it; remove its folder" in ruin.reason
    assert str(site / "first") in ruin.source.where


def test_distribution_without_a_version_is_listed_all_the_same(site: Path) -> None:
    install(site / "first", "zoo", "[fm.plugins]\nzoo = flow_zoo\n")
    (site / "first" / "zoo-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo\n")
    (source,) = installed()
    assert source.where == "plugin 'zoo' of zoo of no version"


def test_error_that_begins_with_an_empty_line_is_told_by_its_first_words() -> None:
    assert brief(ValueError("\n  what went wrong\nand more")) == "ValueError: what went wrong"


def test_metadata_is_scanned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scans: list[int] = []

    def scan() -> list[object]:
        scans.append(1)
        return []

    monkeypatch.setattr(importlib.metadata, "distributions", scan)
    registry = Registry()
    registry.components()
    registry.plugins()
    registry.observers("fm_fit_step")
    assert len(scans) == 1


def test_broken_files_are_recorded_with_their_path(site: Path) -> None:
    install(site / "first", "ruin", "[fm.plugins]\na = ruin_syntax\nb = ruin_import\nc = ruin_nowhere\n")
    (site / "first" / "ruin_syntax.py").write_text("def (\n")
    (site / "first" / "ruin_import.py").write_text("import no_such_module_anywhere\n")
    plugins, _ = discover(environ={})
    assert [Path(plugin.file).name for plugin in plugins] == ["ruin_syntax.py", "ruin_import.py", ""]
    assert "line 1" in plugins[0].traceback
    assert plugins[1].reason == "ModuleNotFoundError: No module named 'no_such_module_anywhere'"


# Cheap imports: measured in a fresh interpreter, because this one has imported everything.


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import fm_core", {"torch", "numpy", "pluggy", "attr", "attrs"}),
        ("from fm_core import hookimpl, Component", {"torch", "numpy"}),
        ("import fm_core.registry, fm_core.hookspecs, fm_core.discovery; fm_core.components()", {"torch", "numpy"}),
    ],
)
def test_declaring_and_listing_imports_nothing_heavy(code: str, absent: set[str]) -> None:
    program = f"import sys; {code}; print(*sorted({absent!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
