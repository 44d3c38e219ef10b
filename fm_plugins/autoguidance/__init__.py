"""Autoguidance: a network guided by a bad version of itself.

With the data prediction D of a good network and D_weak of a worse one (smaller, or less trained) of the same kind,

    D_weak + s·(D − D_weak)

extrapolates away from the errors that both make, the weak one more; s = 1 is the good network alone. Needs no
condition. The weak network may predict anything: it is asked through a field of its own on the same path.

References:
    Karras et al. 2024, Guiding a diffusion model with a bad version of itself. https://arxiv.org/abs/2406.02507
"""

from __future__ import annotations

from typing import Any

from fm_core import Component, hookimpl


def _weak(x_t: Any, t: Any, cond: Any = None) -> Any:
    """A bad network for states of any shape: what the example is built with."""
    return -x_t


@hookimpl
def fm_components() -> list[Component]:
    """The guidance `autoguidance`."""
    return [
        Component(
            "guidance",
            "autoguidance",
            "fm_plugins.autoguidance.autoguidance:autoguidance",
            "D_weak + s·(D − D_weak), with a worse network of any prediction",
            "Karras et al. 2024, https://arxiv.org/abs/2406.02507",
            example={"weak": _weak, "scale": 2.0, "predicts": "velocity"},
        )
    ]
