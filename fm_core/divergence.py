"""Where a run that ended in NaN or infinity first left the finite numbers: it runs again, under watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fm_core.errors import DivergenceError
from fm_core.field import Field
from fm_core.protocols import OnStep, VectorFieldModel

__all__ = ["located"]

ADVICE = "look for NaN weights, try more steps or float32; throw=False returns the other samples"


def located(field: Field, run: Callable[[Field, OnStep], object], count: int) -> DivergenceError:
    """Where a run that gave non-finite samples first did so.

    Args:
        field: Field of the run.
        run: Does the run again, with this field and this `on_step`.
        count: Number of samples that are not finite.
    """
    step, watched = -1, _Watched(field.model)

    def watch(t: float, x: Tensor) -> None:
        nonlocal step
        step += 1
        what = f"the state after step {step}, at t = {t:.6g}," if step else f"the first state, at t = {t:.6g},"
        _stop_unless_finite(x, what)

    try:
        run(Field(watched, field.path, field.guidances), watch)
    except DivergenceError as error:
        if step == 0 and not watched.calls:
            return DivergenceError(f"{error}, before any network call: look at what was given to start from")
        where = f" in step {step + 1}" if step >= 0 else ""  # a stranger's solver may not tell of its steps
        return DivergenceError(f"the run diverged{where}: {error}, and {count} are not at its end; {ADVICE}")
    return DivergenceError(
        f"{count} samples are not finite, but a second run of the same draws is: the network is not deterministic"
    )


class _Watched:
    """A model that stops at the first non-finite prediction or state."""

    def __init__(self, model: VectorFieldModel) -> None:
        self.model, self.predicts, self.calls = model, model.predicts, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Any:
        self.calls += 1
        at = f"(call {self.calls}) at t = {float(t[0]):.6g}"
        _stop_unless_finite(x_t, f"the state given to the network {at}")
        output = self.model(x_t, t, cond)
        for tensor in output if isinstance(output, tuple | list) else (output,):
            _stop_unless_finite(tensor, f"the network's output {at}")
        return output


def _stop_unless_finite(x: Tensor, what: str) -> None:
    bad = ~x.isfinite().flatten(1).all(1)
    if bad.any():
        raise DivergenceError(f"{what} is not finite in {int(bad.sum())} of {len(bad)} samples")
