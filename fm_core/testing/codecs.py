"""What every codec keeps: its way back, and its rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_core.randomness import make_generator
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.traces import global_randomness

__all__: list[str] = []


def _data(codec: Any, n: int = 5) -> Tensor:
    """Data of the first shape that it encodes."""
    for event in (tuple(getattr(codec, "shape", ())), (2,), (3,), (1, 8, 8), (3, 32, 32)):
        x = torch.rand(n, *event, generator=make_generator(0), dtype=torch.float64) * 2 - 1
        for dtype in (torch.float64, torch.float32):
            try:
                codec.encode(x.to(dtype))
            except Exception:
                continue
            return x.to(dtype)
    raise Skipped("none of the shapes (2,), (3,), (1, 8, 8), (3, 32, 32) is encoded; give the codec a `shape`")


@check_of("codec")
def decode_inverts_encode(subject: Subject) -> float:
    """What was encoded is decoded to what it was, of its shape and within a tenth of its size (codecs may lose)."""
    codec = subject.build()
    x = _data(codec)
    back = codec.decode(codec.encode(x))
    if back.shape != x.shape:
        raise Failed(f"data {tuple(x.shape)} came back as {tuple(back.shape)}")
    return at_most(float((back - x).norm() / x.norm()), 0.1, "relative distance after encoding and decoding")


@check_of("codec")
def rows_are_independent(subject: Subject) -> float:
    """A sample alone is encoded and decoded as in its batch."""
    codec = subject.build()
    x = _data(codec)
    z = codec.encode(x)
    error = max(float((codec.encode(x[i : i + 1]) - z[i : i + 1]).abs().max()) for i in range(len(x)))
    back = codec.decode(z)
    error = max(error, *(float((codec.decode(z[i : i + 1]) - back[i : i + 1]).abs().max()) for i in range(len(x))))
    return at_most(error, 1e-4, "a sample alone differs from the same in its batch by")


@check_of("codec")
def deterministic(subject: Subject) -> None:
    """Encoding twice gives the same, and no global random state is touched."""
    codec = subject.build()
    x = _data(codec)
    global_randomness(lambda: codec.encode(x))
    if not torch.equal(codec.encode(x), codec.encode(x)):
        raise Failed("two encodings of the same data differ")
