"""Orders, measured: globally where the start allows, by one step with exact history where it does not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import Field, GaussianPath, Model, Prediction, TableSolver
from fm_core.testing import GaussianMixture
from fm_plugins.multistep.integrals import SPACES, VARIABLES, Clock

MEAN = torch.tensor([1.5, -0.5, 0.0, 2.0], dtype=torch.float64)
VARIANCE = torch.tensor([0.09, 0.36, 1.0, 4.0], dtype=torch.float64)
START = torch.tensor([[-1.2], [0.3], [1.7]], dtype=torch.float64).expand(3, 4)
PATHS = ["linear", "cosine", "vp", "ve", "stranger"]


def data(path: GaussianPath, x: Tensor, t: Tensor) -> Tensor:
    """E[x1 | x_t] of Gaussian data, a variance for every dimension: errors of one sign in all are rare."""
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    return MEAN + alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * (x - alpha * MEAN)


def exact(path: GaussianPath, t: float, y: Tensor) -> Tensor:
    """States of the trajectories that are `mean + y·std` of p_t: the flow keeps quantiles."""
    at = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = path.alpha(at), path.sigma(at)
    return alpha * MEAN + y * (alpha**2 * VARIANCE + sigma**2).sqrt()


def error(solver: TableSolver, path: GaussianPath, times: Tensor) -> float:
    field = Field(Model(lambda x, t: data(path, x, t), "data"), path)
    got = solver.solve(field, exact(path, float(times[0]), START), times)
    return float((got - exact(path, float(times[-1]), START)).square().mean().sqrt())


def prediction(path: GaussianPath, space: Prediction, t: float) -> Tensor:
    x, time = exact(path, t, START), torch.full((3,), t, dtype=torch.float64)
    return path.convert(data(path, x, time), x, time, src=Prediction.DATA, dst=space)


def span_of(name: str) -> tuple[float, float]:
    return (0.3, 0.7) if name in ("vp", "ve") else (0.15, 0.85)


def measured(solver: TableSolver, path: GaussianPath, span: tuple[float, float], steps: int) -> float:
    one, two = (error(solver, path, torch.linspace(*span, n + 1, dtype=torch.float64)) for n in (steps, 2 * steps))
    return math.log2(one / two)


SOLVERS: list[tuple[str, dict[str, Any], float]] = [
    ("adams_bashforth", {"order": 2}, 2),
    ("adams_bashforth", {"order": 3, "start": "single_step"}, 3),
    ("adams_pc", {"order": 2}, 2),
    ("adams_pc", {"order": 3}, 3),
    ("adams_pc", {"order": 4, "start": "single_step"}, 4),
    ("dpm_solver", {"order": 1}, 1),
    ("dpm_solver", {"order": 2}, 2),
    ("dpm_solver", {"order": 2, "published": True}, 2),
    ("dpm_solver", {"order": 3}, 3),
    ("dpm_solver", {"order": 3, "published": True}, 3),
    ("dpm_solver", {"order": 3, "variable": "t"}, 3),
    ("dpm_solver", {"order": 2, "variable": "sigma"}, 2),
    ("dpm_solver_multistep", {"order": 2}, 2),
    ("dpm_solver_multistep", {"order": 3, "start": "single_step"}, 3),
    ("dpm_solver_pp_2s", {}, 2),
    ("dpm_solver_pp_2s", {"published": True}, 2),
    ("dpm_solver_pp", {"order": 2}, 2),
    ("dpm_solver_pp", {"order": 2, "shortcut": "midpoint"}, 2),
    ("dpm_solver_pp", {"order": 3, "start": "single_step"}, 3),
    ("unipc", {"order": 1}, 2),
    ("unipc", {"order": 2, "lower_order_final": False}, 3),
    ("unipc", {"order": 2, "lower_order_final": False, "corrector": False}, 2),
    ("unipc", {"order": 2, "space": "noise", "lower_order_final": False}, 3),
    ("unipc", {"order": 3, "lower_order_final": False, "start": "single_step"}, 4),
    ("deis", {"order": 2}, 2),
    ("deis", {"order": 2, "variable": "t"}, 2),
    ("deis", {"order": 3, "variable": "lambda", "start": "single_step"}, 3),
    ("ipndm", {}, 2),
    ("pndm", {}, 2),
    ("multistep", {"space": "velocity", "variable": "lambda", "order": 2, "corrector": 3}, 3),
    ("multistep", {"space": "data", "variable": "t", "order": 2, "corrector": 3}, 3),
    ("single_step", {"space": "velocity", "variable": "sigma", "nodes": [1 / 3, 2 / 3]}, 3),
]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("solver", "options", "order"), SOLVERS, ids=lambda v: str(v))
def test_global_order_is_the_declared_one(
    paths: dict[str, GaussianPath], name: str, solver: str, options: dict[str, Any], order: int
) -> None:
    built = fm.build("solver", solver, **options)
    assert built.order == order
    # some gain an order on Gaussians, whose field is affine; none may lose one
    assert order - 0.4 < measured(built, paths[name], span_of(name), 40) < order + 1.7


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_local_error_with_exact_history_is_one_order_up(
    paths: dict[str, GaussianPath], space: Prediction, variable: str, order: int
) -> None:
    """What rising start-up orders hide: order k leaves h^{k+1} in one step, explicit and corrected."""
    for name in ("linear", "vp", "ve"):
        path, errors = paths[name], []
        for h in (0.016, 0.008):
            times = [0.5 + n * h for n in range(-4, 2)]
            clock = Clock.of(path, space, variable, times)
            ask = {k: prediction(path, space, t) for k, t in enumerate(times)}
            state = clock.carry(4, 5) * exact(path, times[4], START)
            for nodes in (range(4, 4 - order, -1), range(5, 5 - order, -1)):
                step = sum(w * ask[k] for k, w in clock.weights(4, 5, nodes).items())
                errors.append(float((state + step - exact(path, times[5], START)).abs().mean()))
        assert math.log2(errors[0] / errors[2]) > order + 0.6
        assert math.log2(errors[1] / errors[3]) > order + 0.6


def test_corrector_gains_one_order(paths: dict[str, GaussianPath]) -> None:
    for path in (paths["linear"], paths["cosine"]):
        for order in (1, 2):
            gained = [
                measured(
                    fm.build("solver", "unipc", order=order, corrector=corrector, lower_order_final=False),
                    path,
                    (0.15, 0.85),
                    40,
                )
                for corrector in (False, True)
            ]
            assert gained[1] - gained[0] == pytest.approx(1.0, abs=0.45)


def test_half_the_second_difference_is_locally_of_order_two(paths: dict[str, GaussianPath]) -> None:
    """Widely copied DPM-Solver++ 3M: 0.5·D'' in place of D'' in its Taylor form. Ours is exact on quadratics in λ."""
    path, h = paths["cosine"], 0.4
    log_ratio = torch.tensor([-0.3, 0.1, 0.5, 0.9], dtype=torch.float64)
    clock = Clock.of(path, Prediction.DATA, "lambda", path.t_of_log_snr(2 * log_ratio).tolist())
    values = [0.7 - 0.3 * x + 0.45 * x**2 for x in log_ratio.tolist()]
    fine = torch.linspace(0.5, 0.9, 20001, dtype=torch.float64)
    integrand = (fine - 0.9).exp() * (0.7 - 0.3 * fine + 0.45 * fine**2)
    expected = float(clock.alpha[3]) * float(torch.trapezoid(integrand, fine))
    ours = sum(w * values[k] for k, w in clock.weights(2, 3, [2, 1, 0]).items())
    assert ours == pytest.approx(expected, abs=1e-9)

    alpha, m0, d1_0, d1_1 = float(clock.alpha[3]), values[2], values[2] - values[1], values[1] - values[0]
    slope, curvature = d1_0 + (d1_0 - d1_1) / 2, (d1_0 - d1_1) / 2
    phi1, phi2, phi3 = -math.expm1(-h), math.expm1(-h) / h + 1, (math.expm1(-h) + h) / h**2 - 0.5
    copied = alpha * (phi1 * m0 + phi2 * slope - phi3 * curvature)
    assert abs(copied - expected) > 1e-3
    assert alpha * (phi1 * m0 + phi2 * slope - 2 * phi3 * curvature) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("solver", "options", "order"), SOLVERS[:4] + SOLVERS[6:10] + SOLVERS[16:27], ids=lambda v: str(v)
)
def test_falling_grid_inverts_to_the_order(
    paths: dict[str, GaussianPath], solver: str, options: dict[str, Any], order: int
) -> None:
    built = fm.build("solver", solver, **options)
    for name in ("linear", "vp"):
        low, high = span_of(name)
        back = [error(built, paths[name], torch.linspace(high, low, n + 1, dtype=torch.float64)) for n in (40, 80)]
        assert math.log2(back[0] / back[1]) > order - 0.45
        assert back[1] < 0.02


def test_orders_hold_on_mixtures(paths: dict[str, GaussianPath]) -> None:
    """Gaussians alone hide errors of multistep methods: here posteriors switch between modes."""
    mixture = GaussianMixture([[1.5, 0.0], [-1.0, 1.0], [0.0, -1.0]], [0.5, 0.7, 0.6])
    path = paths["linear"]
    x = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def run(solver: TableSolver, steps: int) -> Tensor:
        field: Field = mixture.field(path, str(solver.space))
        return solver.solve(field, x, torch.linspace(0.05, 0.95, steps + 1, dtype=torch.float64))

    reference = run(fm.build("solver", "rk4"), 200)
    for name, options, order in (
        ("adams_pc", {"order": 3}, 3),
        ("dpm_solver_pp", {"order": 2}, 2),
        ("dpm_solver_pp", {"order": 3, "start": "single_step"}, 3),
        ("unipc", {"order": 2, "lower_order_final": False}, 3),
        ("dpm_solver", {"order": 3}, 3),
    ):
        solver = fm.build("solver", name, **options)
        errors = [float((run(solver, steps) - reference).square().mean().sqrt()) for steps in (20, 40)]
        assert math.log2(errors[0] / errors[1]) > order - 0.4
