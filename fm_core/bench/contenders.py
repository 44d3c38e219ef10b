"""What competes in the solvers suite: a solver on a grid, ours or another library's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import Any

from attrs import field, frozen

from fm_core import registry
from fm_core.bench.asked import require_distinct
from fm_core.bench.whole import RunsWhole, WholeRuns
from fm_core.building import OptionError
from fm_core.course import is_adaptive
from fm_core.errors import PluginError, SavedFileError, UnknownNameError
from fm_core.hookspecs import Component
from fm_core.naming import config_of, label, parse, parse_pair
from fm_core.pipeline import Pipeline
from fm_core.protocols import declared

__all__ = ["DEFAULT", "QUICK", "Contender", "contenders", "in_python", "library", "missing", "misspelt", "peers"]

DEFAULT = (
    "auto",
    "euler",
    "heun",
    "midpoint",
    "rk4",
    "ddim",
    "adams_bashforth(order=3)",
    "adams_pc(order=3)",
    "dpm_solver_pp(order=2)",
    "dpm_solver_pp(order=3)",
    "dpm_solver_pp(order=3)@log_snr",
    "dpm_solver_pp(order=2)@karras",
    "unipc(order=2)",
    "unipc(order=3)",
    "unipc(order=3)@log_snr",
    "deis(order=3)",
    "ipndm",
    "edm",
    "dopri5",
    "ddpm",
    "euler_maruyama",
    "stochastic_heun",
    "sde_dpm_solver_pp(order=2)",
    "calibrated",
)
"""The contenders of a full run; other libraries' are added where they are installed."""

QUICK = (
    "auto",
    "euler",
    "heun",
    "rk4",
    "ddim",
    "adams_pc(order=3)",
    "dpm_solver_pp(order=2)",
    "dpm_solver_pp(order=3)",
    "unipc(order=2)",
    "unipc(order=3)@log_snr",
    "sde_dpm_solver_pp(order=2)",
)

OTHERS = (
    "diffusers_flow_euler",
    "diffusers_flow_heun",
    "diffusers_ddim",
    "diffusers_heun",
    "diffusers_heun(karras=true)",
    *(f"diffusers_{name}(order={p})" for name in ("dpmpp", "unipc", "deis") for p in (2, 3)),
    *(f"diffusers_{name}(order={p}, karras=true)" for name in ("dpmpp", "unipc", "deis") for p in (2, 3)),
    *(f"diffusers_{name}(order=3, spacing=trailing)" for name in ("dpmpp", "unipc", "deis")),
    "azula_ddim",
    "azula_heun",
    *(f"azula_{name}(order={p})" for name in ("vab", "zab", "zeab", "xeab") for p in (2, 3)),
    "azula_reab",
    "torchdiffeq_euler",
    "torchdiffeq_midpoint",
    "torchdiffeq_heun2",
    "torchdiffeq_heun3",
    "torchdiffeq_rk4",
    "torchdiffeq_dopri5",
    "flow_matching_euler",
    "flow_matching_midpoint",
    "flow_matching_heun3",
    "torchsde_euler",
)
"""Other libraries' contenders in a full run, with their spacings of times where these matter."""

QUICK_OTHERS = (
    "diffusers_dpmpp(order=2, karras=true)",
    "diffusers_unipc(order=3)",
    "diffusers_unipc(order=3, karras=true)",
    "azula_vab(order=2)",
    "azula_zeab(order=2)",
    "torchdiffeq_midpoint",
    "flow_matching_heun3",
    "torchsde_euler",
)

FITTED = "calibrated"
"""The solver that is fitted to each problem and budget, by `fm.calibrate`, on other noise than it is judged by."""

PEERS = "peers"
"""The plugin of other libraries' solvers; each is imported from a module that is called like the library."""


@frozen(eq=False, slots=False)
class Contender:
    """A solver on a grid.

    Args:
        solver: Registry name, configuration, or an object.
        grid: The same of its grid; the solver's own, or uniform, for None.
        name: As tables name it; by default as it is typed.
        group: "ours", or the name of another library.
    """

    solver: Any
    grid: Any = None
    name: str = field(kw_only=True)
    group: str = field(default="ours", kw_only=True)

    @name.default
    def _typed(self) -> str:
        return label(self.solver) + ("" if self.grid is None else f"@{label(self.grid)}")

    @property
    def title(self) -> str:
        """Its solver as one types it; the contender's own name where that is an object without one."""
        return self.name if config_of(self.solver) is None else label(self.solver)

    @property
    def fitted(self) -> bool:
        """Whether it is fitted to each problem."""
        return bool(self.solver in (FITTED, {"name": FITTED}))

    @cached_property
    def built(self) -> Any:
        """The solver, built once. A fitted one is there for its traits alone."""
        return None if self.fitted else registry.from_config("solver", self.solver)

    @cached_property
    def trouble(self) -> Exception | None:
        """Why it cannot be built here, or is no solver; None if it can, and is."""
        if self.fitted:
            return None
        try:
            built = self.built
        except Exception as error:
            return error
        lacking = [name for name in ("solve", "order", "evals_per_step") if not hasattr(built, name)]
        if not lacking or isinstance(built, RunsWhole):
            return None
        return TypeError(f"{self._where} is no solver: {type(built).__name__} lacks {', '.join(lacking)}")

    @property
    def _where(self) -> str:
        """Which plugin it is of, where it has a name."""
        if not isinstance(self.solver, Mapping):
            return self.name
        found = registry.find("solver", self.solver["name"])
        return f"{found.component.key} ({found.source.where})"

    @property
    def stochastic(self) -> bool:
        """Whether it adds noise, so that it has no pathwise error."""
        return not self.fitted and bool(declared(self.built, "stochastic"))

    @property
    def adaptive(self) -> bool:
        """Whether it takes tolerances in place of a number of calls."""
        return not self.fitted and is_adaptive(self.built)

    @property
    def notes(self) -> dict[str, Any]:
        """What identifies it in records: its configuration, and the order it declares."""
        found: dict[str, Any] = {"solver": self.title}
        if self.grid is not None:
            found["grid"] = label(self.grid)
        if self.stochastic:
            found["stochastic"] = True
        elif not self.fitted:
            found["order"] = self.built.order
        return found

    @property
    def whole(self) -> bool:
        """Whether it places times of its own, from noise to the data: no grid is given, and its solver has some."""
        return not self.fitted and self.grid is None and isinstance(self.built, RunsWhole)

    def on(self, pipeline: Pipeline) -> Any:
        """What samples by it: the pipeline with this solver and grid, or its whole runs."""
        return WholeRuns(pipeline, self.built) if self.whole else pipeline.replace(solver=self.built, grid=self.grid)


def contenders(given: Iterable[Any]) -> tuple[Contender, ...]:
    """Contenders from what one types, configurations, solvers, pipelines, or contenders.

    One that is broken, or whose library is not installed, is a contender too: its `trouble` says why.

    Raises:
        UnknownNameError: For a solver or grid that no plugin provides, with those of a like name.
        OptionError: For options that it does not take.
        ArgumentError: For different ones of one name.
    """
    found = tuple(_contender(one) for one in given)
    names = [one.name if one.group == "ours" else f"{one.name} ({one.group})" for one in found]
    named = zip(names, ((one.solver, one.grid) for one in found), strict=True)
    require_distinct("contenders", named, "name them: Contender(solver, name='mine'), of fm_core.bench.contenders")
    return found


def _contender(given: Any) -> Contender:
    if isinstance(given, Contender):
        return given
    if isinstance(given, str):
        solver, grid = parse_pair(given)
        found = Contender(solver, grid, group=library("solver", solver["name"]))
        if grid is not None:
            registry.from_config("grid", grid)
    elif isinstance(given, Pipeline):
        found = Contender(given.solver, given.grid)
    else:
        if isinstance(given, Mapping) and not isinstance(given.get("name"), str):
            registry.from_config("solver", given)  # says what it lacks
        found = Contender(given, group=library("solver", given["name"]) if isinstance(given, Mapping) else "ours")
    if found.trouble is not None and misspelt(found.trouble):
        raise found.trouble  # before anything runs
    if found.grid is not None and (found.fitted or (found.trouble is None and found.adaptive)):
        what = "is fitted with its times" if found.fitted else "chooses its times as it goes"
        raise OptionError(f"{label(found.solver)} {what}, so it is on no grid; got {given!r}")
    return found


def misspelt(trouble: Exception) -> bool:
    """Whether it is what was typed, not what answers to it."""
    return isinstance(trouble, UnknownNameError | SavedFileError | OptionError)


def library(kind: str, name: str) -> str:
    """Whose component it is: "ours", or the library's that the plugin of peers has it from."""
    try:
        item = registry.find(kind, name)
    except (UnknownNameError, PluginError):  # what builds it says so
        return "ours"
    return _module(item.component) if item.plugin == PEERS else "ours"


def _module(component: Component) -> str:
    return str(component.target).partition(":")[0].rpartition(".")[2]


def peers(*, quick: bool = False) -> tuple[Contender, ...]:
    """The solvers of other libraries, whether these are installed or not; none without the plugin of peers."""
    known = {item.component.name for item in registry.components("solver") if item.plugin == PEERS}
    return contenders(one for one in (QUICK_OTHERS if quick else OTHERS) if parse(one)["name"] in known)


def in_python(name: str, calls: Collection[float] = ()) -> str:
    """How a contender of ours comes into a pipeline, as one types it; empty for what has no name to be typed.

    One that is fitted is fitted for the calls that it spent, which may be fewer than a budget has.

    >>> in_python("unipc(order=3)@log_snr"), in_python("auto")
    ("pipe.replace(solver='unipc(order=3)', grid='log_snr')", "pipe.replace(solver='auto', grid=None)")
    >>> in_python("calibrated", {10}), in_python("calibrated", {5, 10})
    ('fm.calibrate(pipe, shape, nfe=10)', 'fm.calibrate(pipe, shape, nfe=min(nfe, 10))')
    """
    try:
        solver, grid = parse_pair(name)
        registry.find("solver", solver["name"])
    except (OptionError, UnknownNameError, PluginError):
        return ""
    if solver["name"] == FITTED:
        return f"fm.calibrate(pipe, shape, nfe={_calls(calls)})"
    on = None if grid is None else label(grid)
    ours = library("solver", solver["name"]) == "ours"
    return f"pipe.replace(solver={label(solver)!r}, grid={on!r})" if ours else ""


def _calls(spent: Collection[float]) -> str:
    if not spent:
        return "nfe"
    return f"{max(spent):g}" if len(set(spent)) == 1 else f"min(nfe, {max(spent):g})"


def missing(contender: Contender) -> str:
    """Why a contender cannot be measured here; empty if it can."""
    return "" if contender.trouble is None else str(contender.trouble)
