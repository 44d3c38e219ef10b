"""Log-probabilities of a stochastic table's transitions: what reinforcement learning of a sampler needs.

A row with noise, `y_{s+1} = mean_s + noise_s·z`, z ~ N(0, I), is a Gaussian transition given the states before it,

    log p(y_{s+1} | y_0 … y_s) = −½·‖(y_{s+1} − mean_s)/noise_s‖² − D·(log noise_s + ½·log 2π),

with D the numbers of one event. Rows without noise are functions of the earlier states and have none. While sampling,
(y_{s+1} − mean_s)/noise_s is the drawn z itself. Afterwards `transition_log_prob` computes the means again from the
recorded states, under another (fine-tuned) network and with gradients: the ratio of the two is the importance weight of
policy-gradient methods, and the gradient alone is REINFORCE's score function. States of rows without noise are computed
again on the way, so a step of many rows (a noisy one, then Heun's two) is differentiated through.

References:
    Black et al. 2024, Training diffusion models with reinforcement learning, equation 6. https://arxiv.org/abs/2305.13301
    Liu et al. 2025, Flow-GRPO. https://arxiv.org/abs/2505.05470
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve, field as attribute, frozen
from torch import Tensor

from fm_core.errors import ArgumentError, CompatError, ShapeError
from fm_core.field import Field
from fm_core.guiding import of_rows
from fm_core.levels import levels
from fm_core.plan import Plan
from fm_core.shapes import check_batch, time_dtype

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["Recorder", "Transitions", "joined", "noisy_rows", "require_transitions", "transition_log_prob"]


@frozen(eq=False)
class Transitions:
    """The noisy states of one run, with the probabilities under which they were drawn.

    Args:
        plan: The table that was run.
        first: First state y_0, shape `(B, *D)`.
        states: The states made by noisy rows, shape `(R, B, *D)`.
        log_prob: Log-probability of each given the states before it, shape `(B, R)`, in nats.
        levels: α and σ of the path at every state of the plan, float64 `(2, S+1)`; None where they are not known.
        samples: Which samples of the run these are, `(B,)`: a guidance may hold something for each. All in order for
            None.
    """

    plan: Plan
    first: Tensor
    states: Tensor
    log_prob: Tensor
    levels: Tensor | None = None
    samples: Tensor | None = None

    @property
    def rows(self) -> tuple[int, ...]:
        """The noisy rows of the plan, rising."""
        return noisy_rows(self.plan)

    @property
    def times(self) -> tuple[float, ...]:
        """The time of every recorded state."""
        return tuple(self.plan.rows[s].t for s in self.rows)

    def select(self, samples: Any) -> Transitions:
        """Those of some samples, by a slice, list, mask or index tensor: a minibatch.

        Raises:
            ShapeError: If they are no samples of this run, or a single one's bare number.
        """
        try:
            log_prob = self.log_prob[samples]
        except (IndexError, TypeError) as error:
            raise ShapeError(f"select takes samples of these {len(self.first)}; got {samples!r}: {error}") from error
        if log_prob.ndim != 2:
            raise ShapeError(f"select keeps the batch: give a slice or a list, as in select([{samples!r}])")
        places = torch.arange(len(self.first)) if self.samples is None else self.samples
        chosen = samples.cpu() if isinstance(samples, Tensor) else samples
        return evolve(
            self,
            first=self.first[samples],
            states=self.states[:, samples],
            log_prob=log_prob,
            samples=places[chosen],
        )


@frozen(eq=False)
class Recorder:
    """Collects the transitions of one run: `start` before it, then called as its `on_noise`.

    Args:
        plan: The table that is run.
        path: The path that it was made for.
    """

    plan: Plan
    path: Any = None
    _first: list[Tensor] = attribute(factory=list, init=False)
    _kept: list[Tensor] = attribute(factory=list, init=False)
    _log_prob: list[Tensor] = attribute(factory=list, init=False)

    def start(self, first: Tensor) -> None:
        """The first state, `(B, *D)`."""
        self._first.append(first)

    def __call__(self, s: int, x: Tensor, z: Tensor) -> None:
        """The state that row s made with the noise z, both `(B, *D)`."""
        self._kept.append(x)
        self._log_prob.append(_log_density(z, self.plan.rows[s].noise))

    def transitions(self) -> Transitions:
        """What was collected."""
        kept, log_prob = torch.stack(self._kept), torch.stack(self._log_prob, 1)
        return Transitions(self.plan, self._first[0], kept, log_prob, _levels(self.path, self.plan))


def joined(parts: Sequence[Transitions]) -> Transitions:
    """The transitions of chunks as one run's."""
    samples = [part.samples for part in parts if part.samples is not None]
    return Transitions(
        parts[0].plan,
        torch.cat([part.first for part in parts]),
        torch.cat([part.states for part in parts], 1),
        torch.cat([part.log_prob for part in parts]),
        parts[0].levels,
        torch.cat(samples) if len(samples) == len(parts) else None,
    )


def noisy_rows(plan: Plan) -> tuple[int, ...]:
    """The rows of a plan that add noise."""
    return tuple(s for s, row in enumerate(plan.rows) if row.noise)


def require_transitions(plan: Plan | None, title: str) -> Plan:
    """The plan, if it has noisy rows.

    Raises:
        CompatError: If there is no table, or nothing random in it.
    """
    if plan is not None and plan.stochastic:
        return plan
    from fm_core.compat import Problem

    why = (
        "its steps are no rows of a table with known weights and noise"
        if plan is None
        else "it adds no noise: given the first state its samples are certain, and no transition has a density"
    )
    fix = "use a stochastic table: solver='ddpm', {'name': 'ddim', 'eta': 1.0}, 'euler_maruyama', …"
    raise CompatError([Problem(f"log_prob=True with {title}", why, fix)])


def _log_density(z: Tensor, noise: float) -> Tensor:
    """log N(noise·z; 0, noise²·I) for every sample, `(B,)`."""
    flat = z.flatten(1)
    return -0.5 * flat.square().sum(1) - flat.shape[1] * (math.log(abs(noise)) + 0.5 * math.log(2 * math.pi))


def transition_log_prob(
    pipeline: Pipeline, transitions: Transitions, cond: Any = None, *, only: Iterable[int] | None = None
) -> Tensor:
    """Log-probabilities of recorded transitions under this pipeline's field, with gradients to its network.

    Equal to `transitions.log_prob` to rounding where the network is the one that drew them.

    Args:
        pipeline: Pipeline on the same path, of the network whose probabilities are asked for.
        transitions: From `pipe.sample(…, log_prob=True).transitions`.
        cond: Condition of the run, any pytree with the batch first.
        only: Places 0 … R−1 of the transitions to compute; only the network calls that they need are made, and those
            before them where a guidance remembers. All for None.

    Returns:
        Log-probabilities, shape `(B, R)`, or `(B, len(only))` in the order asked for.

    Raises:
        ArgumentError: For what are no transitions, or no places of them.
        ShapeError: If there is no such transition, or the condition has another batch.
        CompatError: If the pipeline's path has other noise levels than the run's.
        TimeError: If the network's predictions do not determine those of the table.
    """
    if not isinstance(transitions, Transitions):
        raise ArgumentError(
            f"transitions are what pipe.sample(…, log_prob=True).transitions holds; got {type(transitions).__name__}"
        )
    _require_same_levels(pipeline.path, transitions)
    count = len(transitions.states)
    chosen = list(range(count)) if only is None else _places(only)
    if any(not 0 <= i < count for i in chosen):
        raise ShapeError(f"only= names transitions 0 … {count - 1} of this run; got {chosen}")
    check_batch(cond, len(transitions.first), "cond")
    samples, guidance = transitions.samples, pipeline.guidance
    selected = guidance if samples is None else tuple(of_rows(each, samples) for each in guidance)
    field, plan = Field(pipeline.model, pipeline.path, selected), transitions.plan
    if plan.space not in field.arriving:
        plan = plan.rebase(pipeline.path, field.native)
    run = _Replay(plan, field, transitions, cond)
    rows, found = transitions.rows, {}
    for i in sorted(set(chosen)):
        z = (transitions.states[i] - run.mean(rows[i])) / plan.rows[rows[i]].noise
        found[i] = _log_density(z, plan.rows[rows[i]].noise)
    return torch.stack([found[i] for i in chosen], 1) if chosen else transitions.log_prob[:, :0]


def _places(only: Iterable[int]) -> list[int]:
    chosen = list(only) if isinstance(only, Iterable) and not isinstance(only, str | bytes) else None
    if chosen is None or any(isinstance(i, bool) or not isinstance(i, Integral) for i in chosen):
        raise ArgumentError(f"only= lists places of transitions, whole numbers as in only=[0, 3]; got {only!r}")
    return [int(i) for i in chosen]


def _levels(path: Any, plan: Plan) -> Tensor | None:
    """α and σ at the times of a plan's states, float64 `(2, S+1)`; None for a path without."""
    if not callable(getattr(path, "alpha", None)) or not callable(getattr(path, "sigma", None)):
        return None
    return torch.stack(levels(path, torch.tensor(plan.state_times, dtype=torch.float64))).detach()


def _require_same_levels(path: Any, transitions: Transitions) -> None:
    here = None if transitions.levels is None else _levels(path, transitions.plan)
    if here is None or torch.allclose(here, transitions.levels, rtol=1e-5, atol=1e-7):  # type: ignore[arg-type]
        return
    from fm_core.compat import Problem

    why = (
        "the weights of a table are those of one path: on another its means are not those of the states that were drawn"
    )
    fix = "take the log-probabilities on the path of the run: pipe.replace(path=…)"
    raise CompatError([Problem("these transitions were drawn on a path with other noise levels", why, fix)])


@frozen(eq=False)
class _Replay:
    """The rows of a plan computed on demand, the noisy states being those recorded."""

    plan: Plan
    field: Field
    transitions: Transitions
    cond: Any
    _states: dict[int, Tensor] = attribute(init=False)
    _predictions: dict[int, Tensor] = attribute(factory=dict, init=False)
    _times: tuple[Tensor, ...] = attribute(init=False)
    _going_to: dict[int, int] = attribute(init=False)

    @_states.default
    def _recorded(self) -> dict[int, Tensor]:
        states = {s + 1: x for s, x in zip(self.transitions.rows, self.transitions.states, strict=True)}
        return {0: self.transitions.first} | states

    @_times.default
    def _clock(self) -> tuple[Tensor, ...]:
        first = self.transitions.first
        return self.plan.clock(len(first), time_dtype(first.dtype), first.device)

    @_going_to.default
    def _targets(self) -> dict[int, int]:
        return {j: target for row in self.plan.program for j, target in row.evaluate}

    def mean(self, s: int) -> Tensor:
        """What row s adds its noise to, `(B, *D)`."""
        row = self.plan.rows[s]
        terms = [weight * self.state(k) for k, weight in row.states]
        terms += [weight * self.prediction(j) for j, weight in row.predictions]
        return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]

    def state(self, k: int) -> Tensor:
        """The state y_k, as recorded if noise made it."""
        missing = k
        while missing not in self._states and missing - 1 not in self._states:
            missing -= 1
        for index in range(missing, k + 1):  # upwards, or a long deterministic stretch would nest too deep
            if index not in self._states:
                self._states[index] = self.mean(index - 1)
        return self._states[k]

    def prediction(self, j: int) -> Tensor:
        """The prediction p_j, asked for once."""
        if j not in self._predictions:
            self._predictions[j] = self._asked(j)
            if self.field.remembers:
                self._remember(j)
        return self._predictions[j]

    def _remember(self, j: int) -> None:
        """Asks again for all up to p_j in the order of the run, if some of it was left out."""
        order = list(self._going_to)
        asked = order[: order.index(j) + 1]
        if not self._predictions.keys() >= set(asked):
            self.field.forget()
            for k in asked:
                self._predictions[k] = self._asked(k)

    def _asked(self, j: int) -> Tensor:
        until = self._times[self._going_to[j]]
        asked = self.field.ask(self.state(j), self._times[j], self.cond, (self.plan.space,), until)
        return asked.to(self.transitions.first.dtype)  # type: ignore[no-any-return]
