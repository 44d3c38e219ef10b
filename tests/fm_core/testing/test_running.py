"""The kit's own machinery: what a result says, which checks run, what is expected, and how it is asked for."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from fm_core import Component, build, hookimpl, registry
from fm_core.cli import app
from fm_core.discovery import Source
from fm_core.errors import PluginError, UnknownNameError
from fm_core.registry import Registered, Registry
from fm_core.testing import Failed, KitError, Result, Skipped, at_most, check, check_plugin, checks, worst_of
from fm_core.testing.kit import CHECKS, Check

ROOT = Path(__file__).parents[3]
PLUGIN = """
import torch
from fm_core import Component, hookimpl

class Uniform:
    def times(self, path, steps, span=(0.0, 1.0)):
        return torch.linspace(*span, steps + 1, dtype=torch.float64)

class Wrong(Uniform):
    def times(self, path, steps, span=(0.0, 1.0)):
        return super().times(path, steps, span).float()

@hookimpl
def fm_components():
    return [
        Component("grid", "fake_uniform", Uniform),
        Component("grid", "fake_wrong", Wrong),
        Component("grid", "fake_known", Wrong, expected_failures={"count_and_dtype": "float32 is all it needs"}),
    ]
"""


@pytest.fixture
def grid_check(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts one check in place of all those of grids."""

    def put(run: Any) -> list[Result]:
        monkeypatch.setitem(CHECKS, "grid", {"mine": Check("grid", "mine", run, "It holds.")})
        return check("grid/uniform")

    checks("grid")
    return put


def raises(error: BaseException) -> Any:
    def run(subject: object) -> None:
        raise error

    return run


def test_passing_check_says_its_figure_and_its_promise(grid_check: Any) -> None:
    (result,) = grid_check(lambda subject: 0.25)
    expected = Result("grid/uniform", "grids", "mine", "PASS", 0.25, "It holds.", "docs/conformance.md#grid-mine")
    assert result == expected


def test_failure_and_skip_say_why(grid_check: Any) -> None:
    (failed,) = grid_check(raises(Failed("it is 3", 3.0)))
    (skipped,) = grid_check(raises(Skipped("it is no table")))
    assert (failed.status, failed.figure, failed.why) == ("FAIL", 3.0, "it is 3")
    assert (skipped.status, skipped.figure, skipped.why) == ("SKIP", None, "it is no table")


class Panic(BaseException):
    """What is no Exception, as a panic in Rust is."""


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(2), AssertionError("no"), ZeroDivisionError(), Panic()])
def test_check_that_raises_is_a_failure(grid_check: Any, error: BaseException) -> None:
    (result,) = grid_check(raises(error))
    assert result.status == "FAIL"
    assert "it raised" in result.why
    assert "test_running.py" in result.why


@pytest.mark.parametrize("error", [SystemExit, Panic])
def test_component_that_ends_the_process_ends_only_its_own_checks(error: type[BaseException]) -> None:
    def ends() -> None:
        raise error("gone")

    class Ends(Late):
        def times(self, path: Any, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> torch.Tensor:
            raise error("gone")

    results = check(Component("grid", "ends", Ends))
    assert {result.status for result in results if result.check != "builds"} == {"FAIL", "SKIP"}
    assert [result.status for result in check(Component("grid", "ends", ends), only=["builds"])] == ["FAIL"]


def test_interrupt_is_no_finding(grid_check: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        grid_check(raises(KeyboardInterrupt()))


def test_figure_that_is_not_finite_is_none_so_that_json_can_hold_it(grid_check: Any) -> None:
    (result,) = grid_check(raises(Failed("NaN", math.nan)))
    assert result.figure is None


def test_only_runs_what_is_named_in_that_order() -> None:
    results = check("grid/uniform", only=["ends", "count_and_dtype"])
    assert [result.check for result in results] == ["ends", "count_and_dtype"]


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="ends"):
        check("grid/uniform", only=["end"])
    with pytest.raises(UnknownNameError, match="grid"):
        checks("grids")
    with pytest.raises(UnknownNameError, match="uniform"):
        check("grid/uniforn")
    with pytest.raises(UnknownNameError, match="no plugin 'grid' is installed; did you mean 'grids'"):
        check_plugin("grid")
    with pytest.raises(UnknownNameError, match="Say kind="):
        check(object())


def test_object_is_examined_by_its_kind_or_by_where_it_came_from() -> None:
    built = build("grid", "power", exponent=2.0)
    assert {result.component for result in check(built, only=["ends"])} == {"grid/power"}

    class Mine:
        def times(self, path: Any, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> torch.Tensor:
            return torch.linspace(*span, steps + 1, dtype=torch.float64)

    results = check(Mine(), kind="grid")
    assert {result.status for result in results} == {"PASS", "SKIP"}
    assert [result.check for result in results if result.status == "SKIP"] == ["shift_is_applied_once"]


def test_parts_named_in_an_example_are_built() -> None:
    class Wrapped:
        def __init__(self, parts: Any) -> None:
            self.times = parts["grids"][0].times

    part = {"kind": "grid", "name": "power", "exponent": 2.0}
    (result,) = check(Component("grid", "wrapped", Wrapped, example={"parts": {"grids": [part]}}), only=["ends"])
    assert result.status == "PASS", result.why


class Late:
    """A grid that ends a step too early."""

    def times(self, path: Any, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> torch.Tensor:
        return torch.linspace(*span, steps + 2, dtype=torch.float64)[:-1]


def test_expected_failure_is_a_skip_with_its_reason() -> None:
    component = Component("grid", "late", Late, expected_failures={"ends": "it stops short on purpose"})
    (result,) = check(component, only=["ends"])
    assert (result.status, result.why) == ("SKIP", "expected to fail: it stops short on purpose")
    (result,) = check(Component("grid", "late", Late), only=["ends"], expected_failures={"ends": "told by the caller"})
    assert result.status == "SKIP"


def test_expected_failure_that_passes_is_a_failure() -> None:
    component = Component("grid", "late", Late, expected_failures={"strictly_monotone": "no longer so"})
    (result,) = check(component, only=["strictly_monotone"])
    assert result.status == "FAIL"
    assert "remove the declaration" in result.why


def test_expected_failure_of_no_check_is_a_failure_of_the_declaration_alone() -> None:
    component = Component("grid", "late", Late, expected_failures={"order": "grids have none"})
    results = check(component)
    assert [r.check for r in results if r.status == "FAIL" and "no check" in r.why] == ["order"]
    assert len(results) == len(checks("grid")) + 1


def test_component_that_cannot_be_built_fails_once() -> None:
    results = check(Component("grid", "costly", lambda width: Late()))
    assert [result.check for result in results if result.status == "FAIL"] == ["builds"]
    assert not [result.check for result in results if result.status == "PASS"]
    (ends,) = (result for result in results if result.check == "ends")
    assert "it cannot be built" in ends.why


def test_missing_package_of_an_extra_is_a_skip_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fm_core.extras.providing", lambda distribution, module: f"zoo[{module}]")

    def needs() -> None:
        raise ModuleNotFoundError("No module named 'rare'", name="rare")

    result = check(Component("grid", "extra", needs), only=["builds"])[0]
    assert (result.status, "pip install 'zoo[rare]'" in result.why) == ("SKIP", True)


def test_worst_of_gives_the_largest_error_and_shows_the_simplest_input_that_fails() -> None:
    from hypothesis import strategies as st

    assert worst_of(lambda n: n / 10, 1.0, "a tenth", n=st.integers(0, 10)) == 1.0
    with pytest.raises(Failed, match=r"at n = 4; at most 0\.3 is right"):
        worst_of(lambda n: n / 10, 0.3, "a tenth", n=st.integers(0, 10))
    with pytest.raises(Failed, match="nan"):
        worst_of(lambda n: math.nan, 0.3, "a tenth", n=st.integers(0, 10))


def test_worst_of_tries_the_same_inputs_every_time() -> None:
    from hypothesis import strategies as st

    def tried() -> list[float]:
        seen: list[float] = []
        worst_of(lambda x: seen.append(x) or 0.0, 1.0, "nothing", x=st.floats(0, 1))  # type: ignore[func-returns-value]
        return seen

    assert tried() == tried()


def test_bound_refuses_nan() -> None:
    assert at_most(1.0, 1.0, "one") == 1.0
    with pytest.raises(Failed, match="at most 1 is right"):
        at_most(math.nan, 1.0, "NaN")


@pytest.mark.usefixtures("global_rng_untouched")
def test_the_kit_leaves_global_random_state_alone() -> None:
    for key in ("grid/uniform", "coupling/minibatch_ot", "dataset/moons", "metric/energy_distance"):
        check(key)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An installed distribution with a right grid, a wrong one, and a wrong one that says so."""
    info = tmp_path / "fake_zoo-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-zoo\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[fm.plugins]\nzoo = fake_zoo\n")
    (tmp_path / "fake_zoo.py").write_text(PLUGIN)
    return tmp_path


def run(site: Path, *arguments: str, program: str = "from fm_core.cli import main; main()") -> Any:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FM_", "COLUMNS", "PYTEST"))}
    own |= {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "FM_PLUGINS": "zoo"}
    command = [sys.executable, "-c", f"import sys; sys.argv[0] = 'fm'; {program}", *arguments]
    return subprocess.run(command, env=own, cwd=site, capture_output=True, text=True, check=False)


def test_fm_check_exits_by_what_it_found_and_prints_json_lines(site: Path) -> None:
    found = run(site, "check", "zoo", "--json")
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert found.returncode == 1, found.stderr
    assert {tuple(line) for line in lines} == {("component", "plugin", "check", "status", "figure", "why")}
    assert {line["plugin"] for line in lines} == {"zoo"}
    failed = {(line["component"], line["check"]) for line in lines if line["status"] == "FAIL"}
    assert ("grid/fake_wrong", "count_and_dtype") in failed
    assert ("grid/fake_known", "count_and_dtype") not in failed
    assert not [key for key, _ in failed if key == "grid/fake_uniform"]


class Uniform(Late):
    """A right grid."""

    def times(self, path: Any, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> torch.Tensor:
        return torch.linspace(*span, steps + 1, dtype=torch.float64)


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of one plugin with a right grid and a wrong one."""
    source = Source("zoo", dict)
    items = [Registered(Component("grid", name, grid), source) for name, grid in (("right", Uniform), ("wrong", Late))]
    monkeypatch.setattr(registry, "components", lambda kind=None: items)
    monkeypatch.setattr(registry, "find", lambda kind, name: next(item for item in items if item.name == name))


def fm(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["check", *arguments], catch_exceptions=False)


@pytest.mark.usefixtures("zoo")
def test_fm_check_of_a_right_component_exits_with_0() -> None:
    found = fm("grid/right")
    assert found.exit_code == 0
    assert "PASS grid/right count_and_dtype" in found.output
    assert "SKIP grid/right shift_is_applied_once: it is not built with an option shift" in found.output
    assert found.output.rstrip().endswith("6 PASS, 0 FAIL, 1 SKIP")


@pytest.mark.usefixtures("zoo")
def test_fm_check_all_sums_up_by_kind_and_quiet_shows_failures_alone() -> None:
    found = fm("--all", "--quiet")
    assert found.exit_code == 1
    assert "PASS grid" not in found.output
    assert "FAIL grid/wrong ends" in found.output
    assert "(docs/conformance.md#grid-ends)" in found.output
    assert "kind" in found.output


class Steps:
    """An observer, of which one check alone is asked."""

    @hookimpl
    def fm_fit_step(self, step: int) -> None:
        pass


class Plugin:
    """A plugin with a right observer."""

    @hookimpl
    def fm_components(self) -> list[Component]:
        return [Component("observer", "fine", Steps)]


class Mute:
    """A plugin of no components."""

    @hookimpl
    def fm_components(self) -> list[Component]:
        return []


def fails() -> object:
    raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")


@pytest.fixture
def zoos(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of plugins two of which have one name, and others that cannot be examined."""
    sources = [
        Source("zoo", Plugin, "fake-zoo", "1.5"),
        Source("zoo", Plugin, "other-zoo", "2.0"),
        Source("half", Plugin, "fake-zoo", "1.5"),
        Source("half", fails, "other-zoo", "2.0"),
        Source("sad", fails, "sad-zoo", "2.0"),
        Source("shy", Plugin, "shy-zoo", "2.0"),
        Source("mute", Mute, "mute-zoo", "2.0"),
    ]
    of_them = Registry(sources, {"FM_PLUGINS_BLOCK": "shy"})
    for name in ("plugins", "components", "find"):
        monkeypatch.setattr(registry, name, getattr(of_them, name))


@pytest.mark.usefixtures("zoos")
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("sad", ["plugin 'sad' of sad-zoo 2.0 is broken: ModuleNotFoundError: No module", "FM_PLUGINS_BLOCK=sad"]),
        ("shy", ["plugin 'shy' of shy-zoo 2.0 is blocked: named by FM_PLUGINS_BLOCK. Change the variable"]),
        ("half", ["plugin 'half' of other-zoo 2.0 is broken", "To examine the other of this name say 'fake-zoo:half'"]),
    ],
)
def test_fm_check_of_an_unusable_plugin_says_which_why_and_what_helps(name: str, parts: list[str]) -> None:
    with pytest.raises(PluginError) as caught:
        fm(name)
    assert [part for part in parts if part not in str(caught.value)] == []
    assert isinstance(caught.value.__cause__, ModuleNotFoundError) == (name != "shy")


@pytest.mark.usefixtures("zoos")
def test_plugin_without_components_has_nothing_to_examine() -> None:
    with pytest.raises(UnknownNameError, match=r"plugin 'mute' of mute-zoo 2\.0 has no components"):
        fm("mute")


@pytest.mark.usefixtures("zoos")
def test_two_plugins_of_one_name_are_told_apart() -> None:
    def lines(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in fm(name, "--json").stdout.splitlines()]

    both, one = lines("zoo"), lines("Other_Zoo:zoo")
    assert {line["plugin"] for line in both} == {"fake-zoo:zoo", "other-zoo:zoo"}
    assert {line["component"] for line in one} == {"observer/other-zoo:fine"}
    assert one == [line for line in both if line["plugin"] == "other-zoo:zoo"]
    assert one == lines("observer/other-zoo:fine")


@pytest.mark.parametrize("arguments", [[], ["zoo", "--all"], ["--all", "--mutations"]])
def test_fm_check_asks_for_one_thing(arguments: list[str]) -> None:
    found = fm(*arguments)
    assert found.exit_code == 2
    assert "give one of" in found.output


def test_without_hypothesis_the_kit_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "fm_core.testing.grids", raising=False)
    with pytest.raises(KitError, match="pip install 'hypothesis"):
        check(Component("grid", "late", Late))


def test_parametrize_plugin_makes_one_test_of_every_check(site: Path) -> None:
    (site / "test_zoo.py").write_text(
        "from fm_core.testing import parametrize_plugin\n\n"
        "@parametrize_plugin('zoo')\n"
        "def test_conformance(result):\n"
        "    assert result.status != 'FAIL', result.why\n"
    )
    program = "import pytest; sys.exit(pytest.main(['-q', '-rfs', '-p', 'no:cacheprovider', 'test_zoo.py']))"
    found = run(site, program=program)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "FAILED test_zoo.py::test_conformance[grid/fake_wrong-count_and_dtype]" in found.stdout
    assert "expected to fail: float32 is all it needs" in found.stdout
    assert "fake_uniform-ends" not in found.stdout
