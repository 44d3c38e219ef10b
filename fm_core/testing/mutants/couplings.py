"""Couplings with one defect each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from attrs import frozen
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fm_core.shapes import tensors_of
from fm_core.testing.mutants.planting import plant, right

__all__: list[str] = []


@frozen
class _Coupling:
    """A coupling by `match(x0, x1, cond, generator) -> (i, j)`."""

    match: Any
    independent: bool = False
    bijective: bool = True

    def pair(self, x0: Tensor, x1: Tensor, cond: Any = None, *, generator: Any = None) -> tuple[Tensor, Tensor]:
        made: tuple[Tensor, Tensor] = self.match(x0, x1, cond, generator)
        return made


def _optimal(x0: Tensor, x1: Tensor, cond: Any = None, generator: Any = None) -> tuple[Tensor, Tensor]:
    cost = torch.cdist(x0.flatten(1), x1.flatten(1)).square()
    i, j = linear_sum_assignment(cost.numpy())
    return torch.from_numpy(i), torch.from_numpy(j)


def _apart(x0: Tensor, x1: Tensor, cond: Any = None, generator: Any = None) -> tuple[Tensor, Tensor]:
    return torch.arange(len(x0)), torch.randperm(len(x0), generator=generator)


def _resampled(x0: Tensor, x1: Tensor, cond: Any, generator: Any) -> tuple[Tensor, Tensor]:
    """Pairs of the optimal plan drawn with replacement."""
    i, j = _optimal(x0, x1)
    drawn = torch.randint(len(x0), (len(x0),), generator=generator)
    return i[drawn], j[drawn]


def _globally(x0: Tensor, x1: Tensor, cond: Any, generator: Any) -> tuple[Tensor, Tensor]:
    i, j = _optimal(x0, x1)
    drawn = torch.from_numpy(np.random.choice(len(x0), len(x0)))  # noqa: NPY002
    return i[drawn], j[drawn]


def _nearest(x0: Tensor, x1: Tensor, cond: Any = None, generator: Any = None) -> tuple[Tensor, Tensor]:
    return torch.arange(len(x0)), torch.cdist(x0.flatten(1), x1.flatten(1)).argmin(1)


def _first_block(x0: Tensor, x1: Tensor, cond: Any, generator: Any) -> tuple[Tensor, Tensor]:
    return _optimal(x0[:64], x1[:64])


def _beyond(match: Any) -> Any:
    """The optimal plan of batches of at most 64, and `match` of larger ones."""
    return lambda x0, *rest: (match if len(x0) > 64 else _optimal)(x0, *rest)


def _in_place(what: Any) -> Any:
    def match(x0: Tensor, x1: Tensor, cond: Any, generator: Any) -> tuple[Tensor, Tensor]:
        pairs = _optimal(x0, x1)
        what(x0, x1, cond, pairs)
        return pairs

    return match


right("coupling", "optimal", lambda: _Coupling(_optimal))
right("coupling", "independent", lambda: _Coupling(_apart, independent=True))
right("coupling", "resampled", lambda: _Coupling(_resampled, bijective=False))

plant("coupling", "builds", "no method pair", lambda: object())
plant("coupling", "builds", "an option that its example does not give", lambda match: _Coupling(match))
plant(
    "coupling",
    "indices",
    "one-hot rows in place of indices",
    lambda: _Coupling(lambda x0, x1, c, g: (torch.eye(len(x0)), torch.eye(len(x0)))),
)
plant("coupling", "indices", "indices counted from 1", lambda: _Coupling(lambda *a: tuple(k + 1 for k in _optimal(*a))))
plant(
    "coupling",
    "indices",
    "half of the batch",
    lambda: _Coupling(lambda *a: tuple(k[: len(k) // 2 or 1] for k in _optimal(*a))),
)
_TORCHCFM = "TorchCFM, exact OT: 158–164 of 256 used"
plant(
    "coupling",
    "bijective_is_a_permutation",
    "pairs of the plan drawn with replacement",
    lambda: _Coupling(_resampled),
    found=_TORCHCFM,
)
plant("coupling", "bijective_is_a_permutation", "the nearest x1 of every x0", lambda: _Coupling(_nearest))
plant("coupling", "marginals_stay", "the nearest x1 of every x0", lambda: _Coupling(_nearest, bijective=False))
plant(
    "coupling",
    "marginals_stay",
    "the first half of x1 twice",
    lambda: _Coupling(lambda x0, x1, c, g: (torch.arange(len(x0)), torch.arange(len(x0)) // 2), bijective=False),
)
plant(
    "coupling",
    "marginals_stay",
    "the nearest x1 of every x0, in large batches",
    lambda: _Coupling(_beyond(_nearest), bijective=False),
)
plant("coupling", "bijective_is_a_permutation", "a large batch resampled", lambda: _Coupling(_beyond(_resampled)))
plant("coupling", "indices", "indices into one block of a large batch", lambda: _Coupling(_beyond(_first_block)))
plant("coupling", "cheaper_than_independent", "a large batch paired at random", lambda: _Coupling(_beyond(_apart)))
plant(
    "coupling",
    "independent_is_independent",
    "the optimal plan of a large batch declared independent",
    lambda: _Coupling(lambda *a: (_optimal if len(a[0]) > 64 else _apart)(*a), independent=True),
)
plant("coupling", "cheaper_than_independent", "random pairs declared optimal", lambda: _Coupling(_apart))
plant(
    "coupling",
    "cheaper_than_independent",
    "the plan of largest cost",
    lambda: _Coupling(lambda x0, x1, c, g: _optimal(x0, -x1)),
)
plant(
    "coupling",
    "independent_is_independent",
    "the optimal plan declared independent",
    lambda: _Coupling(_optimal, independent=True),
)
plant(
    "coupling",
    "independent_is_independent",
    "the plan of largest cost declared independent",
    lambda: _Coupling(lambda x0, x1, c, g: _optimal(x0, -x1), independent=True),
)
plant(
    "coupling",
    "conditions_follow",
    "conditions reordered in place",
    lambda: _Coupling(_in_place(lambda x0, x1, cond, p: [c.copy_(c[p[1]]) for c in tensors_of(cond)])),
)
plant(
    "coupling",
    "conditions_follow",
    "only tensors taken for conditions",
    lambda: _Coupling(_in_place(lambda x0, x1, cond, p: None if cond is None else cond[p[1]])),
)
plant(
    "coupling",
    "inputs_stay",
    "x1 reordered in place",
    lambda: _Coupling(_in_place(lambda x0, x1, cond, p: x1.copy_(x1[p[1]]))),
)
plant(
    "coupling",
    "inputs_stay",
    "x0 centred in place",
    lambda: _Coupling(_in_place(lambda x0, x1, cond, p: x0.sub_(x0.mean(0)))),
)
plant(
    "coupling",
    "seeds",
    "pairs drawn by numpy's global generator",
    lambda: _Coupling(_globally, bijective=False),
    found="TorchCFM, exact OT",
)
plant(
    "coupling",
    "seeds",
    "pairs drawn by torch's global generator",
    lambda: _Coupling(lambda x0, x1, c, g: (torch.arange(len(x0)), torch.randperm(len(x0))), independent=True),
)
