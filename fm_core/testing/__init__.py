"""The conformance kit, and the closed forms against which it and the tests prove plugins.

Names resolve on first use, so that the closed forms need no hypothesis.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fm_core.mixture import GaussianMixture as GaussianMixture
    from fm_core.testing.kit import (
        Check as Check,
        Failed as Failed,
        Skipped as Skipped,
        Subject as Subject,
        at_most as at_most,
        check_of as check_of,
        worst_of as worst_of,
    )
    from fm_core.testing.running import (
        KitError as KitError,
        Result as Result,
        check as check,
        check_plugin as check_plugin,
        checks as checks,
        components_of as components_of,
        parametrize_plugin as parametrize_plugin,
    )

_HOME = {
    "fm_core.mixture": ("GaussianMixture",),
    "fm_core.testing.kit": ("Check", "Failed", "Skipped", "Subject", "at_most", "check_of", "worst_of"),
    "fm_core.testing.running": (
        "KitError",
        "Result",
        "check",
        "check_plugin",
        "checks",
        "components_of",
        "parametrize_plugin",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fm_core.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
