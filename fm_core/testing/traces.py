"""What a component leaves behind where it should leave nothing: global random state."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fm_core.testing.kit import Failed

__all__ = ["global_randomness"]


def global_randomness(run: Callable[[], object]) -> None:
    """Checks that a call neither reads nor writes the global generators of torch, numpy and Python.

    Args:
        run: Does what is examined, and gives something comparable by `torch.equal`, or nothing.

    Raises:
        Failed: Naming the generator.
    """
    before = _states()
    results = []
    try:
        for seed in (0, 1):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002  # the global state is what is examined
            random.seed(seed)
            untouched = _states()
            results.append(run())
            for name, state in _states().items():
                if not _equal(state, untouched[name]):
                    raise Failed(f"it draws from the global generator of {name}: what else runs changes its results")
    finally:
        torch.set_rng_state(before["torch"])
        np.random.set_state(before["numpy"])  # noqa: NPY002
        random.setstate(before["Python"])
    first, second = results
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor) and not torch.equal(first, second):
        raise Failed("with equal inputs and generators it gave two results, under other global seeds")


def _states() -> dict[str, Any]:
    return {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "Python": random.getstate()}  # noqa: NPY002


def _equal(state: Any, other: Any) -> bool:
    if isinstance(state, torch.Tensor):
        return torch.equal(state, other)
    return all(np.array_equal(a, b) for a, b in zip(state, other, strict=True))
