"""Tables: their shape and cost, their ends, and the exact law of the stochastic ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import fm_core as fm
from fm_core import GaussianPath, TimeError
from fm_core.law import output_law
from fm_core.stability import order_of
from fm_core.testing import GaussianMixture
from fm_plugins.multistep import fm_components

GRID = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)


@pytest.mark.parametrize("component", fm_components(), ids=lambda c: c.name)
def test_registered_solvers_make_finite_tables_at_the_declared_cost(
    path: GaussianPath, component: fm.Component
) -> None:
    solver = fm.build("solver", component.name, **component.example)
    plan = solver.plan(path, GRID)
    assert plan.space == solver.space
    assert plan.times == tuple(GRID.tolist())
    extra = 9 if component.name == "pndm" else 0  # three Runge–Kutta steps of four calls
    assert plan.nfe == 8 * solver.evals_per_step + extra
    assert plan.stochastic == solver.stochastic


@pytest.mark.parametrize(
    "name", ["adams_pc", "dpm_solver_pp", "dpm_solver_pp_2s", "unipc", "sde_dpm_solver_pp", "sa_solver"]
)
@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (3, 1, 4, 4)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sampling_from_end_to_end_gives_data(
    path: GaussianPath, name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """From pure noise to no noise, λ from −∞ to ∞ on most paths; the data is near one point."""
    mixture = GaussianMixture(torch.full((1, *shape[1:]), 2.0), torch.tensor(0.05))
    pipe = fm.compose(path=path, model=mixture.model(path, "v"), solver=name)
    out = pipe.sample(shape, nfe=20, seed=0, dtype=dtype)
    assert out.x.shape == shape
    assert out.nfe <= 20
    torch.testing.assert_close(out.x, torch.full(shape, 2.0, dtype=out.x.dtype), rtol=0, atol=0.6)


def test_predicted_states_are_not_part_of_the_trajectory(paths: dict[str, GaussianPath]) -> None:
    plan = fm.build("solver", "unipc", order=2).plan(paths["vp"], GRID)
    assert [row.accepted for row in plan.rows] == [False, True] * 7 + [True]
    assert plan.nfe == 8
    corrected = fm.build("solver", "unipc", order=2, correct_last=True).plan(paths["vp"], GRID)
    assert corrected.nfe == 9


def test_orders_rise_and_fall_as_asked(paths: dict[str, GaussianPath]) -> None:
    lengths = lambda **options: [  # noqa: E731
        len(row.predictions) for row in fm.build("solver", "dpm_solver_pp", **options).plan(paths["vp"], GRID).rows
    ]
    assert lengths(order=3) == [1, 2, 3, 3, 3, 3, 3, 3]
    assert lengths(order=3, lower_order_final=True) == [1, 2, 3, 3, 3, 3, 2, 1]
    assert lengths(order=3, start="single_step") == [1, 2, 3, 1, 2, 3, 3, 3, 3, 3, 3, 3]


STOCHASTIC: list[tuple[str, dict[str, Any], float]] = [
    ("sde_dpm_solver_pp", {"order": 1}, 1),
    ("sde_dpm_solver_pp", {"order": 2}, 2),
    ("sde_dpm_solver_pp", {"order": 2, "shortcut": "midpoint"}, 2),
    ("sde_dpm_solver_pp", {"order": 3, "tau": 0.6}, 2),
    ("sa_solver", {"order": 2, "corrector": 0}, 2),
    ("sa_solver", {"order": 1, "corrector": 2}, 2),
    ("sa_solver", {"order": 2, "corrector": 3, "tau": 0.5}, 2),
    ("seeds", {"order": 1}, 1),
    ("seeds", {"order": 2}, 2),
    ("seeds", {"order": 2, "published": True}, 2),
    ("seeds", {"order": 3}, 2),
    ("seeds", {"order": 2, "space": "data"}, 2),
    ("seeds", {"order": 3, "space": "data", "tau": 0.7}, 2),
]


@pytest.mark.parametrize("name", ["linear", "vp", "ve"])
@pytest.mark.parametrize(("solver", "options", "order"), STOCHASTIC, ids=lambda v: str(v))
def test_law_on_gaussian_data_converges_at_the_declared_weak_order(
    paths: dict[str, GaussianPath], name: str, solver: str, options: dict[str, Any], order: int
) -> None:
    """Mean and variance of the output, known without a sample; a wrong noise variance would leave a bias for ever."""
    path, built = paths[name], fm.build("solver", solver, **options)
    assert built.order == order
    low, high = (0.3, 0.7) if name in ("vp", "ve") else (0.15, 0.85)
    errors = []
    for steps in (100, 400):
        plan = built.plan(path, torch.linspace(low, high, steps + 1, dtype=torch.float64))
        given = torch.tensor([0.04, 0.09, 0.36, 1.0], dtype=torch.float64)
        _, variance = output_law(plan, path, mean=torch.full((4,), 1.5), variance=given)
        end = torch.tensor(high, dtype=torch.float64)
        errors.append(float((variance - path.alpha(end) ** 2 * given - path.sigma(end) ** 2).norm()))
    assert math.log(errors[0] / errors[1], 4) > order - 0.4
    assert errors[1] < 0.05


def test_noise_of_zero_is_the_deterministic_table(paths: dict[str, GaussianPath]) -> None:
    for stochastic, deterministic, options in (
        ("sde_dpm_solver_pp", "dpm_solver_pp", {}),
        ("seeds", "dpm_solver", {}),
    ):
        assert fm.build("solver", stochastic, tau=0.0, **options).plan(paths["vp"], GRID) == fm.build(
            "solver", deterministic, **options
        ).plan(paths["vp"], GRID)


def test_band_limits_the_noise(paths: dict[str, GaussianPath]) -> None:
    plan = fm.build("solver", "sa_solver", corrector=0, band=(0.5, 2.0)).plan(paths["linear"], GRID)
    noisy = [(1 - t) / t for t, row in zip(GRID.tolist(), plan.rows, strict=False) if row.noise]
    assert noisy
    assert all(0.5 <= level <= 2.0 for level in noisy)


def test_stochastic_tables_refuse_to_invert(paths: dict[str, GaussianPath]) -> None:
    mixture = GaussianMixture([[0.0, 1.0]], 1.0)
    with pytest.raises(TimeError, match="cannot invert"):
        fm.build("solver", "sde_dpm_solver_pp").solve(
            mixture.field(paths["linear"], "data"), torch.zeros(1, 2, dtype=torch.float64), GRID.flip(0)
        )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dpm_solver", {"order": 4}, "orders 1, 2 and 3"),
        ("adams_bashforth", {"order": 0}, "order"),
        ("adams_bashforth", {"order": 4, "start": "single_step"}, "orders 1, 2 and 3"),
        ("adams_pc", {"order": 1}, "from 2 to 8"),
        ("adams_pc", {"order": 9}, "from 2 to 8"),
        ("deis", {"variable": "rho"}, "variable"),
        ("unipc", {"shortcut": "bh3"}, "shortcut"),
        ("ipndm", {"order": 5}, "1 to 4"),
        ("multistep", {"space": "velocity", "variable": "t", "shortcut": "bh1"}, "leave it out"),
        ("single_step", {"nodes": [1.5]}, "nodes"),
        ("single_step", {"nodes": [0.5, 0.5]}, "each at a place of its own"),
        ("single_step", {"nodes": [0.6, 0.3]}, "rise inside"),
        ("seeds", {"tau": -1.0}, "tau is a number ≥ 0"),
        ("sa_solver", {"tau": math.nan}, "tau is a number ≥ 0"),
        ("sde_dpm_solver_pp", {"tau": math.inf}, "tau is a number ≥ 0"),
        ("sa_solver", {"tau": lambda _: 1.0, "band": (0.1, 1.0)}, "band"),
        ("sa_solver", {"band": (1.0, 0.05)}, "low < high"),
        ("multistep", {"space": "velocity", "variable": "t", "tau": 1.0}, "noise is for tables of data or noise"),
        ("single_step", {"space": "velocity", "variable": "t", "tau": lambda _: 1.0}, "noise is for tables of data"),
        ("single_step", {"used": [3]}, "used are predictions of the step, rising, of 0 to 1"),
        ("single_step", {"used": []}, "used are predictions"),
        ("single_step", {"used": [1, 0]}, "used are predictions"),
    ],
)
def test_options_that_make_no_solver_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fm.build("solver", name, **options)


NOISY = [
    ("seeds", {"order": 1}),
    ("seeds", {"order": 2}),
    ("seeds", {"order": 3}),
    ("seeds", {"tau": 0.5}),
    ("pndm", {}),
    ("unipc", {"space": "noise"}),
    ("unipc", {"space": "noise", "order": 3}),
]


@pytest.mark.parametrize("steps", [3, 5, 10, 20])
@pytest.mark.parametrize(("solver", "options"), NOISY, ids=str)
def test_tables_of_the_noise_stay_near_the_data_however_coarse_the_grid(
    paths: dict[str, GaussianPath], solver: str, options: dict[str, Any], steps: int
) -> None:
    """A flow's first step, from t = 10⁻³, has σ/α fall a hundredfold: a later prediction's share of it is garbage."""
    mixture = GaussianMixture([[1.0, 0.0], [-1.0, 0.5]], [0.3, 0.2])
    for path in (paths["linear"], paths["vp"], paths["ve"]):
        pipe = fm.compose(path=path, model=mixture.model(path), solver=fm.build("solver", solver, **options))
        x = pipe.sample((256, 2), steps=steps, seed=0, dtype=torch.float64).x
        assert x.abs().max() < 2.7  # the data are within 2.1


def test_tau_is_as_asked_where_noise_at_most_halves(paths: dict[str, GaussianPath]) -> None:
    """SEEDS-1 on noise, `x_s = (α_s/α_t)·x_t − 2σ_s·(e^h − 1)·N − σ_s·√(e^{2h} − 1)·z`; less on coarser steps."""
    path, solver = paths["linear"], fm.build("solver", "seeds", order=1)
    for end, as_asked in ((0.6, True), (0.75, False)):
        times = torch.tensor([0.5, end], dtype=torch.float64)
        (row,) = solver.plan(path, times).rows
        growth = end / (1 - end)
        tau2 = 1.0 if as_asked else (growth - 1) ** -4
        ((_, weight),) = row.predictions
        assert weight == pytest.approx(-(1 + tau2) * (1 - end) * (growth - 1))
        assert row.noise == pytest.approx((1 - end) * math.sqrt(tau2 * (growth**2 - 1)))


def test_pseudo_runge_kutta_steps_are_left_out_only_where_they_mean_nothing(paths: dict[str, GaussianPath]) -> None:
    solver = fm.build("solver", "pndm")
    ratios = torch.tensor([100.0, 10.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64)  # σ/α on the linear path
    assert solver.plan(paths["linear"], 1 / (1 + ratios)).nfe == 1 + 4 + 4 + 1 + 1
    assert solver.plan(paths["linear"], 1 / (1 + ratios[1:])).nfe == 3 * 4 + 1


@pytest.mark.parametrize("steps", [10, 20, 40, 100])
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("name", ["dpm_solver_pp", "sde_dpm_solver_pp", "sa_solver"])
def test_the_last_long_step_to_little_noise_leads_not_away(
    paths: dict[str, GaussianPath], name: str, order: int, steps: int
) -> None:
    """A uniform grid of DDPM's ends with σ/α from .09 to .01, after .14 to .09: extrapolated it gave up to 6.9 times
    the standard deviation of the data."""
    true = torch.tensor([1.0, 0.04])
    model = fm.Model(lambda x, t: x, predicts="noise")
    pipe = fm.compose(path="ddpm", model=model, solver=fm.build("solver", name, order=order))
    plan = pipe.plan(steps=steps)
    spread = (output_law(plan, pipe.path, torch.zeros(2), true)[1] / true).sqrt()
    assert (spread < 1.2).all()
    assert spread[0] > 0.9
    *_, last, _ = plan.rows  # the closing row comes after it
    assert len(last.predictions) == 1


@pytest.mark.parametrize("variable", ["lambda", "sigma", "t"])
def test_long_steps_keep_their_order_where_the_polynomial_is_not_taken_far(
    paths: dict[str, GaussianPath], variable: str
) -> None:
    """In σ/α and t the end of such a step is no further from its nodes than they from each other."""
    path = paths["linear"]
    ratios = torch.tensor([1.0, 0.14, 0.09, 0.01], dtype=torch.float64)
    plan = fm.build("solver", "multistep", space="data", variable=variable, order=2).plan(path, 1 / (1 + ratios))
    assert len(plan.rows[-1].predictions) == (1 if variable == "lambda" else 2)


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [
        ("multistep", {"order": 3, "corrector": 1}, 1),
        ("multistep", {"order": 3, "corrector": 2}, 2),
        ("multistep", {"order": 2, "corrector": 4}, 3),
        ("sa_solver", {"order": 3, "corrector": 1, "tau": 0.0}, 1),
        ("sa_solver", {"order": 2, "corrector": 1, "tau": 1.0}, 1),
    ],
    ids=str,
)
def test_a_corrector_of_lower_order_is_declared(
    paths: dict[str, GaussianPath], name: str, options: dict[str, Any], order: int
) -> None:
    solver = fm.build("solver", name, **options)
    assert solver.order == order
    if not solver.stochastic:
        assert order_of(solver, paths["linear"]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("tau", [math.nan, -1.0, math.inf])
def test_a_function_that_gives_no_tau_is_refused(paths: dict[str, GaussianPath], tau: float) -> None:
    solver = fm.build("solver", "sde_dpm_solver_pp", tau=lambda log_ratio: tau)
    with pytest.raises(ValueError, match=r"tau is a number ≥ 0 at every λ; got"):
        solver.plan(paths["vp"], GRID)
