"""The wrapper that applies a guidance for `low ≤ log-SNR < high` and asks the field inside it plainly elsewhere.

References:
    Kynkäänniemi et al. 2024. https://arxiv.org/abs/2404.07724
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

import torch
from attrs import evolve, field as attribute, frozen
from torch import Tensor

from fm_core import registry
from fm_core.prediction import Prediction, as_prediction
from fm_core.protocols import Guidance, declared
from fm_core.shapes import map_tensors

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["Interval"]


def _guidance(guidance: Any) -> Guidance:
    built = registry.from_config("guidance", guidance)
    if not isinstance(built, Guidance):
        raise TypeError(f"interval wraps a guidance, an object or its configuration; got {type(built).__name__}")
    return built


def _bound(value: float | None) -> float | None:
    """A number, or None for no bound: infinities have no place in saved files."""
    return None if value is None or math.isinf(value) else float(value)


@final
@frozen(eq=False)
class Interval:
    """A guidance in an interval of log-SNR.

    Args:
        guidance: The guidance, all of whose properties it takes over: an object, or `{"name": …, **options}`.
        low: Least log-SNR `2·log(α/σ)` at which it acts; None for no bound.
        high: Log-SNR from which on it acts no more; None for no bound.

    Raises:
        ValueError: If the interval is empty.
    """

    guidance: Guidance = attribute(converter=_guidance)
    low: float | None = attribute(default=None, converter=_bound)
    high: float | None = attribute(default=None, converter=_bound)

    def __attrs_post_init__(self) -> None:
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(
                f"the interval of log-SNR from {self.low} to {self.high} is empty; log-SNR rises with t: "
                "of noise levels σ/α, low is −2·log of the larger"
            )

    @property
    def needs(self) -> frozenset[Prediction]:
        """What the guidance needs."""
        return frozenset(self.guidance.needs)

    @property
    def acts_on(self) -> Prediction | None:
        """Where the guidance acts."""
        kind = declared(self.guidance, "acts_on")
        return None if kind is None else as_prediction(kind)

    @property
    def evals(self) -> int:
        """What the guidance costs where it acts."""
        return int(declared(self.guidance, "evals"))

    @property
    def off(self) -> bool:
        """Whether the guidance is."""
        return bool(declared(self.guidance, "off"))

    @property
    def layer(self) -> int | None:
        """The guidance's."""
        layer: int | None = declared(self.guidance, "layer")
        return layer

    @property
    def per_step(self) -> bool:
        """The guidance's."""
        return bool(declared(self.guidance, "per_step"))

    def select(self, rows: slice | Tensor) -> Interval:
        """The guidance of these samples, in the same interval."""
        chosen = self.guidance.select(rows) if hasattr(self.guidance, "select") else self.guidance
        return self if chosen is self.guidance else evolve(self, guidance=chosen)

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """The guided prediction inside the interval, the plain one outside, in the guidance's space.

        Args:
            field: The field inside.
            x_t: States, shape `(B, *D)`.
            t: Times, shape `(B,)`.
            cond: Condition, any pytree with the batch first, or None.
            until: The time the solver is going to, shape `(B,)`.

        Returns:
            Shape `(B, *D)`.
        """
        inside = self._inside(field, t)
        if inside is None or bool(inside.all()):  # the one wait for the device: it decides whom to ask
            return self.guidance.guide(field, x_t, t, cond, until=until)
        if not bool(inside.any()):
            return self._plain(field, x_t, t, cond, until)
        return self._mixed(field, x_t, t, cond, until, inside)

    def _plain(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, until: Tensor | None) -> Tensor:
        """What the guidance starts from: its own `plain`, if it asks otherwise than with the condition."""
        own: Callable[..., Tensor] | None = getattr(self.guidance, "plain", None)
        if own is not None:
            return own(field, x_t, t, cond, until=until)
        return field.predict(x_t, t, cond, self.acts_on or field.native, until=until)  # type: ignore[no-any-return]

    def _inside(self, field: Field, t: Tensor) -> Tensor | None:
        if self.low is None and self.high is None:
            return None
        log_snr = field.path.log_snr(t)  # type: ignore[attr-defined]
        inside = torch.ones_like(t, dtype=torch.bool)
        inside = inside if self.low is None else inside & (log_snr >= self.low)
        return inside if self.high is None else inside & (log_snr < self.high)

    def _mixed(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, until: Tensor | None, inside: Tensor) -> Tensor:
        """Every row asked for what it needs; a guidance that holds something per sample sees all rows."""

        def rows(which: Tensor) -> tuple[Tensor, Tensor, Any, Tensor | None]:
            return x_t[which], t[which], map_tensors(lambda x: x[which], cond), None if until is None else until[which]

        outside = ~inside
        x, at, given, to = rows(outside)
        plain = self._plain(field, x, at, given, to)
        result = x_t.new_empty(x_t.shape, dtype=plain.dtype)
        result[outside] = plain
        if self.select(slice(0, 1)) is not self:
            result[inside] = self.guidance.guide(field, x_t, t, cond, until=until)[inside]
            return result
        x, at, given, to = rows(inside)
        result[inside] = self.guidance.guide(field, x, at, given, until=to)
        return result
