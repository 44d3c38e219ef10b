"""What competes in the solvers suite: a solver on a grid, ours or another library's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from attrs import field, frozen

from fm_core import registry
from fm_core.bench.naming import label, parse_pair
from fm_core.course import is_adaptive
from fm_core.errors import PluginError
from fm_core.hookspecs import Component
from fm_core.pipeline import Pipeline
from fm_core.protocols import declared

__all__ = ["DEFAULT", "QUICK", "Contender", "contenders", "peers"]

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

FITTED = "calibrated"
"""The solver that is fitted to each problem and budget, by `fm.calibrate`, on other noise than it is judged by."""

PEERS = "peers"
"""The plugin of other libraries' solvers."""


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
    def fitted(self) -> bool:
        """Whether it is fitted to each problem."""
        return bool(self.solver in (FITTED, {"name": FITTED}))

    @cached_property
    def built(self) -> Any:
        """The solver, built once. A fitted one is there for its traits alone."""
        return None if self.fitted else registry.from_config("solver", self.solver)

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
        found: dict[str, Any] = {"solver": label(self.solver)}
        if self.grid is not None:
            found["grid"] = label(self.grid)
        if self.stochastic:
            found["stochastic"] = True
        elif not self.fitted:
            found["order"] = self.built.order
        return found

    def on(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline with this solver and grid."""
        return pipeline.replace(solver=self.built, grid=self.grid)


def contenders(given: Iterable[Any]) -> tuple[Contender, ...]:
    """Contenders from what one types, configurations, solvers, or contenders.

    Raises:
        UnknownNameError: For a solver or grid that no plugin provides, with those of a like name.
        OptionError: For options that it does not take.
    """
    return tuple(_contender(one) for one in given)


def _contender(given: Any) -> Contender:
    if isinstance(given, Contender):
        return given
    if isinstance(given, str):
        solver, grid = parse_pair(given)
        found = Contender(solver, grid, group=_library(solver["name"]))
        if grid is not None:
            registry.from_config("grid", grid)
    else:
        found = Contender(given, group=_library(given["name"]) if isinstance(given, Mapping) else "ours")
    if found.group == "ours":
        _ = found.built  # what is misspelt is said before anything runs
    return found


def _library(name: str) -> str:
    """Whose solver it is: of the plugin of peers, the first word of its name."""
    item = registry.find("solver", name)
    return _first_word(item.component) if item.plugin == PEERS else "ours"


def _first_word(component: Component) -> str:
    return component.name.partition("_")[0]


def peers() -> tuple[Contender, ...]:
    """The solvers of other libraries, whether these are installed or not."""
    return tuple(
        Contender({"name": item.name}, group=_first_word(item.component))
        for item in registry.components("solver")
        if item.plugin == PEERS
    )


def missing(contender: Contender) -> str:
    """Why a contender cannot be built here; empty if it can."""
    if contender.fitted:
        return ""
    try:
        _ = contender.built
    except (PluginError, ImportError) as error:
        return str(error)
    return ""
