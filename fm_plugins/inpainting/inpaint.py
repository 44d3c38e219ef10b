"""Known data in place of the data prediction: `D* = m·k + (1 − m)·D`."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core import Field, Prediction
from fm_core.building import OptionError
from fm_core.errors import ShapeError

__all__ = ["Inpaint"]


def _tensor(value: Any) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(f"known data and masks are tensors or nested lists; got {type(value).__name__}") from error


@frozen(eq=False)
class Inpaint:
    """Replaces the data prediction by known data where a mask says so.

    It stands outside other guidances, last in the list: what stands outside it moves the known part too. On a path that
    leaves noise at t = 1 the known part ends with that noise on it.

    Args:
        known: Data k in the space of the path (behind a codec: encoded), `(B, *D)`, or `(*D)` for all samples, or one
            number.
        mask: m, 1 or True where k is known, 0 where it is not, between them a blend; of the shape of k's samples,
            `(B, *D)` or `(*D)`, where a dimension of 1 is repeated, as over channels. What k holds where m = 0 plays no
            role.

    Raises:
        OptionError: For a mask outside [0, 1], or data that are not finite where it is not 0.
        ShapeError: For a mask that does not fit the data.

    References:
        Song et al. 2021, appendix I.2. https://arxiv.org/abs/2011.13456
    """

    known: Tensor = attribute(converter=_tensor)
    mask: Tensor = attribute(converter=_tensor)
    rows: tuple[slice | Tensor, ...] = attribute(default=(), repr=False)
    """The samples meant, of those that `known` and `mask` have."""

    needs = frozenset({Prediction.DATA})
    acts_on = Prediction.DATA

    @mask.validator
    def _check(self, _: object, mask: Tensor) -> None:
        if mask.is_complex() or not ((mask >= 0) & (mask <= 1)).all():
            raise OptionError("a mask is True or 1 where the data are known and False or 0 where not, or between them")

    def __attrs_post_init__(self) -> None:
        try:
            shape = torch.broadcast_shapes(self.known.shape, self.mask.shape)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise ShapeError(
                f"the mask has the shape {tuple(self.mask.shape)}, and the known data {tuple(self.known.shape)}; a "
                "mask has the shape of the data, for one sample or for all, where a dimension of 1 is repeated"
            ) from error
        if (~self.known.expand(shape).isfinite() & (self.mask.expand(shape) != 0)).any():
            raise OptionError(
                "the known data are not finite where the mask says they are known; let the mask be 0 there"
            )

    def select(self, rows: slice | Tensor) -> Inpaint:
        """The guidance of these samples."""
        return attrs.evolve(self, rows=(*self.rows, rows))

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """`m·k + (1 − m)·D`, shape `(B, *D)`.

        Raises:
            ShapeError: If the known data or the mask do not fit the state.
        """
        mask = self._of_batch("mask", self.mask, x_t, repeated=True)
        known = self._of_batch("known", self.known, x_t, repeated=False).to(x_t)
        data: Tensor = field.predict(x_t, t, cond, Prediction.DATA, until=until)
        if mask.dtype is torch.bool:
            return torch.where(mask, known, data)
        weight = mask.to(x_t)
        blend = data + weight * (known - data)
        return torch.where(weight == 0, data, torch.where(weight == 1, known, blend))

    def _of_batch(self, name: str, value: Tensor, x_t: Tensor, *, repeated: bool) -> Tensor:
        """The value for these samples, broadcastable to the state and on its device."""
        if value.ndim == 0:
            return value.to(x_t.device)
        batched = value.ndim == x_t.ndim
        if batched and len(value) > 1:
            for rows in self.rows:
                value = value[rows]
        event = value.shape[1:] if batched else value.shape
        fits = len(event) == x_t.ndim - 1 and all(
            n == d or (repeated and n == 1) for n, d in zip(event, x_t.shape[1:], strict=True)
        )
        if not fits or (batched and len(value) not in (1, len(x_t))):
            shape = tuple(x_t.shape)
            raise ShapeError(
                f"{name} has the shape {tuple(value.shape)}, and the states {shape}; give it as {shape}, or as "
                f"{shape[1:]} for all samples" + (" (a dimension of 1 is repeated)" if repeated else "")
            )
        return value.to(x_t.device)
