"""The codec's two maps undo each other, and what it encodes is of unit size."""

from __future__ import annotations

import torch

from my_plugin.codec import Standardised

X = 3 + 4 * torch.randn(500, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_decoding_undoes_encoding_both_ways() -> None:
    codec = Standardised(mean=3.0, std=4.0)
    torch.testing.assert_close(codec.decode(codec.encode(X)), X)
    torch.testing.assert_close(codec.encode(codec.decode(X)), X)


def test_the_datas_own_mean_and_scale_give_unit_size() -> None:
    z = Standardised(mean=float(X.mean()), std=float(X.std())).encode(X)
    torch.testing.assert_close(z.mean(), torch.tensor(0.0, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(z.std(), torch.tensor(1.0, dtype=torch.float64))
