"""Tables whose coefficients have one defect each."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from torch import Tensor

from fm_core.testing.mutants.plans import DPMPP, ab2, ddim, euler, maruyama, solver, wide
from fm_core.testing.mutants.planting import plant

__all__: list[str] = []

_HALF = "diffusers, DPM-Solver's own file and eight copies"


def _data(order: int, plan: DPMPP, exact_in: str | None = "log_snr") -> Any:
    return lambda: solver(plan, "data", order, stochastic=plan.tau2 > 0, exact_in=exact_in)


def _time(path: Any, times: Tensor) -> Tensor:
    return times


plant(
    "solver",
    "local_order",
    "DPM-Solver++ 3M with half of its second difference",
    _data(3, DPMPP(3, curve=0.5)),
    found=_HALF,
)
plant(
    "solver",
    "local_order",
    "√(α_s² + σ_t²) for σ_s in the slope's weight",
    _data(2, DPMPP(2, slope=wide)),
    found="azula, REABSampler",
)
plant("solver", "local_order", "order 2 claimed by Euler", lambda: solver(euler, order=2))
plant(
    "solver",
    "polynomial_exactness",
    "DPM-Solver++ 3M with half of its second difference",
    _data(3, DPMPP(3, curve=0.5)),
    found=_HALF,
)
plant(
    "solver",
    "polynomial_exactness",
    "SDE-DPM-Solver++ 3M with the other sign of its second difference",
    lambda: solver(DPMPP(3, 1.0, curve=-1.0), "data", 3, stochastic=True, exact_in="log_snr"),
    found="diffusers, sde-dpmsolver++: −0.5 for +0.5",
)
plant(
    "solver",
    "polynomial_exactness",
    "weights of equal steps on any grid",
    lambda: solver(lambda p, t: ab2(p, t, equal_steps=True), order=2),
)
plant(
    "solver",
    "local_order",
    "SDE-DPM-Solver++ 3M with the other sign of its second difference, which does not say in what it is exact",
    _data(3, DPMPP(3, 1.0, curve=-1.0), None),
    found="diffusers, sde-dpmsolver++: −0.5 for +0.5",
)
plant("solver", "local_order", "order 3 claimed by SDE-DPM-Solver++ 2M", _data(3, DPMPP(2, 1.0), None))
plant("solver", "local_order", "SDE-DPM-Solver++ 2M with half of its slope", _data(2, DPMPP(2, 1.0, slope=0.5), None))
plant("solver", "law_of_the_output", "weak order 2 claimed by Euler–Maruyama", lambda: evolve(maruyama(), order=2))
plant("solver", "law_of_the_output", "order 3 claimed by SDE-DPM-Solver++ 2M", _data(3, DPMPP(2, 1.0), None))
plant("solver", "law_of_the_output", "noise without the drift that makes up for it", lambda: maruyama(drift=0.0))
plant("solver", "law_of_the_output", "noise of half the variance", lambda: maruyama(noise=0.5**0.5))
plant("solver", "law_of_the_output", "noise 2 % too large: a bias that never falls", lambda: maruyama(noise=1.02))
plant(
    "solver",
    "law_of_the_output",
    "fresh noise, and all of the old kept",
    lambda: solver(lambda p, t: _kept(p, t), "data", stochastic=True),
)
plant("solver", "clocks_do_not_matter", "interpolated in t", _data(2, DPMPP(2, variable=_time)))
plant("solver", "clocks_do_not_matter", "Euler's steps in t", lambda: solver(euler, exact_in="noise_to_signal"))


def _kept(path: Any, times: Tensor) -> Any:
    plain, noisy = ddim().plan(path, times), ddim(1.0).plan(path, times)
    rows = tuple(evolve(row, noise=other.noise) for row, other in zip(plain.rows, noisy.rows, strict=True))
    return evolve(plain, rows=rows)
