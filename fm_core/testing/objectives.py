"""What every objective keeps: one loss a sample, weights that are not negative, and the right minimiser.

A matching objective regresses on a conditional target; its gradient equals that of the regression on the marginal,
since the two losses differ by a constant. So at the exact field of a mixture the loss is stationary in every direction
δ: `E[loss(f + δ) − loss(f − δ)] = 0`, which is measured in units of its own standard error.

References:
    Lipman et al. 2023, Theorem 2. https://arxiv.org/abs/2210.02747
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fm_core.field import Field
from fm_core.prediction import GAUSSIAN_KINDS, Prediction, as_prediction
from fm_core.protocols import Objective, PathSample, span_of
from fm_core.randomness import make_generator
from fm_core.testing.fields import MIXTURE, PATHS
from fm_core.testing.guidances import LABELS, Conditional
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.traces import global_randomness

__all__: list[str] = []

POINTS = 40_000

DEVIATIONS = 4.5
"""Standard errors by which a mean may be off from 0: eight are looked at, always with the same draws."""

EVENTS = ((12,), (3, 2, 2), (1, 3, 4))
"""Shapes of the same twelve numbers."""

DIRECTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a constant": lambda x, t: torch.ones_like(x),
    "the state": lambda x, t: x,
    "the time": lambda x, t: (t[:, None] - 0.5).expand_as(x),
    "a wave": lambda x, t: torch.sin(2 * x) * torch.cos(3 * t[:, None]),
}


class _Moved:
    """The exact prediction of a mixture, moved by `size·δ(x, t)`."""

    def __init__(self, path: Any, kind: Prediction, size: float = 0.0, direction: Any = None) -> None:
        self.predicts = (kind,)
        self.path, self.kind, self.size, self.direction = path, kind, size, direction

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        exact = MIXTURE.predict(self.path, self.kind, x_t, t)
        return exact + self.size * self.direction(x_t, t) if self.size else exact


def _kind(objective: Objective) -> Prediction:
    """The kind that the kit's networks predict: one that it needs. A field converts it to the others."""
    kinds = sorted(objective.needs)
    if not kinds or not set(kinds) <= GAUSSIAN_KINDS:
        raise Skipped(f"it needs {', '.join(map(str, kinds)) or 'nothing'}: the kit's paths are Gaussian")
    return as_prediction(kinds[0])


def _points(objective: Objective, path: Any, n: int = POINTS, event: tuple[int, ...] = (2,)) -> PathSample:
    """Training points of the mixture, or of as much of it as an event of another shape holds, by rows."""
    generator = make_generator(0)
    x1 = MIXTURE(n * (math.prod(event) // 2), generator).reshape(n, *event)
    x0 = path.sample_source((n, math.prod(event)), generator=generator, dtype=torch.float64).reshape(n, *event)
    t = objective.sample_time(path, n, generator=generator).to(torch.float64)
    sample: PathSample = path.interpolate(x0, x1, t, generator=generator)
    return sample


@check_of("objective")
def times(subject: Subject) -> None:
    """Training times are `(B,)`, inside the span of the path, for every batch size."""
    objective = subject.build()
    for path in PATHS.values():
        low, high = span_of(path, _kind(objective), objective.needs)
        for n in (1, 2, 4096):
            t = objective.sample_time(path, n, generator=make_generator(0))
            if t.shape != (n,) or not t.is_floating_point() or not bool(t.isfinite().all()):
                raise Failed(f"{n} times must be ({n},), floating point and finite; got {tuple(t.shape)} of {t.dtype}")
            if float(t.min()) < low - 1e-6 or float(t.max()) > high + 1e-6:
                raise Failed(
                    f"times run from {float(t.min()):.6g} to {float(t.max()):.6g}; the span is [{low}, {high}]"
                )


@check_of("objective")
def one_loss_a_sample(subject: Subject) -> None:
    """The loss is `(B,)`, unreduced, finite and not negative, for vectors, images and a batch of one."""
    objective, path = subject.build(), PATHS["linear"]
    kind = _kind(objective)
    for shape in ((1, 2), (5, 3), (4, 4), (2, 1, 4, 4)):
        generator = make_generator(1)
        x0, x1 = torch.randn(2, *shape, generator=generator)
        sample = path.interpolate(x0, x1, objective.sample_time(path, shape[0], generator=generator))
        loss = objective.loss(Field(_Zero(kind), path), sample)
        if loss.shape != shape[:1]:
            raise Failed(
                f"a batch {shape} has the loss {tuple(loss.shape)}; expected ({shape[0]},), one for each sample"
            )
        if not bool(loss.isfinite().all()) or float(loss.min()) < 0:
            raise Failed(f"a loss is {float(loss.min()):.3g}: negative, or not finite", float(loss.min()))


class _Zero:
    def __init__(self, kind: Prediction) -> None:
        self.predicts = (kind,)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return torch.zeros_like(x_t)


@check_of("objective")
def samples_are_independent(subject: Subject) -> float:
    """The loss of a sample does not depend on the others of its batch."""
    objective, path = subject.build(), PATHS["linear"]
    field, sample = Field(_Moved(path, _kind(objective)), path), _points(objective, path, 6)
    whole = objective.loss(field, sample)
    alone = torch.cat([objective.loss(field, _row(sample, i)) for i in range(6)])
    return at_most(float(((alone - whole).abs() / (1 + whole.abs())).max()), 1e-9, "alone, a sample's loss differs by")


def _row(sample: PathSample, i: int) -> PathSample:
    extra = {name: value[i : i + 1] for name, value in sample.extra.items()}
    rows = slice(i, i + 1)
    return PathSample(sample.x_t[rows], sample.t[rows], sample.x0[rows], sample.x1[rows], extra)


@check_of("objective")
def images_are_rows_of_numbers(subject: Subject) -> float:
    """The loss of an image is that of the same numbers in a row: no pixel counts for more, or not at all."""
    objective, path = subject.build(), PATHS["linear"]
    field = Field(Conditional(path, _kind(objective), EVENTS[0]), path)
    worst = 0.0
    for n in (1, 3, 5):
        flat, *images = (objective.loss(field, _points(objective, path, n, event)) for event in EVENTS)
        worst = max(worst, *(float(((loss - flat).abs() / (1 + flat.abs())).max()) for loss in images))
    return at_most(worst, 1e-9, "reshaped, the same numbers have another loss, by")


@check_of("objective")
def condition_reaches_the_network(subject: Subject) -> float:
    """Every sample's loss is that of what the network answers to its own condition, be it a tensor or a pytree.

    A network that is told the labels of a mixture is compared with networks that know one label each.
    """
    objective, worst = subject.build(), 0.0
    for path in PATHS.values():
        sample, labels = _points(objective, path, 7), torch.arange(7) % LABELS
        model = Conditional(path, _kind(objective))
        for cond, read in ((labels, lambda cond, n: cond), ({"label": labels}, lambda cond, n: cond and cond["label"])):
            told = objective.loss(Field(_Labelled(model, read), path), sample, cond)
            known = [objective.loss(Field(_Labelled(model, _always(k)), path), sample, cond) for k in range(LABELS)]
            expected = torch.stack(known)[labels, torch.arange(7)]
            worst = max(worst, float(((told - expected).abs() / (1 + expected.abs())).max()))
    return at_most(worst, 1e-9, "the loss is off from that of the conditional answer by")


def _always(label: int) -> Callable[[Any, int], Tensor]:
    return lambda cond, n: torch.full((n,), label)


class _Labelled:
    """A labelled model that reads its labels from the condition by `read(cond, B)`."""

    def __init__(self, model: Conditional, read: Callable[[Any, int], Tensor]) -> None:
        self.predicts, self.model, self.read = model.predicts, model, read

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return self.model(x_t, t, self.read(cond, len(x_t)))


@check_of("objective")
def weights_are_not_negative(subject: Subject) -> float:
    """Every sample's loss curves upwards in the prediction, so none is weighted negatively, and some are positively."""
    objective, path = subject.build(), PATHS["linear"]
    kind, sample = _kind(objective), _points(objective, path, 2000)
    far = DIRECTIONS["a constant"]
    losses = [objective.loss(Field(_Moved(path, kind, size, far), path), sample) for size in (-1.0, 0.0, 1.0)]
    curvature = losses[0] + losses[2] - 2 * losses[1]
    least = float(curvature.min())
    if least < -1e-9 or float(curvature.max()) <= 0:
        raise Failed(f"moving the prediction changes a loss by {least:.3g} to second order: a negative weight", least)
    return least


@check_of("objective")
def minimiser_is_the_exact_field(subject: Subject) -> float:
    """At the conditional expectation the loss is stationary in every direction, on every path."""
    objective, worst = subject.build(), 0.0
    for path in PATHS.values():
        sample = _points(objective, path)
        for name, direction in DIRECTIONS.items():
            found = _deviations(_slope(objective, path, sample, direction))
            if not found <= DEVIATIONS:
                raise Failed(
                    f"in the direction of {name} the loss falls away from the exact field by {found:.1f} of its "
                    "standard errors",
                    found,
                )
            worst = max(worst, found)
    return worst


@check_of("objective")
def gradient_is_the_marginals(subject: Subject) -> float:
    """Away from the minimum too, its mean gradient is that of the regression on the expected target.

    The latter is the loss of a sample whose ends x0 and x1 are replaced by their means given x_t.
    """
    objective, worst = subject.build(), 0.0
    for path in PATHS.values():
        sample = _points(objective, path)
        x1, x0 = (MIXTURE.predict(path, kind, sample.x_t, sample.t) for kind in (Prediction.DATA, Prediction.NOISE))
        expected = PathSample(sample.x_t, sample.t, x0, x1, sample.extra)
        for name, direction in DIRECTIONS.items():
            slopes = [_slope(objective, path, s, direction, about=0.5) for s in (sample, expected)]
            found = _deviations(slopes[0] - slopes[1])
            if not found <= DEVIATIONS:
                raise Failed(
                    f"along {name} the gradient differs from the marginal loss's by {found:.1f} standard errors", found
                )
            worst = max(worst, found)
    return worst


def _slope(objective: Objective, path: Any, sample: PathSample, direction: Any, about: float = 0.0) -> Tensor:
    """How much every sample's loss rises along a direction, from `about` times it."""
    kind = _kind(objective)
    up, down = (
        objective.loss(Field(_Moved(path, kind, about + size, direction), path), sample) for size in (1e-2, -1e-2)
    )
    return up - down


def _deviations(values: Tensor) -> float:
    """The mean's distance from 0, in standard errors."""
    return abs(float(values.mean())) / (float(values.std()) / math.sqrt(len(values)) + 1e-300)


@check_of("objective")
def exact_field_is_better(subject: Subject) -> float:
    """Moved off the conditional expectation in any direction, the mean loss is larger."""
    objective, least = subject.build(), math.inf
    for path in PATHS.values():
        kind, sample = _kind(objective), _points(objective, path)
        exact = objective.loss(Field(_Moved(path, kind), path), sample).mean()
        for name, direction in DIRECTIONS.items():
            for size in (-1.0, 1.0):
                moved = objective.loss(Field(_Moved(path, kind, size, direction), path), sample).mean()
                gain = float((moved - exact) / (exact.abs() + 1e-12))
                if gain <= 0:
                    raise Failed(f"moved by {size:+g} times {name}, the loss is {-gain:.2g} of itself smaller", gain)
                least = min(least, gain)
    return least


@check_of("objective")
def half_precision_is_finite(subject: Subject) -> float:
    """On bfloat16 states the loss is finite, near that of float32."""
    objective, path = subject.build(), PATHS["linear"]
    kind, sample = _kind(objective), _points(objective, path, 256)
    values = []
    for dtype in (torch.float32, torch.bfloat16):
        x_t, x0, x1 = (x.to(dtype) for x in (sample.x_t, sample.x0, sample.x1))
        loss = objective.loss(Field(_Zero(kind), path), PathSample(x_t, sample.t.float(), x0, x1, sample.extra))
        if not bool(loss.isfinite().all()):
            raise Failed(f"a loss on {dtype} states is not finite")
        values.append(float(loss.float().mean()))
    return at_most(abs(values[1] / values[0] - 1), 0.05, "relative difference of the mean loss in bfloat16")


@check_of("objective")
def gradients_reach_the_prediction(subject: Subject) -> float:
    """The loss can be differentiated by what the network returns."""
    objective, path = subject.build(), PATHS["linear"]
    kind, sample = _kind(objective), _points(objective, path, 8)
    shift = torch.zeros(8, 2, dtype=torch.float64, requires_grad=True)
    moved = _Moved(path, kind, 1.0, lambda x, t: shift + 0.1)
    (gradient,) = torch.autograd.grad(objective.loss(Field(moved, path), sample).sum(), shift)
    size = float(gradient.abs().max())
    if not size > 0 or not math.isfinite(size):
        raise Failed(f"the largest gradient is {size}: does the objective detach the prediction?", size)
    return size


@check_of("objective")
def randomness(subject: Subject) -> None:
    """Equal generators give equal times, others give others; the loss of a sample draws nothing."""
    objective, path = subject.build(), PATHS["linear"]
    kind, sample = _kind(objective), _points(objective, path, 16)

    def draw(seed: int) -> Tensor:
        times = objective.sample_time(path, 16, generator=make_generator(seed))
        return torch.cat([times.double(), objective.loss(Field(_Zero(kind), path), sample).double()])

    global_randomness(lambda: draw(0))
    if not torch.equal(draw(1), draw(1)):
        raise Failed("two draws from equally seeded generators differ")
    if torch.equal(*(objective.sample_time(path, 16, generator=make_generator(seed)) for seed in (1, 2))):
        raise Failed("generators of two seeds give the same times: the times do not come from the generator")
