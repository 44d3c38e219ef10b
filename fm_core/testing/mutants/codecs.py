"""Codecs with one defect each."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core.testing.mutants.planting import plant, right

__all__: list[str] = []


@frozen
class _Codec:
    """`encode` and `decode` as given."""

    encode: Any = lambda x: 2 * x
    decode: Any = lambda z: z / 2
    shape: tuple[int, ...] = (2,)


right("codec", "scaling", _Codec)
right(
    "codec",
    "images",
    lambda: _Codec(lambda x: (127.5 * x).round(), lambda z: z.clamp(-127.5, 127.5) / 127.5, (3, 8, 8)),
)

plant("codec", "builds", "no method decode", lambda: type("Half", (), {"encode": abs})())
plant("codec", "builds", "its factory raises", lambda: 1 / 0)
plant("codec", "decode_inverts_encode", "the scale forgotten on the way back", lambda: _Codec(decode=lambda z: z))
plant("codec", "decode_inverts_encode", "data come back flat", lambda: _Codec(decode=lambda z: z.repeat(1, 2) / 2))
plant("codec", "decode_inverts_encode", "vectors cut off at 1.5", lambda: _Codec(lambda x: 2 * x.clamp(-1.5, 1.5)))
plant(
    "codec",
    "decode_inverts_encode",
    "images taken to lie in [0, 1]",
    lambda: _Codec(decode=lambda z: z.clamp(0, 2) / 2, shape=(3, 8, 8)),
)
plant("codec", "decode_inverts_encode", "float32 for data of float64", lambda: _Codec(lambda x: 2 * x.float()))
plant(
    "codec",
    "decode_inverts_encode",
    "batches cut to 64",
    lambda: _Codec(lambda x: torch.cat([2 * x[:64], 0 * x[64:]])),
)


def _standard(x: Tensor) -> Tensor:
    return x / x.std()


plant(
    "codec",
    "rows_are_independent",
    "scaled by the spread of the batch",
    lambda: _Codec(encode=_standard, decode=lambda z: z),
)
plant(
    "codec",
    "rows_are_independent",
    "the batch's mean added on decoding",
    lambda: _Codec(decode=lambda z: z / 2 + z.mean(0)),
)
plant(
    "codec",
    "deterministic",
    "a latent drawn from its posterior",
    lambda: _Codec(encode=lambda x: 2 * x + 1e-3 * torch.randn(x.shape).to(x)),
    found="VAEs, latent_dist.sample()",
)
plant("codec", "deterministic", "scale that grows with every call", lambda: _Growing())


class _Growing:
    def __init__(self) -> None:
        self.calls = 0

    def encode(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls

    def decode(self, z: Tensor) -> Tensor:
        return z / self.calls
