"""Whole trajectories against diffusers and azula in float64, wherever they are right; where not, the difference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import GaussianPath, TableSolver
from fm_core.testing import GaussianMixture

# diffusers hands tensors to numpy in ways that numpy 2 deprecates, and deprecates DPM-Solver itself
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*dpmsolver:FutureWarning"),
]

SIGMAS = [12.0, 6.0, 3.5, 2.0, 1.1, 0.6, 0.3, 0.12]
MIXTURE = GaussianMixture([[1.5, 0.0], [-1.0, 1.0], [0.0, -1.0]], [0.5, 0.7, 0.6])


class VP:
    """α = t/√(t² + (1 − t)²), σ = (1 − t)/√(…): diffusers' α = 1/√(1 + s²) and σ = s·α at any s = σ/α."""

    def alpha(self, t: Tensor) -> Tensor:
        return t / (t**2 + (1 - t) ** 2).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - t) / (t**2 + (1 - t) ** 2).sqrt()

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return 1 / (1 + (-log_snr / 2).exp())


PATH = GaussianPath(VP())
TIMES = PATH.t_of_log_snr(-2 * torch.tensor(SIGMAS, dtype=torch.float64).log())
START = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def ours(solver: TableSolver) -> list[Tensor]:
    return through(solver, MIXTURE.field(PATH, str(solver.space)), START, TIMES)


def through(solver: TableSolver, field: fm.Field, x: Tensor, times: Tensor) -> list[Tensor]:
    """The states at all times but the first."""
    states: list[Tensor] = []
    solver.solve(field, x, times, on_step=lambda _, state: states.append(state))
    return states[1:]


def of_diffusers(scheduler: Any) -> list[Tensor]:
    """The scheduler's own steps through these noise levels: its grid is replaced, its arithmetic is not."""
    scheduler.set_timesteps(len(SIGMAS) - 1)
    scheduler.sigmas = torch.tensor(SIGMAS, dtype=torch.float64)
    x, states = START, []
    for time, t in zip(scheduler.timesteps, TIMES[:-1], strict=True):
        x = scheduler.step(MIXTURE.predict(PATH, fm.Prediction.NOISE, x, float(t)), time, x).prev_sample
        states.append(x)
    return states


def multistep_scheduler(**options: Any) -> Any:
    diffusers = pytest.importorskip("diffusers")
    return diffusers.DPMSolverMultistepScheduler(lower_order_final=False, final_sigmas_type="sigma_min", **options)


CASES: list[tuple[str, dict[str, Any], Callable[[Any], Any]]] = [
    (
        "dpm_solver_pp",
        {"order": 2, "shortcut": "midpoint"},
        lambda d: multistep_scheduler(solver_order=2, solver_type="midpoint"),
    ),
    ("dpm_solver_pp", {"order": 2}, lambda d: multistep_scheduler(solver_order=2, solver_type="heun")),
    ("dpm_solver_pp", {"order": 1}, lambda d: multistep_scheduler(solver_order=1)),
    (
        "dpm_solver_multistep",
        {"order": 2, "shortcut": "midpoint"},
        lambda d: multistep_scheduler(solver_order=2, algorithm_type="dpmsolver"),
    ),
    (
        "deis",
        {"order": 3, "variable": "lambda"},
        lambda d: d.DEISMultistepScheduler(solver_order=3, lower_order_final=False),
    ),
    (
        "deis",
        {"order": 2, "variable": "lambda"},
        lambda d: d.DEISMultistepScheduler(solver_order=2, lower_order_final=False),
    ),
]


@pytest.mark.parametrize(("name", "options", "scheduler"), CASES, ids=lambda v: "" if callable(v) else str(v))
def test_trajectory_is_that_of_diffusers(name: str, options: dict[str, Any], scheduler: Callable[[Any], Any]) -> None:
    diffusers = pytest.importorskip("diffusers")
    for own, other in zip(ours(fm.build("solver", name, **options)), of_diffusers(scheduler(diffusers)), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("space", ["data", "noise"])
def test_unipc_ends_where_diffusers_does(kind: str, order: int, space: str) -> None:
    """Its corrected states are inside a step of diffusers; what both show is the end, after every correction."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.UniPCMultistepScheduler(
        solver_order=order, solver_type=kind, predict_x0=space == "data", final_sigmas_type="sigma_min"
    )
    solver = fm.build("solver", "unipc", order=order, shortcut=kind, space=space)
    torch.testing.assert_close(ours(solver)[-1], of_diffusers(scheduler)[-1], rtol=1e-6, atol=1e-6)


def test_shortcuts_move_trajectories() -> None:
    exact, half = (ours(fm.build("solver", "dpm_solver_pp", order=2, shortcut=s))[-1] for s in (None, "midpoint"))
    assert float((exact - half).abs().max()) > 0.02


def test_third_order_of_diffusers_differs_by_half_its_second_difference() -> None:
    """The first two states agree; the third differs by α·(1/2 − (e^{−h} − 1 + h)/h²)·D2: its missing half."""
    pytest.importorskip("diffusers")
    own = ours(fm.build("solver", "dpm_solver_pp", order=3))
    other = of_diffusers(multistep_scheduler(solver_order=3, solver_type="heun"))
    for k in (0, 1):
        torch.testing.assert_close(own[k], other[k], rtol=1e-6, atol=1e-6)
    data = [
        MIXTURE.predict(PATH, fm.Prediction.DATA, x, float(t)) for x, t in zip([START, *own[:2]], TIMES, strict=False)
    ]
    log_ratio = [-math.log(s) for s in SIGMAS]
    h, h0, h1 = (log_ratio[k + 1] - log_ratio[k] for k in (2, 1, 0))
    curvature = ((data[2] - data[1]) * h / h0 - (data[1] - data[0]) * h / h1) / ((h0 + h1) / h)
    missing = float(PATH.alpha(TIMES[3])) * (0.5 - (math.expm1(-h) + h) / h**2) * curvature
    torch.testing.assert_close(own[2] - other[2], missing, rtol=1e-5, atol=1e-6)
    assert float(missing.abs().max()) > 1e-3


@pytest.mark.parametrize(("solver", "scheduler"), [("euler", "Euler"), ("heun", "Heun")])
def test_flow_trajectories_are_those_of_diffusers(solver: str, scheduler: str) -> None:
    """Its Heun scheduler takes the last step, to σ = 0, by Euler, whatever it may ask there; ours is told to."""
    diffusers = pytest.importorskip("diffusers")
    made, linear = getattr(diffusers, f"FlowMatch{scheduler}DiscreteScheduler")(), fm.build("path", "linear")
    made.set_timesteps(8)
    field, x, theirs = MIXTURE.field(linear), START, list[Tensor]()
    for level, mark in zip(made.sigmas.double(), made.timesteps, strict=False):
        x = made.step(-field.predict(x, 1 - level, None, "velocity"), mark, x).prev_sample
        theirs.append(x)
    levels = made.sigmas.double().unique(sorted=True).flip(0)
    own = through(fm.build("solver", solver), field, START, 1 - levels[:-1])
    own += through(fm.build("solver", "euler"), field, own[-1], 1 - levels[-2:])
    ends = theirs if solver == "euler" else [*theirs[1:-1:2], theirs[-1]]
    assert len(own) == 8
    for mine, other in zip(own, ends, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


AZULA = [
    (theirs, name, {**options, "order": order}, {"order": order})
    for order in (1, 2, 3)
    for theirs, name, options in (
        ("zABSampler", "deis", {}),
        ("zEABSampler", "deis", {"variable": "lambda"}),
        ("vABSampler", "adams_bashforth", {}),
    )
]


@pytest.mark.parametrize(("theirs", "name", "options", "given"), [*AZULA, ("DDIMSampler", "ddim", {}, {})])
def test_ends_where_azula_does(theirs: str, name: str, options: dict[str, Any], given: dict[str, Any]) -> None:
    azula = pytest.importorskip("azula.sample", reason="azula, with einops", exc_type=ImportError)
    noise, denoise = pytest.importorskip("azula.noise"), pytest.importorskip("azula.denoise")
    schedule = noise.RectifiedSchedule(alpha_min=1e-2, sigma_min=1e-2)

    class Rectified:
        def alpha(self, t: Tensor) -> Tensor:
            return schedule.alpha(1 - t)

        def sigma(self, t: Tensor) -> Tensor:
            return schedule.sigma(1 - t)

    path = GaussianPath(Rectified())

    class Exact(denoise.Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = schedule

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            mean = MIXTURE.predict(path, fm.Prediction.DATA, x_t, 1 - float(t))
            return denoise.DiracPosterior(mean=mean)

    sampler = getattr(azula, theirs)(Exact(), **given, start=1.0, stop=0.0, steps=8, silent=True, dtype=torch.float64)
    solver = fm.build("solver", name, **options)
    times = 1 - sampler.timesteps.to(torch.float64)
    got = solver.solve(MIXTURE.field(path, str(solver.space)), START, times)
    torch.testing.assert_close(got, sampler(START), rtol=1e-6, atol=1e-6)
