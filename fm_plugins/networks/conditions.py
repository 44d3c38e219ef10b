"""Conditions of image networks: a class, a vector ("global"), a sequence ("local"), or several of them by name.

    class      label c in 0 … K, K means no class     E_c, added to the embedding of time
    vector     v, shape (B, cond_dim)                 W_2·silu(W_1·v), added to the embedding of time
    context    s, shape (B, L, context_dim)           keys and values of cross-attention, under a mask (B, L) if given

A network made for one of them takes the bare tensor; one made for several a dict with the keys "class", "vector",
"context", and "mask", True where a position counts. Positions that do not count are not seen, and a sample in whose
mask none counts is without context: that is the natural null.

References:
    Dhariwal & Nichol 2021, section 3 (class embedding). https://arxiv.org/abs/2105.05233
    Rombach et al. 2022, section 3.3 (cross-attention). https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fm_core.errors import ConditionError, ShapeError, did_you_mean
from fm_plugins.networks.seeded import embedding, linear

__all__ = ["Conditions"]

INTEGERS = (torch.int64, torch.int32)


class Conditions(nn.Module):
    """What a network is conditioned on.

    Args:
        width: Length of the embedding of classes and vectors.
        generator: Draws the weights.
        classes: Number of classes K; the embedding has K + 1 rows.
        cond_dim: Length of a vector.
        context_dim: Length of an element of a sequence.
        std: Standard deviation of the first class embeddings.
    """

    def __init__(
        self,
        width: int,
        generator: torch.Generator,
        *,
        classes: int | None = None,
        cond_dim: int | None = None,
        context_dim: int | None = None,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value in {"classes": classes, "cond_dim": cond_dim, "context_dim": context_dim}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is at least 1, or None for no such condition; got {value}")
        self.classes, self.cond_dim, self.context_dim = classes, cond_dim, context_dim
        self.rows = embedding(classes + 1, width, generator, std=std) if classes else None
        self.vector = (
            nn.Sequential(linear(cond_dim, width, generator), nn.SiLU(), linear(width, width, generator))
            if cond_dim
            else None
        )
        self.wanted = self._wanted()

    def forward(self, embedded: Tensor, cond: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What the blocks see: `silu(time + class + vector)`, the context and its mask.

        Args:
            embedded: The embedding of time, shape `(B, width)`.
            cond: A tensor, a dict of them, or None, as the network was made for.

        Returns:
            Shapes `(B, width)`, `(B, L, context_dim)` or None, and `(B, 1, 1, L)` or None.

        Raises:
            ConditionError: For a condition that is missing, unexpected, or a label out of range (on a GPU the last is
                CUDA's own error: looking would cost a wait in every step).
            ShapeError: For a condition of another shape or type.
        """
        given, batch, dtype = self._named(cond), embedded.shape[0], embedded.dtype
        if self.rows is not None:
            embedded = embedded + self._labels(given["class"], batch).to(dtype)
        if self.vector is not None:
            embedded = embedded + self.vector(_shaped(given["vector"], (batch, self.cond_dim), "vector").to(dtype))
        context, mask = given.get("context"), given.get("mask")
        if context is not None:
            length = context.shape[1] if context.ndim == 3 else "L"
            context = _shaped(context, (batch, length, self.context_dim), "context").to(dtype)
            if mask is not None:
                mask = _shaped(mask, (batch, length), "mask")[:, None, None, :]
                if mask.dtype != torch.bool:
                    raise ShapeError(f"a mask is bool, True where a position counts; got {mask.dtype}")
        return F.silu(embedded), context, mask

    def _named(self, cond: Any) -> Mapping[str, Tensor]:
        names = list(self.wanted)
        if not names:
            if cond is None:
                return {}
            raise ConditionError(
                f"this network takes no condition; got {_brief(cond)}; build it with classes=, cond_dim= or "
                "context_dim= to condition it"
            )
        if cond is None:
            raise ConditionError(f"this network needs a condition, {self._say()}; got none")
        if isinstance(cond, Tensor) and len(names) == 1:
            return {names[0]: cond}
        if not isinstance(cond, Mapping):
            raise ConditionError(f"this network's condition is {self._say()}; got {_brief(cond)}")
        optional = {"mask"} if "context" in names else set()
        if missing := [name for name in names if cond.get(name) is None]:
            raise ConditionError(f"this network's condition is {self._say()}; {missing[0]!r} is missing")
        if unknown := sorted(cond.keys() - {*names, *optional}):
            hint = did_you_mean(str(unknown[0]), {*names, *optional})
            raise ConditionError(f"this network's condition is {self._say()}; got {unknown[0]!r} besides; {hint}")
        return cond

    def _labels(self, labels: Tensor, batch: int) -> Tensor:
        assert self.rows is not None
        if labels.shape != (batch,) or labels.dtype not in INTEGERS:
            raise ShapeError(
                f"this network's classes are {self.wanted['class']}, B = {batch}; got {labels.dtype} of shape "
                f"{tuple(labels.shape)}"
            )
        # Labels are looked at only once they have failed: a check beforehand would wait for the device in every step.
        try:
            embedded: Tensor = self.rows(labels)
        except IndexError as error:
            raise ConditionError(
                f"this network's classes are {self.wanted['class']}; got labels from {int(labels.min())} to "
                f"{int(labels.max())}"
            ) from error
        return embedded

    def _wanted(self) -> dict[str, str]:
        every = {
            "class": f"integer labels (B,) in 0 … {self.classes}, where {self.classes} means no class",
            "vector": f"vectors (B, {self.cond_dim})",
            "context": f"sequences (B, L, {self.context_dim})",
        }
        have = {"class": self.classes, "vector": self.cond_dim, "context": self.context_dim}
        return {name: text for name, text in every.items() if have[name]}

    def _say(self) -> str:
        if len(self.wanted) == 1:
            return next(iter(self.wanted.values()))
        return "a dict of " + ", ".join(f"{name!r}: {text}" for name, text in self.wanted.items())


def _shaped(value: Tensor, shape: tuple[Any, ...], name: str) -> Tensor:
    if tuple(value.shape) != shape:
        raise ShapeError(f"this network's {name} has shape ({', '.join(map(str, shape))}); got {tuple(value.shape)}")
    return value


def _brief(cond: Any) -> str:
    return f"one of shape {tuple(cond.shape)}" if isinstance(cond, Tensor) else f"a {type(cond).__name__}"
