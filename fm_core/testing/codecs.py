"""What every codec keeps: its way back, and its rows.

Data are of the codec's `shape`; without one some are tried. Images (three dimensions) lie in [−1, 1], as data sets of
images do; vectors are up to 10 in size.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from fm_core.discovery import brief
from fm_core.randomness import make_generator
from fm_core.testing.kit import Failed, Subject, at_most, check_of, worst_of
from fm_core.testing.traces import global_randomness

__all__: list[str] = []


TRIED = ((2,), (3,), (1, 8, 8), (3, 32, 32))
"""Event shapes that are tried with a codec that names none."""

LARGE = 10_000
"""Numbers of an event from which on small batches alone are encoded: it takes a large network."""


def _kind(codec: Any) -> tuple[tuple[int, ...], torch.dtype]:
    """The event shape and the dtype of what it encodes: the first that it takes."""
    shape = getattr(codec, "shape", None)
    events = TRIED if shape is None else ((shape,) if isinstance(shape, int) else tuple(shape),)
    why = ""
    for event, dtype in itertools.product(events, (torch.float64, torch.float32)):
        try:
            codec.encode(_data((event, dtype)))
        except Exception as error:
            why = brief(error)
        else:
            return event, dtype
    raise Failed(
        f"it encodes no data of {', '.join(map(str, events))}, in float64 or float32; the last error: {why}. If it is "
        "right, declare `shape`, the event shape of its data"
    )


def _data(kind: tuple[tuple[int, ...], torch.dtype], n: int = 5, size: float = 1.0) -> Tensor:
    """Data within ±size."""
    event, dtype = kind
    return (size * (2 * torch.rand(n, *event, generator=make_generator(0), dtype=torch.float64) - 1)).to(dtype)


def _sizes(kind: tuple[tuple[int, ...], torch.dtype]) -> st.SearchStrategy[float]:
    return st.just(1.0) if len(kind[0]) == 3 else st.floats(1.0, 10.0)


@check_of("codec")
def decode_inverts_encode(subject: Subject) -> float:
    """What was encoded is decoded to what it was: its shape, its dtype, and within a tenth of its size.

    Codecs may lose, but nothing is cut off: images within [−1, 1] come back, and vectors of any size up to 10.
    """
    codec = subject.build()
    kind = _kind(codec)

    def error(n: int, size: float) -> float:
        x = _data(kind, n, size)
        back = codec.decode(codec.encode(x))
        if back.shape != x.shape or back.dtype != x.dtype:
            raise Failed(f"data {tuple(x.shape)} of {x.dtype} came back as {tuple(back.shape)} of {back.dtype}")
        return float((back - x).norm() / x.norm())

    counts = [1, 2, 5, 70] if math.prod(kind[0]) <= LARGE else [1, 2]
    what = "relative distance after encoding and decoding"
    return worst_of(error, 0.1, what, examples=10, n=st.sampled_from(counts), size=_sizes(kind))


@check_of("codec")
def rows_are_independent(subject: Subject) -> float:
    """A sample alone is encoded and decoded as in its batch."""
    codec = subject.build()
    x = _data(_kind(codec))
    z = codec.encode(x)
    error = max(float((codec.encode(x[i : i + 1]) - z[i : i + 1]).abs().max()) for i in range(len(x)))
    back = codec.decode(z)
    error = max(error, *(float((codec.decode(z[i : i + 1]) - back[i : i + 1]).abs().max()) for i in range(len(x))))
    return at_most(error, 1e-4, "a sample alone differs from the same in its batch by")


@check_of("codec")
def deterministic(subject: Subject) -> None:
    """Encoding twice gives the same, and no global random state is touched."""
    codec = subject.build()
    x = _data(_kind(codec))
    global_randomness(lambda: codec.encode(x))
    if not torch.equal(codec.encode(x), codec.encode(x)):
        raise Failed("two encodings of the same data differ")
