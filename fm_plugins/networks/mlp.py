"""Multilayer perceptron of state, time and condition: the network of the 2-D literature, for states of any shape.

    f(x, t, c) = W_{n+1}·a(W_n ⋯ a(W_1·[x, τ(t), γ(c)])),   n = depth,   a = activation

    τ(t) = t                                                        time="concat"
    τ(t) = W·(sin 1000ω_0·t, …, cos 1000ω_0·t, …) + b               time="fourier"
           ω_i = 10000^(−i/h),  i < h = width/2: the frequencies of Vaswani et al. and DDPM, whose index runs to 1000
    γ(c) = E_c, a row of an embedding, for labels; γ(c) = c for vectors

With shape 2 and the defaults it is TorchCFM's `MLP(dim=2, time_varying=True)`: same layers, same state dict.

References:
    Tong, Malkin, et al. 2024, TorchCFM, torchcfm/models/models.py. https://github.com/atong01/conditional-flow-matching
    Klambauer et al. 2017, SELU. https://arxiv.org/abs/1706.02515
    Vaswani et al. 2017, section 3.5. https://arxiv.org/abs/1706.03762
    Ho et al. 2020, DDPM, appendix B. https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from fm_core.errors import ConditionError, ShapeError, did_you_mean
from fm_core.randomness import make_generator
from fm_plugins.networks.seeded import embedding, linear
from fm_plugins.networks.time_embedding import sinusoids

__all__ = ["MLP"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


@final
class MLP(nn.Module):
    """Time-embedded MLP.

    >>> net = MLP(2, seed=0)
    >>> net(torch.zeros(5, 2), torch.linspace(0, 1, 5)).shape
    torch.Size([5, 2])
    >>> sum(p.numel() for p in net.parameters())  # 3·64 + 64, twice 64·64 + 64, 64·2 + 2
    8706

    Args:
        shape: Event shape D of a state, a number for vectors.
        width: Units of a hidden layer, and of the embeddings of time and of labels.
        depth: Number of hidden layers.
        activation: Name of the nonlinearity, one of `ACTIVATIONS`.
        time: "concat" feeds t itself, "fourier" sines and cosines of it.
        classes: Number of classes K, for conditions that are labels `(B,)`, int64, in 0 … K. K itself is "no class",
            so the model is `fm.Model(net, predicts=…, null=K)`.
        cond_dim: Length of conditions that are vectors `(B, cond_dim)`; a natural null is `torch.zeros(cond_dim)`.
        seed: Seed of the weights, drawn on the CPU by PyTorch's rules from a generator of their own; None draws from
            fresh entropy. The global generators are neither read nor written.

    Raises:
        ValueError: For sizes below 1, unknown names, or both kinds of condition.
    """

    def __init__(
        self,
        shape: int | Sequence[int],
        *,
        width: int = 64,
        depth: int = 3,
        activation: str = "selu",
        time: str = "concat",
        classes: int | None = None,
        cond_dim: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = torch.Size((shape,) if isinstance(shape, int) else shape)
        self.classes, self.cond_dim = classes, cond_dim
        self._check(width=width, depth=depth, activation=activation, time=time)
        size, generator = self.shape.numel(), make_generator(seed)
        time_size = 1 if time == "concat" else width
        sizes = [size + time_size + (width if classes else cond_dim or 0), *[width] * depth]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [linear(inputs, outputs, generator), ACTIVATIONS[activation]()]
        self.net = nn.Sequential(*layers, linear(width, size, generator))
        self.embed_time = None if time == "concat" else _Fourier(width, generator)
        self.embed_class = embedding(classes + 1, width, generator) if classes else None

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The network's output at states x_t `(B, *D)`, times t `(B,)` and conditions.

        Args:
            x_t: States, shape `(B, *D)`.
            t: Times in [0, 1], shape `(B,)`, of x_t's precision or higher.
            cond: Labels `(B,)` or vectors `(B, cond_dim)` if the network was made for them, else None.

        Returns:
            Shape `(B, *D)`.

        Raises:
            ShapeError: For states or conditions of another shape.
            ConditionError: For a condition that is missing, unexpected, or a label out of range (on a GPU the last is
                CUDA's own error: looking would cost a wait in every step).
        """
        if x_t.shape[1:] != self.shape:
            raise ShapeError(
                f"this MLP takes states (B, {', '.join(map(str, self.shape))}); got {tuple(x_t.shape)}; "
                f"build it with shape={tuple(x_t.shape[1:])} for these"
            )
        x = x_t if x_t.ndim == 2 else x_t.reshape(x_t.shape[0], self.shape.numel())
        # Sines are taken in t's own precision: bfloat16 cannot tell 999/1000 from 1.
        tau = t.unsqueeze(1) if self.embed_time is None else self.embed_time(t, x.dtype)
        features = [x, tau.to(x.dtype)]
        if cond is not None or self.embed_class is not None or self.cond_dim:
            features.append(self._embed(cond, x))
        output: Tensor = self.net(torch.cat(features, 1))
        return output if x_t.ndim == 2 else output.reshape(x_t.shape)

    def _embed(self, cond: Tensor | None, x: Tensor) -> Tensor:
        if cond is None:
            raise ConditionError(f"this MLP needs a condition, {self._wanted()}; got none")
        if self.embed_class is None and not self.cond_dim:
            raise ConditionError(
                f"this MLP takes no condition; got one of shape {tuple(cond.shape)}; "
                "build it with classes= or cond_dim= to condition it"
            )
        batch = x.shape[0]
        if self.embed_class is None:
            if cond.shape != (batch, self.cond_dim):
                raise ShapeError(
                    f"this MLP's condition is {self._wanted()}, B = {batch}; got shape {tuple(cond.shape)}"
                )
            return cond.to(x.dtype)
        if cond.shape != (batch,) or cond.dtype not in (torch.int64, torch.int32):
            raise ShapeError(
                f"this MLP's condition is {self._wanted()}, B = {batch}; got {cond.dtype} of shape {tuple(cond.shape)}"
            )
        # Labels are looked at only once they have failed: a check beforehand would wait for the device in every step.
        try:
            embedded: Tensor = self.embed_class(cond)
        except IndexError as error:
            raise ConditionError(
                f"this MLP's condition is {self._wanted()}; got labels from {int(cond.min())} to {int(cond.max())}"
            ) from error
        return embedded.to(x.dtype)

    def _wanted(self) -> str:
        if self.classes:
            return f"integer labels (B,) in 0 … {self.classes}, where {self.classes} means no class"
        return f"vectors (B, {self.cond_dim})"

    def _check(self, *, width: int, depth: int, activation: str, time: str) -> None:
        if any(side < 1 for side in self.shape):
            raise ValueError(f"an event shape has sides of at least 1; got {tuple(self.shape)}")
        for name, value in {"width": width, "depth": depth, "classes": self.classes, "cond_dim": self.cond_dim}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is at least 1; got {value}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}; {did_you_mean(activation, ACTIVATIONS)}")
        if time not in {"concat", "fourier"}:
            raise ValueError(f"unknown time embedding {time!r}; {did_you_mean(time, ['concat', 'fourier'])}")
        if time == "fourier" and width % 2:
            raise ValueError(f"a Fourier embedding has as many sines as cosines: width must be even; got {width}")
        if self.classes is not None and self.cond_dim is not None:
            raise ValueError("a condition is labels (classes=) or vectors (cond_dim=); got both")


class _Fourier(nn.Module):
    """Sines and cosines of time, mixed by a linear layer."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mix = linear(width, width, generator)

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        return self.mix(sinusoids(t, self.mix.in_features).to(dtype))  # type: ignore[no-any-return]
