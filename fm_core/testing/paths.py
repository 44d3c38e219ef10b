"""What every probability path keeps: its ends, its derivatives, its source, and the continuity equation.

Bounds are those of float64 at the sizes that occur; where a property needs a schedule, a path without `alpha` and
`sigma` is skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from fm_core.mixture import GaussianMixture
from fm_core.prediction import Prediction
from fm_core.protocols import declared
from fm_core.randomness import make_generator
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of, worst_of
from fm_core.testing.traces import global_randomness

__all__ = ["INSIDE", "SHAPES", "ends_of", "pair_of", "path_of", "requires", "sample_at", "schedule_of"]

INSIDE = st.floats(0.02, 0.98)
SHAPES = st.sampled_from([(1, 2), (3, 3), (5, 1), (2, 3, 4, 4), (1, 1, 8, 8)])

DATA = GaussianMixture([[1.0, -0.5], [-1.5, 0.3], [0.2, 1.2]], [0.3, 0.5, 0.7], [1.0, 2.0, 3.0])


def _is_gaussian(path: Any) -> bool:
    return all(callable(getattr(path, name, None)) for name in ("alpha", "sigma"))


def path_of(subject: Subject) -> Any:
    """The path under examination.

    Raises:
        Skipped: If its states are no Euclidean vectors.
    """
    path = subject.build()
    if (geometry := declared(path, "geometry")) != "euclidean":
        raise Skipped(f"its geometry is {geometry!r}: the kit knows no states of it")
    return path


def schedule_of(subject: Subject) -> Any:
    """The path under examination.

    Raises:
        Skipped: If it has no α and σ.
    """
    path = path_of(subject)
    if not _is_gaussian(path):
        raise Skipped("the path has no alpha(t) and sigma(t): it is not Gaussian")
    return path


def _times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pair_of(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Samples x0 and x1 of a shape `(B, *D)`."""
    generator = make_generator(7)
    x0, x1 = torch.randn(2, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return x0, x1


def sample_at(path: Any, t: float, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Any:
    """A point of the path at t."""
    x0, x1 = pair_of(shape, dtype)
    return path.interpolate(x0, x1, torch.full((shape[0],), t, dtype=dtype), generator=make_generator(3))


@check_of("path")
def ends(subject: Subject) -> float:
    """The source is nearly all noise and the end is the data: α(0)/σ(0) ≤ 0.1, σ(1)/α(1) ≤ 0.05, |α(1) − 1| ≤ 0.05.

    Else a network trained between the two is started from states that it never saw, ends in noise, or in data that are
    scaled or mirrored, for the states at t = 1 are what is given out. |σ(1)| ≤ 1e-6 counts as 0. Of a path without α
    and σ the shares of x0 and x1 are measured.
    """
    path = path_of(subject)
    share = float((shares(path)[0][1] - 1).abs())
    worst = ends_of(path, (0.0, 1.0))
    return max(worst, at_most(share, 0.05, "α(1), the data's share in the states at t = 1, differs from 1 by"))


def ends_of(path: Any, span: tuple[float, float]) -> float:
    """The data's share in the states where the span begins, or the noise's where it ends: the larger.

    Raises:
        Failed: If either is too large: α/σ > 0.1, or σ/α > 0.05.
    """
    alpha, sigma = shares(path, span)
    start = float(alpha[0].abs() / sigma[0].abs())
    end = 0.0 if abs(float(sigma[1])) <= 1e-6 else float(sigma[1].abs() / alpha[1].abs())
    at_most(start, 0.1, f"α({span[0]:g})/σ({span[0]:g}), the data left in the source")
    at_most(end, 0.05, f"σ({span[1]:g})/α({span[1]:g}), the noise left in the data")
    return max(start, end)


def shares(path: Any, at: tuple[float, float] = (0.0, 1.0)) -> tuple[Tensor, Tensor]:
    """How much of x1, and of x0, is in the states at two times."""
    times = torch.tensor(at, dtype=torch.float64)
    if _is_gaussian(path):
        return path.alpha(times), path.sigma(times)
    x0, x1 = pair_of((1, 2))

    def moved(t: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        state: Tensor = path.interpolate(x0, x1, t, generator=make_generator(3)).x_t
        return state

    shares = [
        (
            float((moved(t, x0, x1 + 1) - moved(t, x0, x1)).mean()),
            float((moved(t, x0 + 1, x1) - moved(t, x0, x1)).mean()),
        )
        for t in (times[:1], times[1:])
    ]
    alpha, sigma = torch.tensor(shares, dtype=torch.float64).T
    return alpha, sigma


@check_of("path")
def states_are_of_the_schedule(subject: Subject) -> float:
    """`interpolate` gives x_t = α_t·x1 + σ_t·x0, with the α and σ that the path says, the ends included."""
    path, worst = schedule_of(subject), 0.0
    x0, x1 = pair_of((5, 3))
    for t in (0.0, 1e-3, 0.25, 0.5, 0.75, 1.0):
        time = torch.full((5,), t, dtype=torch.float64)
        x_t = path.interpolate(x0, x1, time, generator=make_generator(3)).x_t
        want = path.alpha(time)[:, None] * x1 + path.sigma(time)[:, None] * x0
        worst = max(worst, float((x_t - want).abs().max() / (1 + want.abs().max())))
    return at_most(worst, 1e-9, "relative distance of x_t from α·x1 + σ·x0")


@check_of("path")
def log_snr_rises(subject: Subject) -> float:
    """The log-SNR rises strictly from the source to the data: every noise level occurs once."""
    path = schedule_of(subject)
    t = torch.linspace(0.001, 0.999, 1000, dtype=torch.float64)
    gaps = (path.alpha(t).log() - path.sigma(t).log()).diff()
    if not bool((gaps > 0).all()):
        worst = int(gaps.argmin())
        raise Failed(f"log(α/σ) changes by {float(gaps[worst]):.3g} from t = {float(t[worst]):.3f}", float(gaps[worst]))
    return float(gaps.min())


@check_of("path")
def log_snr_is_of_the_schedule(subject: Subject) -> float:
    """`log_snr` is 2·log(α/σ), by which grids, guidance intervals and solvers place their levels."""
    path = schedule_of(subject)
    if not callable(getattr(path, "log_snr", None)):
        raise Skipped("the path has no log_snr(t)")
    t = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    want = 2 * (path.alpha(t) / path.sigma(t)).log()
    error = ((path.log_snr(t) - want).abs() / (1 + want.abs())).max()
    return at_most(float(error), 1e-7, "relative distance of log_snr(t) from 2·log(α/σ)")


@check_of("path")
def derivatives(subject: Subject) -> float:
    """α' and σ' are the derivatives of α and σ, in float64, inside the path."""
    path = schedule_of(subject)
    for name in ("d_alpha", "d_sigma"):
        if not callable(getattr(path, name, None)):
            raise Skipped(f"the path has no {name}(t)")

    def error(t: float) -> float:
        time, worst = _times(t), 0.0
        for value, slope in ((path.alpha, path.d_alpha), (path.sigma, path.d_sigma)):
            exact = torch.func.grad(lambda s, value=value: value(s).sum())(time)
            worst = max(worst, float(((slope(time) - exact).abs() / (1 + exact.abs())).max()))
        return worst

    return worst_of(error, 1e-7, "relative error of a derivative", t=INSIDE)


@check_of("path")
def inverse_of_the_log_snr(subject: Subject) -> float:
    """`t_of_log_snr` inverts the log-SNR inside the path."""
    path = schedule_of(subject)
    if not callable(getattr(path, "t_of_log_snr", None)):
        raise Skipped("the path has no t_of_log_snr(log_snr)")

    def error(t: float) -> float:
        return float((path.t_of_log_snr(path.log_snr(_times(t))) - t).abs().max())

    return worst_of(error, 1e-7, "t differs from the time of its log-SNR by", t=INSIDE)


def _residual(log_prob: Callable[..., Tensor], velocity: Callable[..., Tensor], x: Tensor, t: float) -> float:
    """`∂log p/∂t + ∇·u + u·∇log p`, relative to the size of its terms."""
    x = x.clone().requires_grad_()
    time = torch.full((len(x),), t, dtype=torch.float64, requires_grad=True)
    score, change = torch.autograd.grad(log_prob(x, time).sum(), (x, time))
    u = velocity(x, time.detach())
    columns = [torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1])]
    divergence, transport = torch.stack(columns), u * score
    size = change.abs() + divergence.abs().sum(0) + transport.abs().sum(1)
    return float(((change + divergence.sum(0) + transport.sum(1)) / size).abs().max().detach())


@check_of("path")
def continuity_equation_of_a_conditional(subject: Subject) -> float:
    """Given x1, the conditional velocity carries N(α·x1, σ²): ∂log p/∂t + ∇·u + u·∇log p = 0."""
    path = schedule_of(subject)
    requires(path, Prediction.VELOCITY)
    x1 = torch.tensor([0.7, -1.1], dtype=torch.float64)

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        density: Tensor = (-0.5 * ((x - alpha * x1) / sigma).square() - sigma.log()).sum(1)
        return density

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        u: Tensor = path.convert(x1.expand_as(x), x, t, src=Prediction.DATA, dst=Prediction.VELOCITY)
        return u

    def error(t: float) -> float:
        time = torch.full((6,), t, dtype=torch.float64)
        return _residual(log_prob, velocity, path.interpolate(pair_of((6, 2))[0], x1.expand(6, 2), time).x_t, t)

    return worst_of(error, 1e-6, "relative residual of the continuity equation", t=INSIDE)


@check_of("path")
def continuity_equation_of_a_mixture(subject: Subject) -> float:
    """The expected velocity of a Gaussian mixture carries its marginals: ∂log p/∂t + ∇·u + u·∇log p = 0."""
    path = schedule_of(subject)
    requires(path, Prediction.VELOCITY)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        data = DATA.predict(path, Prediction.DATA, x, t)
        u: Tensor = path.convert(data, x, t, src=Prediction.DATA, dst=Prediction.VELOCITY)
        return u

    def error(t: float) -> float:
        generator = make_generator(1)
        x1 = DATA(6, generator)
        x_t = path.interpolate(pair_of((6, 2))[0], x1, torch.full((6,), t, dtype=torch.float64)).x_t
        return _residual(lambda x, s: DATA.log_prob(path, x, s), velocity, x_t, t)

    return worst_of(error, 1e-6, "relative residual of the continuity equation", t=INSIDE)


@check_of("path")
def randomness(subject: Subject) -> None:
    """What is drawn comes from the generator alone: equal seeds, equal draws, and no global state is touched.

    The source samples of a batch differ from each other.
    """
    path = path_of(subject)
    x0, x1 = pair_of((4, 2))
    t = torch.full((4,), 0.3, dtype=torch.float64)

    def draw(seed: int) -> Tensor:
        drawn = path.sample_source((4, 2), generator=make_generator(seed), dtype=torch.float64)
        return torch.cat([drawn, path.interpolate(x0, x1, t, generator=make_generator(seed)).x_t])

    global_randomness(lambda: draw(0))
    if not torch.equal(draw(1), draw(1)):
        raise Failed("two draws from equally seeded generators differ")
    if torch.equal(draw(1)[:4], draw(2)[:4]):
        raise Failed("source samples do not depend on the generator")
    if torch.equal(draw(1)[:4], draw(1)[:1].expand(4, 2)):
        raise Failed("the source samples of a batch are all the same one")


@check_of("path")
def score_needs_a_gaussian_source(subject: Subject) -> float:
    """A path that provides the score, −noise/σ, draws its source from N(0, I): of no other is that the score.

    The first four moments of 20,000 numbers are compared, in units of their standard errors.
    """
    path, n = path_of(subject), 20_000
    if Prediction.SCORE not in path.provides:
        raise Skipped("it does not provide the score, so its source may be any")
    x0 = path.sample_source((n // 2, 2), generator=make_generator(8), dtype=torch.float64).flatten()
    errors = {1: 1.0, 2: 2.0, 3: 15.0, 4: 96.0}  # variances of x, x², x³, x⁴ under N(0, 1)
    moments = {k: float((x0**k).mean()) - {2: 1.0, 4: 3.0}.get(k, 0.0) for k in errors}
    worst = max(abs(moment) / (errors[k] / n) ** 0.5 for k, moment in moments.items())
    return at_most(worst, 6.0, "a moment of the source is off from that of N(0, 1) by, in standard errors")


def requires(path: Any, kind: Prediction) -> None:
    """Skips the check where the path does not provide the kind."""
    if kind not in path.provides:
        raise Skipped(f"the path does not provide the {kind}")
