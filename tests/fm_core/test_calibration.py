"""Calibration: tables in their free numbers, derivatives, and what `calibrate` promises of pipelines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attrs import evolve
from torch import Tensor, nn

import fm_core as fm
from fm_core.calibration.calibrate import calibrate
from fm_core.calibration.comparing import robust
from fm_core.calibration.contenders import contenders
from fm_core.calibration.pilot import Pilot
from fm_core.calibration.rollout import ends_of, jacobian
from fm_core.calibration.table import Tables, free_numbers, table_of
from fm_core.errors import BudgetError, CompatError, DataError, TimeError
from fm_core.field import Field
from fm_core.naming import parse_pair
from fm_core.randomness import make_generator
from fm_core.straight import clock
from fm_core.testing import GaussianMixture

MIXTURE = GaussianMixture(torch.tensor([[2.0, 0.0], [-1.0, 1.5], [0.0, -2.0]]), torch.tensor([0.3, 0.2, 0.4]))


def _noise(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, generator=make_generator(seed), dtype=torch.float64)


def _pipe(path: Any = "linear", predicts: str = "velocity", **parts: Any) -> fm.Pipeline:
    built = fm.build("path", path) if isinstance(path, str) else path
    return fm.compose(path=built, model=MIXTURE.model(built, predicts), **parts)


def _pilot(pipe: fm.Pipeline, n: int = 5, *, closing: bool = False, apart: bool = False) -> Pilot:
    x0 = _noise(n)
    return Pilot(pipe, x0, torch.zeros_like(x0), None, closing=closing, apart=apart, chunk=64)


@pytest.mark.parametrize(("name", "predicts"), [("ve", "noise"), ("edm", "data"), ("vp", "data")])
def test_a_closing_data_prediction_is_the_last_row(name: str, predicts: str) -> None:
    """A table with its closing row takes the pilot where the pipeline does, which is made of a plan and that row."""
    pipe = _pipe(name, predicts, solver={"name": "straight", **ADAMS})
    x0 = _noise(5)
    (run,) = [run for run in contenders(pipe, 6, x0, None) if run.pipeline is pipe]
    table = run.table()
    assert table is not None
    assert (table.steps, table.ends[1]) == (6, 1.0)
    assert table.times[-2] < table.limit < 1.0
    ends = ends_of(_pilot(pipe, closing=True), table.alone)[0]
    assert torch.allclose(ends, run.ends, atol=2e-3)  # the last call is a little earlier, so that it can be moved


ADAMS = {"solver": {"kind": "solver", "name": "adams_pc", "order": 4}}


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("straight", ADAMS),
        ("multistep", {"space": "data", "variable": "t", "order": 2, "corrector": 3}),
        ("deis", {}),
        ("ddim", {}),
    ],
)
@pytest.mark.parametrize("name", ["cosine", "vp", "ve"])
def test_a_table_runs_as_the_plan_that_it_was_read_from(
    paths: dict[str, Any], name: str, solver: str, options: dict[str, Any]
) -> None:
    path = paths[name]
    times = torch.tensor([0.02, 0.2, 0.45, 0.5, 0.8, 0.97], dtype=torch.float64)
    built = fm.build("solver", solver, **options)
    table = table_of(built.plan(path, times), path)
    assert table is not None
    assert torch.allclose(table.times, clock(path, times)[0], atol=1e-14, rtol=0)
    pipe, x = _pipe(path), _noise(5)
    pilot = _pilot(pipe)
    plain = built.solve(Field(pipe.model, path), x * path.sigma(times[0]), times)
    assert torch.allclose(ends_of(pilot, table.alone)[0], plain, atol=1e-10, rtol=1e-9)


def test_what_asks_at_stages_adds_noise_or_misses_the_scale_is_no_table_of_the_family(paths: dict[str, Any]) -> None:
    """Adams of a curved path's velocity moves a state whose velocity in straight coordinates is 0."""
    times = torch.linspace(0.05, 0.9, 6, dtype=torch.float64)
    for name in ("heun", "rk4", "sde_dpm_solver_pp", "adams_pc"):
        assert table_of(fm.build("solver", name).plan(paths["vp"], times), paths["vp"]) is None


def test_constant_predictions_are_exact_where_shares_sum_to_one(paths: dict[str, Any]) -> None:
    for path in (paths["vp"], paths["cosine"]):
        plan = fm.build("solver", "dpm_solver_pp", order=3).plan(path, torch.linspace(0.1, 0.9, 6, dtype=torch.float64))
        table = table_of(plan, path)
        assert table is not None
        assert torch.allclose(table.shares.sum(1), torch.ones(5, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("name", ["cosine", "vp"])
@pytest.mark.parametrize("apart", [False, True])
def test_jacobian_is_the_derivative_of_the_ends(paths: dict[str, Any], name: str, apart: bool) -> None:
    """Against central differences of whole rollouts, which know of no row's beginning."""
    path = paths[name]
    times = torch.tensor([0.02, 0.2, 0.45, 0.7, 0.97], dtype=torch.float64)
    table = table_of(fm.build("solver", "straight", **ADAMS).plan(path, times), path)
    assert table is not None
    pilot = _pilot(_pipe(path), 3, apart=apart)
    ends, slopes = jacobian(pilot, table, 1e-7)
    assert torch.equal(ends, ends_of(pilot, table.alone)[0])
    assert len(slopes) == free_numbers(4) + 1  # one direction of the gaps changes nothing
    for i, slope in enumerate(slopes):
        change = torch.zeros(len(slopes), dtype=torch.float64)
        change[i] = 1e-5
        up, down = (ends_of(pilot, table.moved(sign * change).alone)[0] for sign in (1, -1))
        assert torch.allclose(slope, (up - down) / 2e-5, atol=1e-5, rtol=1e-4), i


def test_times_stay_monotone_and_the_ends_fixed_wherever_a_step_goes(paths: dict[str, Any]) -> None:
    path = paths["linear"]
    table = table_of(fm.build("solver", "euler").plan(path, torch.linspace(0, 1, 7, dtype=torch.float64)), path)
    assert table is not None
    for seed in range(20):
        change = 3 * torch.randn(6 + 21, generator=make_generator(seed), dtype=torch.float64)
        times = table.moved(change).times
        assert times[0] == 0.0
        assert times[-1] == 1.0
        assert bool((times.diff() > 0).all())


def test_tables_run_together_as_they_run_alone(paths: dict[str, Any]) -> None:
    path = paths["linear"]
    grids = [torch.linspace(0, 1, 6, dtype=torch.float64), torch.linspace(0, 1, 6, dtype=torch.float64) ** 0.8]
    tables = [table_of(fm.build("solver", "adams_pc").plan(path, grid), path) for grid in grids]
    alone = [table.alone for table in tables if table is not None]
    both = Tables(*(torch.cat(parts) for parts in zip(*((t.times, t.weights) for t in alone), strict=True)))
    pilot = _pilot(_pipe())
    together = ends_of(pilot, both)
    for v, one in enumerate(alone):
        assert torch.allclose(together[v], ends_of(pilot, one)[0], atol=1e-13)
    assert torch.allclose(together, ends_of(evolve(pilot, apart=True), both), atol=1e-13)
    assert torch.allclose(together, ends_of(evolve(pilot, chunk=1), both), atol=1e-13)


def test_the_loss_is_not_ruled_by_one_trajectory() -> None:
    errors = torch.full((100,), 1e-3, dtype=torch.float64)
    astray = errors.clone()
    astray[0] = 1.0
    assert robust(astray, 1e-3) - robust(errors, 1e-3) < 0.1  # the mean square rises 10⁴-fold, this by a tenth


@pytest.fixture(scope="module")
def fitted() -> tuple[fm.Pipeline, fm.Pipeline]:
    pipe = _pipe(solver="heun")
    return pipe, calibrate(pipe, x0=_noise(128), nfe=6, seed=3, iterations=10)


def test_calibrated_beats_the_best_plain_table_on_noise_it_never_saw(fitted: tuple[fm.Pipeline, fm.Pipeline]) -> None:
    pipe, fast = fitted
    x0 = _noise(256, seed=99)
    end = pipe.replace(solver="rk4", grid={"name": "power", "exponent": 1.5}).sample(x0=x0, steps=200).x
    drawn = fast.sample(x0=x0, nfe=6)
    assert drawn.nfe == 6
    error = (drawn.x - end).square().mean(1).sqrt().median()
    plain = [
        (pipe.replace(solver=s).sample(x0=x0, nfe=6).x - end).square().mean(1).sqrt().median() for s in ("auto", "heun")
    ]
    assert error < min(plain) / 3
    said = fast.solver.provenance  # type: ignore[union-attr]
    assert said["calibrated"]["median"] < said["best_uncalibrated"]["median"] / 3
    solver, grid = parse_pair(said["best_uncalibrated"]["solver"])
    rival = pipe.replace(solver=solver, grid=grid).sample(x0=x0, nfe=6).x
    assert 0.5 < (rival - end).square().mean(1).sqrt().median() / said["best_uncalibrated"]["median"] < 2
    assert 0.5 < error / said["calibrated"]["median"] < 2


def test_calibrating_is_deterministic_and_says_what_it_did(fitted: tuple[fm.Pipeline, fm.Pipeline]) -> None:
    pipe, fast = fitted
    again = calibrate(pipe, x0=_noise(128), nfe=6, seed=3, iterations=10)
    assert again.solver.plan == fast.solver.plan  # type: ignore[union-attr]
    said = fast.solver.provenance  # type: ignore[union-attr]
    assert (said["nfe"], said["seed"], said["pilot"], said["path"]) == (6, 3, [128, 2], "linear")


def test_one_budget_is_sampled_and_no_other(fitted: tuple[fm.Pipeline, fm.Pipeline]) -> None:
    _, fast = fitted
    x0 = _noise(4)
    assert torch.equal(fast.sample(x0=x0, nfe=6).x, fast.sample(x0=x0, steps=6).x)
    for budget in ({"nfe": 7}, {"nfe": 5}, {"steps": 12}):
        with pytest.raises(BudgetError, match=r"(calibrated|made) for 6"):
            fast.sample(x0=x0, **budget)  # type: ignore[arg-type]


def test_another_path_or_prediction_is_refused(fitted: tuple[fm.Pipeline, fm.Pipeline]) -> None:
    _, fast = fitted
    with pytest.raises(CompatError, match="other α and σ"):
        _pipe("cosine", solver=fast.solver)
    with pytest.raises(CompatError, match="predicts v, and that one predicted velocity"):
        _pipe("linear", "v", solver=fast.solver)


def test_a_fit_begins_from_several_tables_and_spends_every_call_and_step() -> None:
    """The midpoint rule affords four of five calls and is a table of the family, but no beginning."""
    fast = calibrate(_pipe(solver="midpoint"), x0=_noise(32), nfe=5, iterations=30)
    said = fast.solver.provenance  # type: ignore[union-attr]
    assert "midpoint" not in said["begun_from"]
    assert said["iterations"] == 30, "what one fit leaves, the next begins with"
    assert fast.sample(x0=_noise(3), nfe=5).nfe == 5


def test_what_is_no_better_is_not_returned() -> None:
    """Without a step of fitting nothing is better than what it begins from."""
    with pytest.warns(RuntimeWarning, match="did not beat"):
        plain = calibrate(_pipe(), x0=_noise(32), nfe=4, iterations=0)
    assert not plain.solver.provenance  # type: ignore[union-attr]
    assert plain.sample(x0=_noise(2), nfe=4).nfe <= 4


def test_pilots_that_do_not_determine_the_table_are_refused() -> None:
    with pytest.raises(DataError, match=r"229 free numbers, and 32 trajectories.*at least 115"):
        calibrate(_pipe(), x0=_noise(32), nfe=20)
    with pytest.raises(DataError, match="at least 16"):
        calibrate(_pipe(), (8, 2), nfe=3)
    with pytest.raises(BudgetError, match="at least 2 predictions"):
        calibrate(_pipe(), (32, 2), nfe=1)
    with pytest.raises(DataError, match="one of"):
        calibrate(_pipe(), nfe=5)


@pytest.mark.parametrize(("path", "predicts"), [("vp", "noise"), ("ve", "noise"), ("edm", "data")])
def test_diffusion_paths_are_calibrated_closing_prediction_included(path: str, predicts: str) -> None:
    pipe = _pipe(path, predicts)
    fast = calibrate(pipe, x0=_noise(48), nfe=6, iterations=6)
    drawn = fast.sample(x0=_noise(3), nfe=6)
    assert drawn.nfe == 6
    if path != "vp":  # the last call is made before the path ends
        assert drawn.times[-1] == 1.0
        assert len(drawn.times) == 7
        with pytest.raises(TimeError, match="final='none'"):
            fast.sample(x0=_noise(3), nfe=6, final="none")
    said = fast.solver.provenance  # type: ignore[union-attr]
    assert said["calibrated"]["median"] < said["best_uncalibrated"]["median"]


class _Net(nn.Module):
    """A small network of images with a label, whose output no gradient flows through."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4)
        self.mix = nn.Conv2d(1, 1, 3, padding=1)
        self.modes: set[bool] = set()

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.modes.add(self.training)
        shift = self.table(label).sum(1) * t
        return (torch.tanh(self.mix(x)) + shift[:, None, None, None] - x).detach()


def test_guided_conditional_images_of_a_network_without_gradients() -> None:
    torch_state = torch.get_rng_state()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = _Net()
    net.train()
    model = fm.Model(net, predicts="velocity", null=torch.tensor(2))
    cfg = fm.build("guidance", "cfg", scale=2.0)
    pipe = fm.compose(path="linear", model=model, guidance=[cfg])
    fast = calibrate(pipe, (24, 1, 4, 4), nfe=4, cond=torch.arange(24) % 2, iterations=4, chunk=64)
    assert fast.sample((3, 1, 4, 4), nfe=4, cond=torch.tensor([0, 1, 0]), seed=0).x.shape == (3, 1, 4, 4)
    assert fast.solver.provenance["guidance"] == [{"name": "cfg", "scale": 2.0}]  # type: ignore[union-attr]
    assert net.training
    assert net.modes == {False}
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_times_that_are_one_in_the_networks_precision_are_no_table() -> None:
    """In bfloat16 the field is rough, and fits are drawn to times that meet."""
    net = fm.build("model", "mlp", shape=2, width=16, seed=2).to(torch.bfloat16)
    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="velocity"), solver="auto")
    fast = fm.calibrate(pipe, (32, 2), nfe=5, seed=0)
    assert fast.sample((4, 2), nfe=5, seed=1).x.isfinite().all()
