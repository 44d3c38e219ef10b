"""Exponential moving average of the weights, with a decay that warms up.

θ̄_1 = θ_1,    θ̄_{n+1} = d_n·θ̄_n + (1 − d_n)·θ_{n+1},    d_n = min(decay, (1 + n)/(10 + n))

The warm-up forgets the first weights: with a fixed decay of .999 they would still weigh 37 % after 1,000 steps.
Parameters are averaged; buffers are copied, for what changes in them (running statistics) is an average already, and
what does not (frequencies) needs none.

References:
    torch.optim.swa_utils. https://docs.pytorch.org/docs/stable/optim.html#weight-averaging-swa-and-ema
    TensorFlow's ExponentialMovingAverage (the warm-up).
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["EMA", "warmed_decay"]


def warmed_decay(decay: float, n: int) -> float:
    """The decay after n updates, `min(decay, (1 + n)/(10 + n))`.

    >>> warmed_decay(0.999, 1), warmed_decay(0.999, 100_000)
    (0.18181818181818182, 0.999)
    """
    return min(decay, (1 + n) / (10 + n))


class EMA:
    """The average of a network's weights over its training.

    Args:
        net: The network; it is copied, and looked at in every update.
        decay: Weight of the past at each update, in [0, 1).

    Raises:
        ValueError: For a decay outside [0, 1).
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of the average is in [0, 1), or None for no average; got {decay}")
        self.decay = decay
        self._averaged = AveragedModel(net)
        self.net.eval()
        # AveragedModel walks the module tree at every update, a tenth of a small network's step, counting in a tensor;
        # here the parameters are listed once, and the count is a number.
        self._count = 0
        self._net = net
        pairs: list[tuple[Tensor, Tensor]] = [
            (a, p) for a, p in zip(self.net.parameters(), net.parameters(), strict=True) if p.is_floating_point()
        ]
        self._average, self._current = [a for a, _ in pairs], [p for _, p in pairs]
        self._has_buffers = any(True for _ in net.buffers())

    @property
    def net(self) -> nn.Module:
        """The averaged network, in evaluation mode."""
        return self._averaged.module

    @torch.no_grad()
    def update(self) -> None:
        """Takes the network's present weights into the average."""
        if self._count == 0:
            self._averaged.update_parameters(self._net)
        else:
            torch._foreach_lerp_(self._average, self._current, 1 - warmed_decay(self.decay, self._count))
        self._count += 1
        if self._has_buffers:  # looked up anew, since modules may put other tensors in their place
            for averaged, current in zip(self.net.buffers(), self._net.buffers(), strict=True):
                averaged.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and how often they were updated."""
        return {"net": self.net.state_dict(), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.net.load_state_dict(state["net"])
        self._count = state["count"]
