"""Planted defects: for every check of the conformance kit, components that are wrong in one thing, which it must catch.

They prove the kit, as the kit proves plugins. Beside them stand right components of every kind, which must pass.
"""

from __future__ import annotations

from fm_core.testing.mutants import (
    codecs as _codecs,  # noqa: F401
    conversions as _conversions,  # noqa: F401
    couplings as _couplings,  # noqa: F401
    datasets as _datasets,  # noqa: F401
    flows as _flows,  # noqa: F401
    grids as _grids,  # noqa: F401
    guidances as _guidances,  # noqa: F401
    metrics as _metrics,  # noqa: F401
    models as _models,  # noqa: F401
    objectives as _objectives,  # noqa: F401
    paths as _paths,  # noqa: F401
    problems as _problems,  # noqa: F401
    recipes as _recipes,  # noqa: F401
    runs as _runs,  # noqa: F401
    solvers as _solvers,  # noqa: F401
    tables as _tables,  # noqa: F401
    terms as _terms,  # noqa: F401
)
from fm_core.testing.mutants.planting import MUTANTS, RIGHT, Changed, Mutant, plant, right, table

__all__ = ["MUTANTS", "RIGHT", "Changed", "Mutant", "plant", "right", "table"]
