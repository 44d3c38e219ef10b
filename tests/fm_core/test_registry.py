"""Names lead to objects, and objects back to names."""

from __future__ import annotations

import functools
import gc
import json
import subprocess
import sys
import warnings
import weakref
from collections import OrderedDict
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import attrs
import pytest
from attrs import field, frozen, validators
from hypothesis import given, strategies as st

import fm_core as fm
from fm_core.building import _ORIGINS
from fm_core.discovery import Source
from fm_core.errors import PluginError, SavedFileError, ShapeError, UnknownNameError
from fm_core.hookspecs import KINDS, Component, hookimpl
from fm_core.registry import OptionError, Registry, Spec, origin, remember, to_config

ROOT = Path(__file__).parents[2]


@attrs.frozen
class Grid:
    power: float = 1.0


@attrs.frozen
class Solver:
    order: int
    grid: Any = None
    label: str = ""


def make_solver(order: int, *, grid: Any = None) -> Solver:
    """A factory function: components need not be classes."""
    return Solver(order, grid)


class Plugin:
    def __init__(self, *components: Component) -> None:
        self.components = components

    @hookimpl
    def fm_components(self) -> list[Component]:
        return list(self.components)


def plugged(name: str, distribution: str, *components: Component) -> Source:
    return Source(name, lambda: Plugin(*components), distribution, "1.0")


def broken(name: str, distribution: str = "ruin") -> Source:
    def load() -> object:
        raise ImportError("no such thing")

    return Source(name, load, distribution, "0.1")


HEUN = Component("solver", "heun", Solver, example={"order": 2})
UNIFORM = Component("grid", "uniform", Grid)


@pytest.fixture
def registry() -> Registry:
    return Registry([plugged("tables", "zoo", HEUN, UNIFORM, Component("solver", "made", make_solver))])


# Components


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"kind": "solvr"}, "did you mean 'solver'"),
        ({"name": "DDIM"}, "lower-case"),
        ({"name": "zoo:heun"}, "':' and '/' have meanings"),
        ({"name": ""}, "got ''"),
        ({"name": 3}, "got 3"),
        ({"target": "zoo.heun"}, "'module:attribute'"),
        ({"target": "zoo heun:Heun"}, "'module:attribute'"),
        ({"target": None}, "no target"),
        ({"kind": "recipe", "target": Solver}, "mapping of compose's arguments"),
        ({"summary": None}, "summary of solver/heun is a string"),
        ({"reference": 1}, "reference of solver/heun is a string"),
        ({"example": [("order", 2)]}, "maps options by name"),
        ({"example": {2: "order"}}, "maps options by name"),
        ({"api": "1"}, "whole number"),
        ({"api": True}, "whole number"),
    ],
)
def test_invalid_components_are_refused_with_what_was_expected(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PluginError, match=complaint):
        Component(**({"kind": "solver", "name": "heun", "target": "zoo.heun:Heun"} | fields))


def test_every_kind_takes_a_string_or_an_object() -> None:
    for kind in KINDS:
        assert Component(kind, "x_1", "a.b:C.d").key == f"{kind}/x_1"
        assert Component(kind, "x_1", {"path": "linear"}).target == {"path": "linear"}


# Finding


def test_components_are_listed_with_provenance_in_a_fixed_order(registry: Registry) -> None:
    listed = [(item.kind, item.name, item.plugin, item.distribution, item.version) for item in registry.components()]
    assert listed == [
        ("solver", "heun", "tables", "zoo", "1.0"),
        ("solver", "made", "tables", "zoo", "1.0"),
        ("grid", "uniform", "tables", "zoo", "1.0"),
    ]
    assert [item.name for item in registry.components("grid")] == ["uniform"]


def test_unknown_names_are_told_what_is_near_and_where_it_was_looked_for() -> None:
    registry = Registry([plugged("tables", "zoo", HEUN, UNIFORM), broken("wreck")])
    with pytest.raises(UnknownNameError) as caught:
        registry.find("solver", "huen")
    message = str(caught.value)
    assert "no solver is named 'huen'; did you mean 'heun'?" in message
    assert "1 of this kind in 1 plugins" in message
    assert "It may be in plugin 'wreck' of ruin 0.1, which is broken (ImportError: no such thing)" in message


def test_a_name_of_another_kind_is_pointed_out(registry: Registry) -> None:
    with pytest.raises(UnknownNameError, match="There is a grid of this name"):
        registry.find("solver", "uniform")


@pytest.mark.parametrize("ask", [Registry.components, lambda r, kind: r.find(kind, "heun")])
def test_unknown_kinds_are_refused(registry: Registry, ask: Any) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'solver'"):
        ask(registry, "solvers")


@pytest.mark.parametrize("name", ["wreck", "ruin:anything"])
def test_what_only_a_broken_plugin_provides_raises_its_error(name: str) -> None:
    registry = Registry([plugged("tables", "zoo", HEUN), broken("wreck")])
    with pytest.raises(
        PluginError, match=r"plugin 'wreck' of ruin 0\.1 is broken .*no such thing.*FM_PLUGINS_BLOCK=wreck"
    ) as caught:
        registry.find("solver", name)
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_component_of_another_api_raises_when_it_is_asked_for_and_only_then() -> None:
    new = plugged("future", "zoo", Component("solver", "warp", Solver, api=2))
    registry = Registry([new, plugged("tables", "ark", HEUN)])
    assert registry.build("solver", "heun", order=2) == Solver(2)
    with pytest.raises(PluginError, match="solver/warp is written for api 2"):
        registry.find("solver", "warp")
    with pytest.raises(UnknownNameError, match="no solver is named 'future'"):  # what it offers is known, and not this
        registry.find("solver", "future")


def test_a_blocked_plugin_is_not_used_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FM_PLUGINS_BLOCK", "heun")
    with pytest.raises(PluginError, match=r"plugin 'heun' of zoo 1\.0 is blocked \(named by FM_PLUGINS_BLOCK"):
        Registry([plugged("heun", "zoo", HEUN)]).find("solver", "heun")


def test_a_name_of_two_distributions_is_reached_by_distribution_only() -> None:
    other = Component("solver", "heun", make_solver)
    registry = Registry([plugged("a", "Flow_Zoo", HEUN), plugged("a", "ark", other)])
    with pytest.raises(UnknownNameError) as caught:
        registry.find("solver", "heun")
    assert "plugin 'a' of ark 1.0 and plugin 'a' of Flow_Zoo 1.0" in str(caught.value)
    assert "'Flow_Zoo:heun' or 'ark:heun'" in str(caught.value)
    assert registry.find("solver", "flow-zoo:heun").component is HEUN  # PEP 503 names are equal
    assert registry.find("solver", "ark:heun").component is other
    assert origin(registry.build("solver", "ark:heun", order=1)) == Spec("solver", "ark:heun", {"order": 1})


def test_a_recipe_means_the_parts_of_its_own_distribution() -> None:
    """Else a stranger's `heun` would break every recipe that names one."""
    method = Component("recipe", "cfm", {"path": {"name": "line", "sigma": 0.1}, "solver": "heun", "grid": "cosine"})
    line, theirs = Component("path", "line", Solver), Component("solver", "heun", make_solver)
    alone = Registry([plugged("a", "ark", HEUN, line, method)])
    assert alone.recipe("cfm") == {"path": {"name": "line", "sigma": 0.1}, "solver": "heun", "grid": "cosine"}
    both = Registry([plugged("a", "ark", HEUN, line, method), plugged("b", "zoo", theirs, line)])
    assert both.recipe("cfm") == {"path": {"name": "ark:line", "sigma": 0.1}, "solver": "ark:heun", "grid": "cosine"}
    alone.register(theirs)
    assert alone.recipe("cfm")["solver"] == "ark:heun"
    typed = Component("recipe", "short", {"solver": "heun(order=1)"})
    both = Registry([plugged("a", "ark", HEUN, typed), plugged("b", "zoo", theirs)])
    assert both.recipe("short") == {"solver": {"name": "ark:heun", "order": 1}}


def test_only_some_of_many_broken_plugins_are_explained() -> None:
    with pytest.raises(UnknownNameError, match=r"ruin 0\.1.*2 more plugins are not available: see fm doctor") as caught:
        Registry([broken(f"p{i}") for i in range(5)]).find("solver", "heun")
    assert str(caught.value).count("It may be in") == 3


def test_a_blocked_plugin_is_named_where_a_component_is_missed() -> None:
    registry = Registry(
        [plugged("tables", "zoo", HEUN), plugged("other", "zoo", UNIFORM)], {"FM_PLUGINS_BLOCK": "tables"}
    )
    with pytest.raises(
        UnknownNameError, match=r"plugin 'tables' of zoo 1\.0, which is blocked \(named by FM_PLUGINS_BLOCK"
    ):
        registry.find("solver", "heun")


def test_of_several_plugins_that_may_have_it_none_is_blamed_alone() -> None:
    registry = Registry([broken("a"), broken("b"), plugged("tables", "zoo", HEUN)])
    with pytest.raises(UnknownNameError, match=r"may be in plugin 'a' of ruin.* may be in plugin 'b' of ruin"):
        registry.find("solver", "ruin:heun")


def test_a_name_given_twice_by_one_distribution_is_an_error_with_the_way_out() -> None:
    registry = Registry([plugged("a", "zoo", HEUN), plugged("b", "zoo", HEUN)])
    for name in ("heun", "zoo:heun"):
        with pytest.raises(UnknownNameError, match="FM_PLUGINS_BLOCK=b"):
            registry.find("solver", name)


def test_registering_from_python_adds_replaces_its_own_and_shadows_nothing(registry: Registry) -> None:
    registry.register(Component("solver", "mine", Solver))
    registry.register(Component("solver", "mine", make_solver))
    assert registry.load("solver", "mine") is make_solver
    assert registry.find("solver", "mine").distribution == "python"
    registry.register(Component("solver", "heun", make_solver))
    with pytest.raises(UnknownNameError, match="'python:heun' or 'zoo:heun'"):
        registry.find("solver", "heun")
    assert registry.load("solver", "zoo:heun") is Solver


# Building


def test_targets_are_imported_on_first_use_and_only_then() -> None:
    program = """
import sys
from fm_core import Component, hookimpl
from fm_core.discovery import Source
from fm_core.registry import Registry

class Plugin:
    @hookimpl
    def fm_components(self):
        return [Component("metric", "a", "wave:Error"), Component("metric", "b", "colorsys:rgb_to_hsv")]

registry = Registry([Source("mine", Plugin)])
registry.find("metric", "a"), registry.components()
print("wave" in sys.modules, "colorsys" in sys.modules)
registry.build("metric", "a")
print("wave" in sys.modules, "colorsys" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False", "True", "False"]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module:Thing", "ModuleNotFoundError: No module named 'no_such_module'.*install what provides"),
        ("json:Thing", "AttributeError: module 'json' has no attribute 'Thing'"),
        ("json:JSONEncoder.missing", "AttributeError"),
    ],
)
def test_targets_that_do_not_import_name_the_plugin(target: str, reason: str) -> None:
    registry = Registry([plugged("tables", "zoo", Component("solver", "heun", target))])
    with pytest.raises(
        PluginError, match=rf"solver/heun \(plugin 'tables' of zoo 1\.0\) cannot be imported .*{reason}"
    ):
        registry.load("solver", "heun")


def test_classes_functions_and_partials_are_called_other_objects_are_returned(registry: Registry) -> None:
    class Callable_:
        def __call__(self) -> str:
            return "called"

    ready = Callable_()
    registry.register(Component("model", "ready", ready))
    registry.register(Component("solver", "bound", functools.partial(Solver, 4)))
    registry.register(Component("recipe", "cfm", {"path": "linear"}))
    assert registry.build("solver", "heun", order=2) == Solver(2)
    assert registry.build("solver", "made", order=3, grid="g") == Solver(3, "g")
    assert registry.build("solver", "bound") == Solver(4)
    assert registry.build("model", "ready") is ready  # a network is called by the sampler, not by the registry
    assert registry.build("recipe", "cfm") == {"path": "linear"}
    with pytest.raises(OptionError, match="takes no options; got 'order'"):
        registry.build("model", "ready", order=2)


def test_wrong_options_are_answered_with_the_signature(registry: Registry) -> None:
    with pytest.raises(
        OptionError, match=r"unexpected keyword argument 'oder' .*did you mean 'order'.*made\(order: int"
    ):
        registry.build("solver", "made", order=1, oder=2)
    with pytest.raises(
        OptionError, match=r"solver/heun \(plugin 'tables' of zoo 1.0\).* missing a required argument: 'order'"
    ):
        registry.build("solver", "heun")


@pytest.mark.parametrize(
    ("kind", "name", "options", "message"),
    [
        ("solver", "ddim", {"eta": 2}, r"solver/ddim \(plugin 'ddim' .* with eta=2: eta must lie in \[0, 1\]"),
        ("solver", "unipc", {"order": 9}, "with order=9: 'order' must be <= 8: 9"),
        ("solver", "multistep", {"space": "foo"}, "with space='foo': 'space' must be in"),
        ("model", "mlp", {"shape": 2, "activation": "rely"}, "activation='rely': unknown activation 'rely'"),
    ],
)
def test_values_that_a_component_refuses_are_an_error_of_its_options(
    kind: str, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        fm.build(kind, name, **options)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "Attribute(" not in str(caught.value)


def test_a_validator_of_types_is_an_error_of_options_and_an_errors_own_class_is_kept() -> None:
    @frozen
    class Typed:
        order: Any = field(validator=validators.instance_of(int))

    def refuses(order: int) -> None:
        raise ShapeError("no such shape")

    def broken() -> None:
        raise ValueError("math domain error")

    own = Registry([])
    own.register(Component("solver", "broken", broken))
    with pytest.raises(ValueError, match="math domain error") as caught:
        own.build("solver", "broken")
    assert not isinstance(caught.value, OptionError), "no option is to blame"
    own.register(Component("solver", "typed", Typed))
    own.register(Component("solver", "refuses", refuses))
    with pytest.raises(OptionError, match=r"with order='3': 'order' must be <class 'int'>"):
        own.build("solver", "typed", order="3")
    with pytest.raises(ShapeError, match="no such shape"):
        own.build("solver", "refuses", order=3)


def test_an_error_inside_a_constructor_is_its_own_and_says_what_was_built(registry: Registry) -> None:
    def fails() -> None:
        raise TypeError("inside")

    registry.register(Component("solver", "fails", fails))
    with pytest.raises(TypeError, match=r"^inside") as caught:
        registry.build("solver", "fails")
    assert not isinstance(caught.value, OptionError)
    assert caught.value.__notes__ == ["while building solver/fails (plugin 'python' of python)"]


def test_options_may_be_called_kind_and_name(registry: Registry) -> None:
    registry.register(Component("dataset", "named", lambda *, kind, name: Solver(0, kind, name)))
    assert registry.build("dataset", "named", kind="k", name="n") == Solver(0, "k", "n")


# Origins and configurations


def test_origin_is_of_the_very_object_and_dies_with_it(registry: Registry) -> None:
    built = registry.build("solver", "heun", order=2)
    assert origin(built) == Spec("solver", "heun", {"order": 2})
    assert origin(attrs.evolve(built)) is None
    assert origin(Solver(2)) is None
    assert origin(3) is None
    key = id(built)
    del built
    gc.collect()
    assert key not in _ORIGINS


def test_another_object_at_the_same_address_has_no_origin() -> None:
    old, new = Solver(1), Solver(2)
    _ORIGINS[id(new)] = (weakref.ref(old), Spec("solver", "heun"))
    assert origin(new) is None
    del _ORIGINS[id(new)]


def test_what_cannot_be_weakly_referenced_has_no_origin(registry: Registry) -> None:
    registry.register(Component("dataset", "tuple", lambda: (1, 2)))
    assert origin(registry.build("dataset", "tuple")) is None


def test_a_factory_that_returns_its_argument_keeps_that_objects_origin(registry: Registry) -> None:
    registry.register(Component("grid", "same", lambda grid: grid))
    grid = registry.build("grid", "uniform")
    assert registry.build("grid", "same", grid=grid) is grid
    assert to_config(grid) == {"name": "uniform"}


def test_remember_gives_a_changed_copy_the_origin_of_the_original(registry: Registry) -> None:
    grid, spec = Grid(5.0), Spec("grid", "uniform", {"power": 5.0})
    remember(grid, spec)
    assert origin(grid) is spec


def test_configurations_round_trip_through_json_with_nested_objects() -> None:
    registry = Registry([plugged("tables", "zoo", HEUN, UNIFORM)])
    grid = registry.build("grid", "uniform", power=2.5)
    built = registry.build("solver", "heun", order=2, grid=[grid, {"inner": registry.build("grid", "zoo:uniform")}])
    config = json.loads(json.dumps(to_config(built)))
    assert config == {
        "name": "heun",
        "order": 2,
        "grid": [{"kind": "grid", "name": "uniform", "power": 2.5}, {"inner": {"kind": "grid", "name": "zoo:uniform"}}],
    }
    again = registry.from_config("solver", config)
    assert again == built
    assert to_config(again) == config


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
).filter(lambda value: "kind" not in repr(value))


@given(_json)
def test_any_json_value_survives_as_an_option(value: Any) -> None:
    registry = Registry([plugged("tables", "zoo", HEUN)])
    built = registry.build("solver", "heun", order=1, grid=value)
    assert registry.from_config("solver", json.loads(json.dumps(to_config(built)))) == built


def test_enums_and_tuples_are_saved_as_what_json_gives_back(registry: Registry) -> None:
    class Old(str, Enum):  # noqa: UP042 - its str() is not its value
        A = "a"

    class New(StrEnum):
        B = "b"

    built = registry.build("solver", "heun", order=1, grid=(Old.A, New.B))
    assert to_config(built)["grid"] == ["a", "b"]
    assert all(type(item) is str for item in to_config(built)["grid"])


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (object(), "option 'grid' of solver/heun"),
        (float("nan"), "option 'grid' of solver/heun"),
        ([1, {2}], "item 1 of option 'grid'"),
        ({"a": b"x"}, "'a' in option 'grid'"),
        ({1: 2}, "option 'grid'"),
        (Grid(), "option 'grid' of solver/heun"),  # built by hand: it has no name
    ],
)
def test_options_that_cannot_be_saved_are_named(registry: Registry, value: object, place: str) -> None:
    with pytest.raises(SavedFileError, match=place):
        to_config(registry.build("solver", "heun", order=1, grid=value))


def test_options_that_describe_a_component_are_built(registry: Registry) -> None:
    """However deep, by `build` as by `from_config`; so they can be saved again."""
    options = {"order": 1, "grid": [{"kind": "solver", "name": "heun", "order": 2}]}
    built = registry.build("solver", "heun", **options)
    assert built.grid[0].order == 2
    assert to_config(built) == to_config(registry.from_config("solver", {"name": "heun", **options}))


def test_objects_without_a_name_cannot_be_saved() -> None:
    with pytest.raises(SavedFileError, match="not built by the registry"):
        to_config(Solver(2))


def test_options_called_like_a_configurations_keys_cannot_be_saved(registry: Registry) -> None:
    registry.register(Component("dataset", "named", lambda *, name: Solver(0, name)))
    with pytest.raises(SavedFileError, match="option called 'name'"):
        to_config(registry.build("dataset", "named", name="n"))


def test_from_config_takes_a_name_a_mapping_or_an_object(registry: Registry) -> None:
    ready = Solver(9)
    assert registry.from_config("grid", "uniform") == Grid()
    assert registry.from_config("grid", OrderedDict(name="uniform", power=2.0)) == Grid(2.0)
    assert registry.from_config("grid", {"kind": "grid", "name": "uniform"}) == Grid()
    assert registry.from_config("solver", ready) is ready


@pytest.mark.parametrize(
    "config", [{}, {"power": 2.0}, {"name": 3}, {"kind": "solver", "name": "uniform"}, {"name": "uniform", 1: 2}]
)
def test_from_config_refuses_mappings_that_name_no_such_component(registry: Registry, config: dict[Any, Any]) -> None:
    with pytest.raises(OptionError, match="a grid is given by its name"):
        registry.from_config("grid", config)


def test_a_configuration_cannot_name_an_import_path(registry: Registry) -> None:
    before = set(sys.modules)
    for name in ("os:system", "wave:Error", "wave", "wave.Error", "../wave", "zoo:wave:Error", "wave:Error()"):
        for config in (name, {"name": name}, {"name": "uniform", "power": {"kind": "grid", "name": name}}):
            with pytest.raises(UnknownNameError):
                registry.from_config("grid", config)
    assert set(sys.modules) == before


def test_a_blocked_plugins_components_are_neither_found_nor_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code does not run at all: not the plugin's, not that of its targets."""
    monkeypatch.setenv("FM_PLUGINS_BLOCK", "evil")

    def load() -> object:
        raise AssertionError("it was loaded")

    registry = Registry([Source("evil", load, "zoo", "1.0"), plugged("tables", "ark", HEUN)])
    for name in ("evil", "zoo:heun", "zoo:evil"):
        with pytest.raises(PluginError, match=r"plugin 'evil' of zoo 1\.0 is blocked"):
            registry.build("solver", name)
    assert registry.build("solver", "heun", order=1) == Solver(1)
    assert registry.observers("fm_fit_step") is None


# Observers


class Watcher:
    def __init__(self, log: list[object], error: BaseException | None = None) -> None:
        self.log, self.error = log, error

    @hookimpl
    def fm_fit_step(self, step: int, loss: float) -> None:
        self.log.append((step, loss))
        if self.error is not None:
            raise self.error


def watched(*watchers: Watcher) -> Registry:
    return Registry([Source(f"w{i}", lambda w=watcher: w) for i, watcher in enumerate(watchers)])  # type: ignore[misc]


def test_observers_is_none_where_nobody_observes() -> None:
    registry = watched(Watcher([]))
    assert registry.observers("fm_fit_end") is None
    assert registry.observers("fm_fit_step") is not None
    with pytest.raises(UnknownNameError, match="no hook 'fm_fit_stop'"):
        registry.observers("fm_fit_stop")


@pytest.mark.parametrize("error", [ValueError("no disk"), SystemExit(1)])
def test_a_failing_observer_is_reported_once_and_the_others_hear_everything(error: BaseException) -> None:
    logs: list[list[object]] = [[], [], []]
    registry = watched(Watcher(logs[0]), Watcher(logs[1], error), Watcher(logs[2]))
    hook = registry.observers("fm_fit_step")
    assert hook is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            registry.notify(hook, step=step, loss=0.5, lr=1e-3)
    assert [warning.category for warning in caught] == [RuntimeWarning]
    assert "plugin 'w1' of python failed in fm_fit_step" in str(caught[0].message)
    assert "test_registry" in caught[0].filename  # it points at the run, not into the machinery
    assert logs == [[(0, 0.5), (1, 0.5), (2, 0.5)]] * 3


def test_an_incomplete_event_is_the_callers_error_not_the_observers() -> None:
    registry = watched(Watcher([]))
    hook = registry.observers("fm_fit_step")
    assert hook is not None
    with pytest.raises(KeyError, match="loss"):
        registry.notify(hook, step=0)
