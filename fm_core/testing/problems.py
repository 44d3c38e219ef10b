"""What every benchmark problem keeps: its reference is the flow's end, and what it draws is what it says.

The flow is solved once more, by other means than a problem is likely to use: in the angle θ = atan2(α, σ), in which
`d(x/r)/dθ = −v/r` with r = √(α² + σ²), by the classical Runge–Kutta method with two numbers of steps, whose difference
says how exact that is.

References:
    Salimans & Ho 2022, appendix D. https://arxiv.org/abs/2202.00512
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fm_core.bench.problem import BenchProblem
from fm_core.evaluating import evaluating
from fm_core.field import Field
from fm_core.prediction import Prediction
from fm_core.protocols import declared
from fm_core.randomness import make_generator
from fm_core.shapes import map_tensors, tensors_of
from fm_core.testing.building import MEMBERS
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.traces import global_randomness

__all__: list[str] = []

MEMBERS["problem"] = (
    "title",
    "pipeline",
    "event_shape",
    "exact",
    "condition",
    "reference",
    "truth",
)

ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-11}
"""Of a thousand steps, relative to the size of the ends."""

EXACT = 1e-9
"""What a closed form's reference is good to."""


def _source(problem: BenchProblem, n: int, seed: int = 0) -> tuple[Tensor, Any]:
    """Source samples and conditions, in the dtype of the network; float64 for a closed form."""
    generator = make_generator(seed)
    device, dtype = problem.pipeline.placement
    x0 = problem.pipeline.path.sample_source(
        (n, *problem.event_shape), generator=generator, dtype=torch.float64 if problem.exact else dtype
    )
    return x0.to(device), problem.condition(n, generator)


def _distance(a: Tensor, b: Tensor) -> float:
    """Root mean square over the coordinates, of the worst row."""
    return float((a.double() - b.double()).flatten(1).square().mean(1).sqrt().max())


@check_of("problem")
def shapes(subject: Subject) -> None:
    """References are `(n, *D)`, float64 and finite, for one sample and for several, and D is `event_shape`."""
    problem: BenchProblem = subject.build()
    for n in (1, 3):
        x0, cond = _source(problem, n)
        ends = problem.reference(x0, cond)
        if not isinstance(ends, Tensor) or ends.shape != x0.shape or ends.dtype != torch.float64:
            got = f"{tuple(ends.shape)} of {ends.dtype}" if isinstance(ends, Tensor) else type(ends).__name__
            raise Failed(f"references of {n} samples must be {tuple(x0.shape)}, float64; got {got}")
        if not bool(ends.isfinite().all()):
            raise Failed("a reference is not finite")


@check_of("problem")
def reference_is_the_end_of_the_flow(subject: Subject) -> float:
    """The reference is where the pipeline's flow ends, to its stated error, by an independent fine solver.

    A closed form states at most 1e-9. The figure is the distance of the worst of a few trajectories, less what the
    independent solver itself may be wrong by.
    """
    problem: BenchProblem = subject.build()
    if problem.exact:
        at_most(problem.reference_error, EXACT, "the error stated for a closed form")
    x0, cond = _source(problem, 6 if problem.exact else 2)
    steps = 160 if problem.exact else 30
    with torch.no_grad(), evaluating(problem.pipeline.model):
        coarse, fine = (_flow(problem, x0, cond, n) for n in (steps, 2 * steps))
    order = 7 if problem.exact else 1  # a network may be too rough in time for the fourth order to show
    doubt = _distance(coarse, fine) / order + ROUNDING[x0.dtype] * float(fine.square().mean().sqrt())
    off = max(0.0, _distance(problem.reference(x0, cond), fine) - doubt)
    return at_most(off, problem.reference_error, "distance of the reference from the end of the flow")


def _flow(problem: BenchProblem, x0: Tensor, cond: Any, steps: int) -> Tensor:
    """The end of the flow by `steps` steps of the classical Runge–Kutta method in the angle."""
    path: Any = problem.pipeline.path
    if not all(hasattr(path, name) for name in ("alpha", "sigma", "t_of_log_snr")):
        raise Skipped(f"{type(path).__name__} is no Gaussian path: the kit has no independent solver for it")
    field = Field(problem.pipeline.model, path, problem.pipeline.guidance)
    if field.span({Prediction.V}) != (0.0, 1.0):
        raise Skipped("its network is not asked at both ends of time: a run is closed by what is no flow")
    start, end = (torch.tensor(t, dtype=torch.float64) for t in (0.0, 1.0))
    first, last = (math.atan2(float(path.alpha(t)), float(path.sigma(t))) for t in (start, end))

    def time(theta: float) -> Tensor:
        if theta in (first, last):
            return start if theta == first else end
        t: Tensor = path.t_of_log_snr(torch.tensor(2 * math.log(math.tan(theta)), dtype=torch.float64))
        return t

    def radius(t: Tensor) -> Tensor:
        return torch.hypot(path.alpha(t), path.sigma(t)).to(x0)

    def slope(z: Tensor, theta: float) -> Tensor:
        t = time(theta)
        v: Tensor = field.predict(z * radius(t), t, cond, Prediction.V)
        return -v / radius(t)

    z = x0 * path.sigma(start).to(x0) / radius(start)
    step = (last - first) / steps
    for i in range(steps):
        theta, middle = first + i * step, first + (i + 0.5) * step
        then = last if i == steps - 1 else theta + step
        k1 = slope(z, theta)
        k2 = slope(z + step / 2 * k1, middle)
        k3 = slope(z + step / 2 * k2, middle)
        z = z + step / 6 * (k1 + 2 * k2 + 2 * k3 + slope(z + step * k3, then))
    ends: Tensor = z * radius(end)
    if declared(path, "closing"):
        ends = field.predict(ends, end, cond, Prediction.DATA)
    return ends


@check_of("problem")
def rows_are_independent(subject: Subject) -> float:
    """A sample's reference depends on its own source sample and condition alone, not on the others of the batch."""
    problem: BenchProblem = subject.build()
    x0, cond = _source(problem, 4)
    alone = problem.reference(x0[1:2], map_tensors(lambda tensor: tensor[1:2], cond))
    together = problem.reference(x0, cond)[1:2]
    bound = 2 * problem.reference_error + ROUNDING[x0.dtype] * float(together.square().mean().sqrt())
    return at_most(_distance(alone, together), bound, "change of a reference with the rest of the batch")


@check_of("problem")
def condition_follows(subject: Subject) -> None:
    """Conditions have the batch first, follow the generator alone, and decide where the flow ends."""
    problem: BenchProblem = subject.build()
    cond = problem.condition(5, make_generator(1))
    if cond is None:
        raise Skipped("its network takes no condition")
    found = tensors_of(cond)
    if not found or any(len(tensor) != 5 for tensor in found):
        raise Failed(f"conditions of 5 samples have the shapes {[tuple(tensor.shape) for tensor in found]}")
    global_randomness(lambda: torch.cat([c.flatten().double() for c in tensors_of(problem.condition(40, _seeded()))]))
    if not _equal(problem.condition(40, _seeded()), problem.condition(40, _seeded())):
        raise Failed("two draws from equally seeded generators differ")
    if _equal(problem.condition(40, _seeded()), problem.condition(40, _seeded(2))):
        raise Failed("conditions do not depend on the generator")
    x0, cond = _source(problem, 16)
    turned = map_tensors(lambda tensor: tensor.roll(1, 0), cond)
    if not _distance(problem.reference(x0, cond), problem.reference(x0, turned)) > 10 * problem.reference_error:
        raise Failed("the reference is the same under other conditions")


def _seeded(seed: int = 1) -> torch.Generator:
    return make_generator(seed)


def _equal(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors_of(a), tensors_of(b), strict=True))


@check_of("problem")
def truth_is_seeded(subject: Subject) -> None:
    """n draws of the truth are `(n, *D)`, finite, and follow the generator alone."""
    problem: BenchProblem = subject.build()
    drawn = problem.truth(3, _seeded())
    if drawn is None:
        raise Skipped("nothing is known of the law that its samples shall have")
    for n in (1, 3):
        drawn = problem.truth(n, _seeded())
        if drawn is None or drawn.shape != (n, *problem.event_shape) or not bool(drawn.isfinite().all()):
            got = None if drawn is None else tuple(drawn.shape)
            raise Failed(f"{n} draws must be {(n, *problem.event_shape)}, finite; got {got}")
    global_randomness(lambda: problem.truth(3, _seeded()))
    first, again, other = (problem.truth(3, _seeded(seed)) for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    if not torch.equal(first, again):
        raise Failed("two draws from equally seeded generators differ")
    if torch.equal(first, other):
        raise Failed("draws do not depend on the generator")


@check_of("problem")
def truth_is_the_law_of_the_ends(subject: Subject) -> float:
    """For a closed form, means and variances of the references are those of the truth, within five standard errors."""
    problem: BenchProblem = subject.build()
    if not problem.exact:
        raise Skipped("a trained network's flow ends near the data, not in it")
    n = 192
    x0, cond = _source(problem, n, seed=3)
    truth = problem.truth(4 * n, _seeded())
    if truth is None:
        raise Skipped("nothing is known of the law that its samples shall have")
    ends, drawn = problem.reference(x0, cond).flatten(1), truth.double().flatten(1)
    worst = 0.0
    for x, y in ((ends, drawn), ((ends - drawn.mean(0)).square(), (drawn - drawn.mean(0)).square())):
        error = (x.var(0) / len(x) + y.var(0) / len(y)).sqrt()
        worst = max(worst, float(((x.mean(0) - y.mean(0)).abs() / error).max()))
    return at_most(worst, 5.0, "difference of the moments in standard errors")
