"""Any path × any model × any objective × any solver × any guidance: a registry and composer for flow matching and
diffusion.

Public names resolve on first use (PEP 562), so importing this package, or a plugin module that declares components,
imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fm_core.bench.recommending import Recommendation as Recommendation, recommend as recommend
    from fm_core.calibration.calibrate import calibrate as calibrate
    from fm_core.compat import Problem as Problem
    from fm_core.encoding import Encoded as Encoded
    from fm_core.errors import (
        ArgumentError as ArgumentError,
        BudgetError as BudgetError,
        CompatError as CompatError,
        ConditionError as ConditionError,
        DataError as DataError,
        DivergenceError as DivergenceError,
        FitError as FitError,
        FMError as FMError,
        PluginError as PluginError,
        PredictionError as PredictionError,
        SavedFileError as SavedFileError,
        ShapeError as ShapeError,
        TimeError as TimeError,
        UnknownNameError as UnknownNameError,
    )
    from fm_core.field import Field as Field, Model as Model, Training as Training
    from fm_core.fit.checkpoint import load as load
    from fm_core.fit.data import Pairs as Pairs
    from fm_core.fit.trainer import FitResult as FitResult
    from fm_core.foreign import load_diffusers as load_diffusers
    from fm_core.gaussian import GaussianPath as GaussianPath, Schedule as Schedule
    from fm_core.hookspecs import hookimpl as hookimpl
    from fm_core.matching import Matching as Matching
    from fm_core.pipeline import Pipeline as Pipeline, compose as compose, recipe as recipe
    from fm_core.plan import Plan as Plan, Row as Row
    from fm_core.prediction import Prediction as Prediction
    from fm_core.protocols import (
        Codec as Codec,
        Coupling as Coupling,
        Guidance as Guidance,
        Objective as Objective,
        PathSample as PathSample,
        ProbabilityPath as ProbabilityPath,
        Solver as Solver,
        TimeGrid as TimeGrid,
        VectorFieldModel as VectorFieldModel,
    )
    from fm_core.registry import (
        Component as Component,
        build as build,
        components as components,
        observing as observing,
    )
    from fm_core.sampling import Samples as Samples
    from fm_core.table_solver import TableSolver as TableSolver
    from fm_core.transitions import Transitions as Transitions, transition_log_prob as transition_log_prob

_HOME = {
    "bench.recommending": ("Recommendation", "recommend"),
    "calibration.calibrate": ("calibrate",),
    "compat": ("Problem",),
    "encoding": ("Encoded",),
    "errors": (
        "ArgumentError",
        "BudgetError",
        "CompatError",
        "ConditionError",
        "DataError",
        "DivergenceError",
        "FMError",
        "FitError",
        "PluginError",
        "PredictionError",
        "SavedFileError",
        "ShapeError",
        "TimeError",
        "UnknownNameError",
    ),
    "field": ("Field", "Model", "Training"),
    "fit.checkpoint": ("load",),
    "fit.data": ("Pairs",),
    "fit.trainer": ("FitResult",),
    "foreign": ("load_diffusers",),
    "gaussian": ("GaussianPath", "Schedule"),
    "hookspecs": ("hookimpl",),
    "matching": ("Matching",),
    "pipeline": ("Pipeline", "compose", "recipe"),
    "plan": ("Plan", "Row"),
    "prediction": ("Prediction",),
    "protocols": (
        "Codec",
        "Coupling",
        "Guidance",
        "Objective",
        "PathSample",
        "ProbabilityPath",
        "Solver",
        "TimeGrid",
        "VectorFieldModel",
    ),
    "registry": ("Component", "build", "components", "observing"),
    "sampling": ("Samples",),
    "table_solver": ("TableSolver",),
    "transitions": ("Transitions", "transition_log_prob"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

_MODULES = ("registry", "testing")

__all__ = [*_MODULE_OF, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("fm-core")
    if name in _MODULES:
        return importlib.import_module(f"fm_core.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fm_core' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fm_core.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
