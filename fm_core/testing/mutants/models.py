"""Networks with one defect each: of a linear map of state, time and label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fm_core.randomness import make_generator
from fm_core.testing.mutants.planting import plant, right

__all__: list[str] = []


class _Net(nn.Module):
    """tanh(A·[x, t, label/3] + b), changed by `change(net, output, x, t, cond)`."""

    shape = (2,)
    classes = 3

    def __init__(self, change: Any = None, seed: int = 0, generator: Any = None) -> None:
        super().__init__()
        generator = make_generator(seed) if generator is None else generator
        self.weight = nn.Parameter(torch.randn(2, 4, generator=generator))
        self.bias = nn.Parameter(torch.zeros(2))
        self.change = change

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Any:
        inputs = torch.cat([x_t, t[:, None], cond[:, None].to(x_t) / 3], 1)
        output = torch.tanh(inputs @ self.weight.T + self.bias)
        return output if self.change is None else self.change(self, output, x_t, t, cond)


def _net(change: Any) -> Any:
    return lambda seed=0: _Net(change, seed)


class _Normed(_Net):
    """With a batch norm that is always training."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Any:
        output = super().forward(x_t, t, cond)
        return (output - output.mean(0)) / (output.var(0, unbiased=False) + 1e-5).sqrt()


class _Idle(_Net):
    """With a parameter that nothing uses."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(None, seed)
        self.idle = nn.Parameter(torch.zeros(3))


class _Forgetful(_Net):
    """With a scale that its state dict does not hold."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(None, seed)
        self.scale = 1.0 + len(_MADE) / 10
        _MADE.append(seed)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Any:
        return self.scale * super().forward(x_t, t, cond)


_MADE: list[int] = []


class _Untracked(_Net):
    """With a weight kept in a list, where no state dict finds it."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(None, seed)
        self.hidden = [torch.randn(2, generator=make_generator(len(_MADE)))]
        _MADE.append(seed)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Any:
        return super().forward(x_t, t, cond) + self.hidden[0].to(x_t)


class _Unsaid(nn.Module):
    """A network of states of `width` numbers that does not say so."""

    def __init__(self, width: int, answer: Any = None) -> None:
        super().__init__()
        self.layer, self.answer = nn.Linear(width, width), answer

    def forward(self, x_t: Tensor, t: Tensor) -> Any:
        output = self.layer(x_t) + t[:, None]
        return output if self.answer is None else self.answer(output)


right("model", "linear", lambda seed=0: _Net(None, seed))
right("model", "without_a_shape", lambda: _Unsaid(2))

plant("model", "builds", "its factory raises", lambda: 1 / 0)
plant("model", "builds", "an option that its example does not give", lambda width: _Net())
plant("model", "shapes", "an attribute that no tensor has", lambda: _Unsaid(2, lambda output: output.undefined))
plant("model", "shapes", "states of seven numbers, without a shape that says so", lambda: _Unsaid(7))
plant("model", "shapes", "a channel too many", _net(lambda net, out, x, t, c: torch.cat([out, out[:, :1]], 1)))
plant("model", "shapes", "the batch squeezed away where B = 1", _net(lambda net, out, x, t, c: out.squeeze(0)))
plant("model", "shapes", "half precision for any state", _net(lambda net, out, x, t, c: out.half()))
plant(
    "model",
    "samples_are_independent",
    "a batch norm of the batch's own statistics in evaluation",
    lambda seed=0: _Normed(None, seed),
)
plant(
    "model",
    "samples_are_independent",
    "scaled by the batch's largest answer",
    _net(lambda net, out, x, t, c: out / out.abs().max()),
)
plant(
    "model",
    "time_belongs_to_the_sample",
    "the mean of all times for every sample",
    _net(lambda net, out, x, t, c: out + t.mean()),
)
plant(
    "model", "time_belongs_to_the_sample", "the time not used", _net(lambda net, out, x, t, c: x @ net.weight[:, :2].T)
)
plant(
    "model",
    "time_belongs_to_the_sample",
    "t not broadcast: a row of the width",
    _net(lambda net, out, x, t, c: out + t[:2]),
)
plant(
    "model", "condition_belongs_to_the_sample", "the condition not used", _net(lambda net, out, x, t, c: x + t[:, None])
)
plant(
    "model",
    "condition_belongs_to_the_sample",
    "conditions of the neighbours",
    _net(lambda net, out, x, t, c: out + c.roll(1)[:, None]),
)
plant(
    "model",
    "deterministic_in_evaluation",
    "dropout in evaluation too",
    _net(lambda net, out, x, t, c: nn.functional.dropout(out, 0.5, training=True)),
)
plant(
    "model",
    "deterministic_in_evaluation",
    "random features drawn at every call",
    _net(lambda net, out, x, t, c: out + torch.randn(2, generator=make_generator()).to(x)),
)
plant("model", "gradients_reach_every_weight", "a parameter that nothing uses", _Idle)
plant(
    "model",
    "gradients_reach_every_weight",
    "a weight detached",
    _net(lambda net, out, x, t, c: out.detach() + net.bias),
)
plant(
    "model",
    "weights_come_from_the_seed",
    "weights from torch's global generator",
    lambda seed=0: _Net(generator=torch.default_generator),
)
plant(
    "model",
    "weights_come_from_the_seed",
    "fresh entropy in place of the seed",
    lambda seed=0: _Net(generator=make_generator()),
)
plant("model", "state_dict_restores_it", "a scale that the state dict does not hold", _Forgetful)
plant("model", "state_dict_restores_it", "a weight in a list", _Untracked)
