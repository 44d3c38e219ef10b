"""Conventions of networks trained elsewhere, as values: argument order, clock, output, sign.

Here t rises from the noise (0) to the data (1). Others tell the time as

    rising     t                                           TorchCFM, flow_matching, SiT
    falling    1 − t                                       diffusers' flows (× 1000), score_sde's VP (× 999)
    index      N·(1 − t) − 1                               DDPM's k ∈ 0 … N − 1; k = −1 would be t = 1
    sigma      σ/α                                         EDM's noise level: that of the path rescaled to α = 1
    c_noise    ¼·log(σ/α)                                  EDM's raw networks (Karras et al. 2022, table 1)
    log_snr    2·log(α/σ)                                  VDM and its heirs

The last three look at the path. Everything else of a convention is where the numbers go in and come out.

References:
    Ho et al. 2020 (index). https://arxiv.org/abs/2006.11239
    Song et al. 2021, score SDEs. https://arxiv.org/abs/2011.13456
    Karras et al. 2022, EDM (sigma, c_noise). https://arxiv.org/abs/2206.00364
    Kingma et al. 2021, VDM (log-SNR). https://arxiv.org/abs/2107.00630
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, final

import torch
from attrs import Attribute, field, frozen, validators
from torch import Tensor

from fm_core import ConditionError, ProbabilityPath, ShapeError, TimeError
from fm_core.errors import did_you_mean
from fm_core.registry import from_config
from fm_core.shapes import over

__all__ = ["CLOCKS", "Convention"]

CLOCKS = ("rising", "falling", "index", "sigma", "c_noise", "log_snr")
OF_THE_PATH = frozenset({"sigma", "c_noise", "log_snr"})


def _one_of(*allowed: Any) -> Any:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if value not in allowed:
            raise ValueError(
                f"{attribute.name} is one of {allowed}; got {value!r}: {did_you_mean(str(value), allowed)}"
            )

    return check


def _as_path(path: Any) -> Any:
    return None if path is None else from_config("path", path)


@final
@frozen(eq=False, kw_only=True)
class Convention:
    """How a foreign network is called: the `call` of a `fm.Model`.

    >>> diffusers_ddpm = Convention(clock="index", steps=1000, output="sample")
    >>> diffusers_ddpm.told(torch.tensor([0.0, 0.999]))
    tensor([999.,   0.])

    Args:
        order: "xt" for `net(x, t)`, "tx" for `net(t, x)`, "cat" for `net([x, t])`, vectors with the time last.
        clock: How the network is told the time, one of `CLOCKS`.
        scale: What the clock's reading is multiplied by (1000 for diffusers' flows).
        steps: N of the clock "index".
        rounding: None for readings as they are; "knots" for integers, which the reading must lie on (checked, which
            waits for the device); "nearest" for the closest integer, which tells the network another time than the
            solver's.
        one_time: The network takes one time `()` for the whole batch.
        x_name, t_name: Keywords under which it takes state and time; positional for None.
        cond: None for a condition behind state and time; a keyword for one under this name; "**" for dictionaries
            alone. With a keyword or "**", dictionaries are spread as keywords.
        conditional: The network cannot do without a condition.
        output: Attribute, key or index of the prediction in what comes back; None for the tensor itself.
        learned_variance: 2C channels come back, of which the first C are the prediction.
        sign: −1 where the network's prediction has the other sign.
        path: The path it was trained on: for the clocks that look at it, and on record.
        rescaled: The network takes `x/α`, the state of the path rescaled to α = 1 (EDM).
        sigma_max: The largest σ/α that the network was trained at. Above it, and where α = 0, α counts as σ/sigma_max.

    Raises:
        ValueError: For a value that is none of those named.
    """

    order: Literal["xt", "tx", "cat"] = field(default="xt", validator=_one_of("xt", "tx", "cat"))
    clock: str = field(default="rising", validator=_one_of(*CLOCKS))
    scale: float = field(default=1.0, validator=validators.instance_of((int, float)))
    steps: int = field(default=1000, validator=[validators.instance_of(int), validators.ge(1)])
    rounding: Literal["knots", "nearest"] | None = field(default=None, validator=_one_of(None, "knots", "nearest"))
    one_time: bool = False
    x_name: str | None = None
    t_name: str | None = None
    cond: str | None = None
    conditional: bool = False
    output: str | int | None = None
    learned_variance: bool = False
    sign: int = field(default=1, validator=_one_of(1, -1))
    path: ProbabilityPath | None = field(default=None, converter=_as_path)
    rescaled: bool = False
    sigma_max: float | None = field(default=None, validator=validators.optional(validators.gt(0.0)))

    def __attrs_post_init__(self) -> None:
        if self.path is None and (self.clock in OF_THE_PATH or self.rescaled):
            who = f"the clock {self.clock!r}" if self.clock in OF_THE_PATH else "rescaled=True"
            raise ValueError(f"{who} needs α and σ: give path=, the path that the network shall be used on")
        if self.path is not None and not (hasattr(self.path, "alpha") and hasattr(self.path, "sigma")):
            raise ValueError(f"a convention's path has alpha and sigma; got {type(self.path).__name__}")

    def __call__(self, net: Any, x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        """The network's prediction at states `(B, *D)` and times `(B,)`, shape `(B, *D)`."""
        positional, named = self._arguments(self._scaled(x_t, t), self.told(t), cond)
        output = self._prediction(net(*positional, **named), x_t)
        return -output if self.sign < 0 else output

    def told(self, t: Tensor) -> Tensor:
        """What the network is told of times `(B,)`: `(B,)`, or `()` for one_time."""
        t = _common(t) if self.one_time else t
        if self.clock == "rising":
            reading = t
        elif self.clock == "falling":
            reading = 1 - t
        elif self.clock == "index":
            reading = _index(t, self.steps)
        else:
            reading = self._of_the_path(t)
        reading = reading if self.scale == 1 else reading * self.scale
        return reading if self.rounding is None else self._rounded(reading, t)

    def _of_the_path(self, t: Tensor) -> Tensor:
        alpha, sigma = self._schedule(t)
        if self.clock == "sigma":
            return (sigma / alpha).to(t.dtype)
        half_log_snr = alpha.log() - sigma.log()
        return (2 * half_log_snr if self.clock == "log_snr" else -half_log_snr / 4).to(t.dtype)

    def _schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        assert self.path is not None
        t = t.to(torch.float64)
        alpha: Tensor = self.path.alpha(t)  # type: ignore[attr-defined]  # seen when it was made
        sigma: Tensor = self.path.sigma(t)  # type: ignore[attr-defined]
        return alpha if self.sigma_max is None else torch.maximum(alpha, sigma / self.sigma_max), sigma

    def _rounded(self, reading: Tensor, t: Tensor) -> Tensor:
        nearest = reading.round()
        if self.rounding == "knots":
            off = (reading - nearest).abs() > 2 * torch.finfo(t.dtype).eps * max(1.0, abs(self.scale), self.steps)
            if bool(off.any()):
                raise TimeError(
                    f"this network takes integers, and t = {float(t[off][0]):.6g} is {float(reading[off][0]):.6g}: "
                    "rounded, it would be told another time than the solver's. Let the grid lie on knots, "
                    "times=[1 − (k + 1)/N, …], or say rounding='nearest'"
                )
        return nearest.to(torch.int64)

    def _scaled(self, x_t: Tensor, t: Tensor) -> Tensor:
        return x_t / over(self._schedule(t)[0], x_t) if self.rescaled else x_t

    def _arguments(self, x: Tensor, t: Tensor, cond: Any) -> tuple[list[Any], dict[str, Any]]:
        if cond is None and self.conditional:
            raise ConditionError("this network is conditional, and there is no condition: give cond=")
        positional: list[Any] = []
        named: dict[str, Any] = {}
        if self.order == "cat":
            if x.ndim != 2:
                raise ShapeError(f"a network of [x, t] takes states (B, D); got {tuple(x.shape)}")
            positional.append(torch.cat([x, t.to(x.dtype).expand(x.shape[0])[:, None]], 1))
        else:
            pairs = [(self.x_name, x), (self.t_name, t)]
            for name, value in pairs if self.order == "xt" else reversed(pairs):
                if name is None:
                    positional.append(value)
                else:
                    named[name] = value
        if cond is not None:
            self._add_condition(cond, positional, named)
        return positional, named

    def _add_condition(self, cond: Any, positional: list[Any], named: dict[str, Any]) -> None:
        if self.cond is None:
            positional.append(cond)
        elif isinstance(cond, Mapping):
            named.update(cond)
        elif self.cond == "**":
            raise ConditionError(
                f"this network takes its conditions by name: give cond= a dictionary of them; got {type(cond).__name__}"
            )
        else:
            named[self.cond] = cond

    def _prediction(self, output: Any, x_t: Tensor) -> Tensor:
        found = output if self.output is None else _part(output, self.output)
        if not isinstance(found, Tensor):
            raise ShapeError(
                f"the network returns a {type(found).__name__}, not a tensor; say which part of it is the prediction: "
                "output='sample', or output=0"
            )
        if self.learned_variance:
            channels = x_t.shape[1]
            if found.shape[1:2] != (2 * channels,):
                raise ShapeError(
                    f"a network with learned variances returns twice the state's {channels} channels; "
                    f"got {tuple(found.shape)} for {tuple(x_t.shape)}"
                )
            return found[:, :channels]
        return found


def _index(t: Tensor, steps: int) -> Tensor:
    """N·(1 − t) − 1. What differs from a knot by no more than the rounding of t is the knot: float32 holds
    t = 1 − 1/1000 to an index of 6e-5, which published samplers do not have.
    """
    exact = (steps - 1) - t.to(torch.float64) * steps
    gap = exact.round() - exact
    snapped = exact + torch.where(gap.abs() <= torch.finfo(t.dtype).eps * steps, gap, 0.0).detach()
    return snapped.to(t.dtype)


def _common(t: Tensor) -> Tensor:
    """The one time of a batch; only times that an executor did not expand are looked at."""
    if t.ndim == 0:
        return t
    if t.shape[0] > 1 and t.stride(0) and bool((t != t[0]).any()):
        raise TimeError(
            f"this network takes one time for the whole batch; got times from {float(t.min()):.6g} to "
            f"{float(t.max()):.6g}. Training needs a network that takes a time for every sample"
        )
    return t[0]


def _part(output: Any, part: str | int) -> Any:
    if isinstance(part, str) and not isinstance(output, Mapping):
        found: Any = getattr(output, part, None)
    else:
        try:
            found = output[part]
        except (KeyError, IndexError, TypeError):
            found = None
    if found is None:
        raise ShapeError(f"the network's output, a {type(output).__name__}, has no part {part!r}")
    return found
