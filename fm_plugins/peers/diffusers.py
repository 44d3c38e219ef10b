"""Schedulers of diffusers, as they come, on any Gaussian path.

A scheduler of diffusers knows one of two paths, and every Gaussian path x_t = α·x1 + σ·x0 is either of them at another
scale, x_t = c(t)·y:

    flow    y = (1 − s)·x1 + s·x0        c = α + σ,       s = σ/(α + σ)    it is told the velocity x0 − x1
    VP      y = (x1 + s·x0)/√(1 + s²)    c = √(α² + σ²),  s = σ/α          it is told the noise x0

`run` is what the library's users get: the scheduler places its own times, among 1,000 discrete ones of the VP path, and
carries pure noise to the data, σ = 0. `solve` carries states over times that are given: the same scheduler, whose noise
levels are set. Its arithmetic is its own in both, and mostly in float32.

The discrete time k of 1,000 is t = 1 − (k + 1)/1000. The flow's levels are asked for at the very time that they mean,
though the scheduler would round it to a whole k.

References:
    diffusers. https://github.com/huggingface/diffusers
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, final

import torch
from attrs import field as attribute, frozen, validators
from torch import Tensor

from fm_core.errors import BudgetError
from fm_core.field import Field
from fm_core.gaussian import check_times
from fm_core.levels import levels
from fm_core.prediction import Prediction
from fm_core.protocols import OnStep, ProbabilityPath
from fm_plugins.peers.linear import is_linear
from fm_plugins.peers.needing import needing

with needing("diffusers"):
    import diffusers

__all__ = ["Scheduled"]

TRAINED = 1000
"""Times of a discrete schedule."""

LEAST = 2.0**-24
"""Least α² of a discrete schedule: diffusers' own, under zero terminal SNR."""

HIGHEST = 1 - 1e-6
"""Highest level of a flow whose logarithm is taken: diffusers' own, of UniPC."""

_EXPLODING = "HeunDiscreteScheduler"
"""Its states are x1 + s·x0."""


@final
@frozen
class Scheduled:
    """A scheduler of diffusers.

    Args:
        scheduler: Name of its class.
        order: The order that it claims; `solver_order` of those that take one.
        spacing: How it places VP times: "linspace", "leading" or "trailing". For None it takes the flow's levels on the
            linear path, as do users of flow models, and "linspace" on others.
        karras: Whether it places VP times by Karras et al. 2022, equation 5.
    """

    scheduler: str
    order: int = attribute(default=1, validator=validators.in_((1, 2, 3)))
    spacing: str | None = attribute(default=None, validator=validators.in_((None, "linspace", "leading", "trailing")))
    karras: bool = attribute(default=False, validator=validators.instance_of(bool))

    needs = frozenset({Prediction.NOISE})
    geometries = frozenset({"euclidean"})
    stochastic = False

    @property
    def evals_per_step(self) -> int:
        """Network calls of a step."""
        return 2 if "Heun" in self.scheduler else 1

    def run(
        self, field: Field, x0: Tensor, nfe: int, *, cond: Any = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Carries source samples to the data in at most so many network calls, on the scheduler's own times.

        Args:
            field: Field to follow, on a Gaussian path; asked inside its span.
            x0: Source samples, unscaled, shape `(B, *D)`.
            nfe: Network calls. A method of two stages takes its last step in one.
            cond: Condition, any pytree with the batch first, or None.
            generator: Not used: nothing is random.

        Raises:
            BudgetError: If a run takes more calls.
        """
        scheduler, flow = _fresh(self, field.path)
        scheduler.set_timesteps(-(-nfe // self.evals_per_step))
        marks = scheduler.timesteps
        if hasattr(scheduler, "set_begin_index"):  # else two marks that round to one put it a step ahead
            scheduler.set_begin_index(0)
        path: Any = field.path
        if len(marks) > nfe:
            raise BudgetError(f"a run of {self.scheduler} takes {len(marks)} network calls; got nfe={nfe}")
        if flow:
            level = scheduler.sigmas[: len(marks)].double()
            times = path.t_of_log_snr(2 * ((1 - level).log() - level.log()))
        else:
            times = 1 - (marks.double() + 1) / TRAINED
        network = _Network(field, cond, scheduler, flow, times)
        y = x0 if flow else x0 * float(scheduler.init_noise_sigma)
        for i, mark in enumerate(marks):
            y = scheduler.step(network(i, mark, y), mark, y).prev_sample
        end: Tensor = y * float(path.alpha(torch.ones((), dtype=torch.float64)))
        return end

    def solve(
        self,
        field: Field,
        x: Tensor,
        times: Tensor,
        *,
        cond: Any = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Carries states x `(B, *D)` from `times[0]` to `times[-1]`, by the scheduler's steps on these times.

        Its last steps are of lower order where diffusers takes them so, whether they end at the data or not.
        """
        grid, stages = check_times(times), self.evals_per_step
        scheduler, flow = _fresh(self, field.path)
        level, scale = _placed(field.path, grid, flow)
        if self.scheduler == _EXPLODING:
            scale = scale / (1 + level.square()).sqrt()
        asked, level = (each.repeat_interleave(2)[1:-1] if stages == 2 else each for each in (grid, level))
        marks = _place(scheduler, level, stages * (len(grid) - 1))
        network = _Network(field, cond, scheduler, flow, asked)
        y, scales = x / float(scale[0]), scale.tolist()
        if on_step:
            on_step(float(grid[0]), x)
        for i, mark in enumerate(marks):
            y = scheduler.step(network(i, mark, y), mark, y).prev_sample
            done, between = divmod(i + 1, stages)
            if on_step and not between:
                on_step(float(grid[done]), y * scales[done])
        last: Tensor = y * scales[-1]
        return last


class _Network:
    """The field as a scheduler asks for it: its state, and what it is told."""

    def __init__(self, field: Field, cond: Any, scheduler: Any, flow: bool, times: Tensor) -> None:
        self.field, self.cond, self.scheduler, self.flow = field, cond, scheduler, flow
        span = field.span({Prediction.VELOCITY} if flow else {Prediction.NOISE})
        self.times = times.clamp(*span).tolist()
        self.scales = _placed(field.path, times, flow)[1].tolist()

    def __call__(self, i: int, mark: Tensor, y: Tensor) -> Tensor:
        """What the scheduler is told at its i-th call, in state y."""
        field, t, scale = self.field, self.times[i], self.scales[i]
        if not self.flow:
            state = scale * self.scheduler.scale_model_input(y, mark)
            noise: Tensor = field.predict(state, t, self.cond, Prediction.NOISE)
            return noise
        ends: tuple[Tensor, Tensor] = field.predict(scale * y, t, self.cond, Prediction.NOISE, Prediction.DATA)
        return ends[0] - ends[1]


def _fresh(solver: Scheduled, path: Any) -> tuple[Any, bool]:
    """A scheduler for one run, and whether it is one of flows."""
    made, flow = _prototype(solver, path)
    return copy.copy(made), flow


@functools.lru_cache(maxsize=64)
def _prototype(solver: Scheduled, path: Any) -> tuple[Any, bool]:
    make: Callable[..., Any] = getattr(diffusers, solver.scheduler)
    if solver.scheduler.startswith("FlowMatch"):
        return make(), True
    multistep = {"solver_order": solver.order} if "Multistep" in solver.scheduler else {}
    if multistep and solver.spacing is None and not solver.karras and is_linear(path):
        return make(prediction_type="flow_prediction", use_flow_sigmas=True, **multistep), True
    options: dict[str, Any] = {"timestep_spacing": solver.spacing or "linspace", **multistep}
    if solver.scheduler == "DDIMScheduler":
        options["clip_sample"] = False
    if solver.karras:
        options["use_karras_sigmas"] = True
    return make(num_train_timesteps=TRAINED, trained_betas=_betas(path), prediction_type="epsilon", **options), False


def _betas(path: ProbabilityPath) -> Any:
    """β_k of the discrete schedule that has the path's ratio of data to noise at t = 1 − (k + 1)/1000."""
    alpha, sigma = levels(path, 1 - (torch.arange(TRAINED, dtype=torch.float64) + 1) / TRAINED)
    kept = (alpha.square() / (alpha.square() + sigma.square())).clamp(min=LEAST)
    return (1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])).numpy()


def _placed(path: ProbabilityPath, times: Tensor, flow: bool) -> tuple[Tensor, Tensor]:
    """The levels s of times, and the scales c of their states."""
    alpha, sigma = levels(path, times)
    if flow:
        return (sigma / (alpha + sigma)).clamp(max=HIGHEST), alpha + sigma
    return (sigma / alpha).clamp(max=LEAST**-0.5), (alpha.square() + sigma.square()).sqrt()


def _place(scheduler: Any, level: Tensor, calls: int) -> Tensor:
    """Sets the noise levels of a scheduler; gives its marks, one for each call."""
    if hasattr(scheduler, "final_alpha_cumprod"):  # DDIM steps from each time of its table to the next
        table = 1 / (1 + level.square())
        scheduler.num_inference_steps = TRAINED
        scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = table[:-1].flip(0), table[-1]
        return torch.arange(calls).flip(0)
    scheduler.set_timesteps(calls)
    scheduler.sigmas = level
    scheduler.timesteps = torch.arange(float(calls))
    scheduler.set_begin_index(0)
    marks: Tensor = scheduler.timesteps
    return marks


def flow_euler() -> Scheduled:
    """FlowMatchEulerDiscreteScheduler."""
    return Scheduled("FlowMatchEulerDiscreteScheduler")


def flow_heun() -> Scheduled:
    """FlowMatchHeunDiscreteScheduler."""
    return Scheduled("FlowMatchHeunDiscreteScheduler", 2)


def ddim() -> Scheduled:
    """DDIMScheduler, on trailing times."""
    return Scheduled("DDIMScheduler", 1, "trailing")


def heun(*, spacing: str = "linspace", karras: bool = False) -> Scheduled:
    """HeunDiscreteScheduler."""
    return Scheduled(_EXPLODING, 2, spacing, karras)


def dpmpp(order: int = 2, *, spacing: str | None = None, karras: bool = False) -> Scheduled:
    """DPMSolverMultistepScheduler: DPM-Solver++ 2M and 3M."""
    return Scheduled("DPMSolverMultistepScheduler", order, spacing, karras)


def unipc(order: int = 2, *, spacing: str | None = None, karras: bool = False) -> Scheduled:
    """UniPCMultistepScheduler."""
    return Scheduled("UniPCMultistepScheduler", order, spacing, karras)


def deis(order: int = 2, *, spacing: str | None = None, karras: bool = False) -> Scheduled:
    """DEISMultistepScheduler."""
    return Scheduled("DEISMultistepScheduler", order, spacing, karras)
