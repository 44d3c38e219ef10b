"""Other libraries' solvers behind our protocols: what they give by hand, what they cost, whose they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fm_core as fm
from fm_core import registry
from fm_core.bench import solvers as suite
from fm_core.bench.contenders import OTHERS, QUICK_OTHERS, contenders, library, missing, peers
from fm_core.building import OptionError
from fm_core.errors import DivergenceError, PluginError, TimeError

# diffusers makes numpy arrays of tensors in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

LIBRARIES = ("diffusers", "azula", "torchdiffeq", "flow_matching", "torchsde")
NEEDED = {"diffusers": "diffusers", "azula": "azula", "flow_matching": "flow_matching", "torchsde": "torchsde"}


def solver(name: str, **options: Any) -> Any:
    """A peer's solver; skips the test where its library is not installed."""
    for library_name, module in NEEDED.items():
        if name.startswith(library_name):
            pytest.importorskip(module)
    return fm.build("solver", name, **options)


def ring(path: str = "linear") -> fm.Pipeline:
    return registry.from_config("problem", {"name": "eight_gaussians", "path": path}).pipeline  # type: ignore[no-any-return]


def noise(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def field(pipeline: fm.Pipeline) -> fm.Field:
    return fm.Field(pipeline.model, pipeline.path)


def test_listing_imports_no_library() -> None:
    code = (
        "import sys; from fm_core import registry; n = len([c for c in registry.components() if c.plugin == 'peers']);"
        "loaded = {'torch', 'diffusers', 'azula', 'flow_matching', 'torchsde', 'torchcfm'} & set(sys.modules);"
        "assert n > 20 and not loaded, (n, loaded)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_group_to_libraries() -> None:
    """The first word will not do: flow_matching has two."""
    assert {one.group for one in peers()} == set(LIBRARIES)
    assert library("solver", "flow_matching_euler") == "flow_matching"
    assert library("objective", "torchcfm_cfm") == "torchcfm"
    assert library("solver", "heun") == "ours"
    assert library("solver", "no_such_solver") == "ours"
    assert set(QUICK_OTHERS) <= set(OTHERS)


def test_every_peer_of_the_plugin_competes() -> None:
    known = {item.component.name for item in registry.components("solver") if item.plugin == "peers"}
    assert {one.partition("(")[0] for one in OTHERS} == known


@pytest.mark.parametrize(
    ("name", "options", "scheduler", "calls"),
    [
        ("diffusers_flow_euler", {}, "FlowMatchEulerDiscreteScheduler", 12),
        ("diffusers_flow_heun", {}, "FlowMatchHeunDiscreteScheduler", 11),
        ("diffusers_unipc", {"order": 3}, "UniPCMultistepScheduler", 12),
        ("diffusers_dpmpp", {"order": 2}, "DPMSolverMultistepScheduler", 12),
        ("diffusers_deis", {"order": 3}, "DEISMultistepScheduler", 12),
    ],
)
def test_a_flow_scheduler_is_diffusers_by_hand(name: str, options: Any, scheduler: str, calls: int) -> None:
    one, pipeline = solver(name, **options), ring()
    import diffusers

    more = {"prediction_type": "flow_prediction", "use_flow_sigmas": True} if "Multistep" in scheduler else {}
    given = {"solver_order": options["order"], **more} if more else {}
    made, f, x = getattr(diffusers, scheduler)(**given), field(pipeline), noise()
    made.set_timesteps((12 + 1) // 2 if "Heun" in scheduler else 12)
    for i, mark in enumerate(made.timesteps):
        velocity = f.predict(x, 1 - made.sigmas[i].double(), None, "velocity")
        x = made.step(-velocity, mark, x).prev_sample
    own = field(pipeline)
    with torch.no_grad():
        torch.testing.assert_close(one.run(own, noise(), 12), x, rtol=0, atol=1e-12)
    assert own.calls == calls


@pytest.mark.parametrize("spacing", [{"spacing": "linspace"}, {"spacing": "trailing"}, {"karras": True}])
@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("diffusers_unipc", "UniPCMultistepScheduler"),
        ("diffusers_dpmpp", "DPMSolverMultistepScheduler"),
        ("diffusers_heun", "HeunDiscreteScheduler"),
    ],
)
def test_a_vp_scheduler_is_diffusers_by_hand(name: str, scheduler: str, spacing: Any) -> None:
    """On DDPM's own path, whose betas diffusers makes itself: linear from 1e-4 to 0.02."""
    one, pipeline = solver(name, **spacing), ring("ddpm")
    import diffusers

    given = {"timestep_spacing": spacing.get("spacing", "linspace"), "use_karras_sigmas": "karras" in spacing}
    made, f = (
        getattr(diffusers, scheduler)(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, **given),
        field(pipeline),
    )
    made.set_timesteps(5 if "Heun" in scheduler else 9)
    x = noise() * made.init_noise_sigma
    for mark in made.timesteps:
        eps = f.predict(made.scale_model_input(x, mark), 1 - (float(mark) + 1) / 1000, None, "noise")
        x = made.step(eps, mark, x).prev_sample
    with torch.no_grad():
        torch.testing.assert_close(one.run(field(pipeline), noise(), 9), x, rtol=0, atol=2e-5)


def test_ddim_is_diffusers_by_hand() -> None:
    one, pipeline = solver("diffusers_ddim"), ring("ddpm")
    import diffusers

    made, f, x = (
        diffusers.DDIMScheduler(timestep_spacing="trailing", clip_sample=False, beta_end=0.02),
        field(pipeline),
        noise(),
    )
    made.set_timesteps(10)
    for mark in made.timesteps:
        x = made.step(f.predict(x, 1 - (float(mark) + 1) / 1000, None, "noise"), mark, x).prev_sample
    with torch.no_grad():
        torch.testing.assert_close(one.run(field(pipeline), noise(), 10), x, rtol=0, atol=2e-5)


@pytest.mark.parametrize("path", ["linear", "vp", "edm", "cosine"])
@pytest.mark.parametrize("name", ["diffusers_flow_euler", "diffusers_ddim", "diffusers_unipc"])
def test_schedulers_serve_every_gaussian_path(name: str, path: str) -> None:
    """In their own coordinates; more calls come nearer to where the flow goes, from noise of any scale.

    DDIM of diffusers is right where the calls divide 1,000 alone: it takes k − 1000 // N for the time before k.
    """
    one, problem = solver(name), registry.from_config("problem", {"name": "eight_gaussians", "path": path})
    x0 = noise(16)
    ends, f = problem.reference(x0), field(problem.pipeline)
    with torch.no_grad():
        errors = [float((one.run(f, x0, n) - ends).square().mean(1).sqrt().median()) for n in (10, 50)]
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.1


def test_azula_is_its_sampler_by_hand() -> None:
    """On the grid that its schedule has by default, t = 1 at the noise, with margins of its own at both ends."""
    one, pipeline = solver("azula_vab", order=2), ring()
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import RectifiedSchedule
    from azula.sample import vABSampler

    f = field(pipeline)

    class Exact(Denoiser):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.schedule = RectifiedSchedule(alpha_min=1e-6, sigma_min=1e-6)

        def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> Any:
            return DiracPosterior(mean=f.predict(x_t, (1 - t).clamp(1e-6, 1 - 1e-6), None, "data"))

    x = vABSampler(Exact(), order=2, steps=15, silent=True, dtype=torch.float64)(noise())
    out = pipeline.replace(solver=one).sample(x0=noise(), nfe=15)
    torch.testing.assert_close(out.x, x, rtol=0, atol=1e-4)
    assert out.nfe == 15


@pytest.mark.parametrize(("name", "method", "cost"), [("rk4", "rk4", 4), ("heun3", "heun3", 3), ("euler", "euler", 1)])
def test_torchdiffeq_is_odeint_by_hand(name: str, method: str, cost: int) -> None:
    from torchdiffeq import odeint

    pipeline = ring()
    f, times = field(pipeline), torch.linspace(0, 1, 12 // cost + 1, dtype=torch.float64)
    x = odeint(lambda t, y: f.predict(y, t, None, "velocity"), noise(), times, method=method)[-1]
    out = pipeline.replace(solver=solver(f"torchdiffeq_{name}")).sample(x0=noise(), nfe=12)
    torch.testing.assert_close(out.x, x, rtol=0, atol=1e-12)
    assert out.nfe == 12


def test_flow_matching_is_its_solver_by_hand() -> None:
    one, pipeline = solver("flow_matching_midpoint"), ring()
    from flow_matching.solver import ODESolver

    f, times = field(pipeline), torch.linspace(0, 1, 6, dtype=torch.float64)
    solved = ODESolver(lambda x, t: f.predict(x, t, None, "velocity"))
    x = solved.sample(noise(), step_size=None, method="midpoint", time_grid=times)
    out = pipeline.replace(solver=one).sample(x0=noise(), nfe=10)
    torch.testing.assert_close(out.x, x, rtol=0, atol=1e-12)
    assert out.nfe == 10


def test_torchsde_samples_the_data_within_its_calls() -> None:
    one = solver("torchsde_euler")
    pipeline = registry.from_config("problem", {"name": "gaussian"}).pipeline.replace(solver=one)
    out = pipeline.sample(
        x0=torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64), nfe=80, seed=1
    )
    assert out.nfe == 80
    torch.testing.assert_close(out.x.mean(0), torch.full((2,), 1.0, dtype=torch.float64), rtol=0, atol=0.05)
    torch.testing.assert_close(out.x.std(0), torch.full((2,), 0.5, dtype=torch.float64), rtol=0.08, atol=0)
    with pytest.raises(TimeError, match="must rise"):
        one.solve(field(ring()), noise(), torch.tensor([0.6, 0.3], dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [
        ("torchdiffeq_heun3", {}, 3),
        ("flow_matching_midpoint", {}, 2),
        ("azula_vab", {"order": 2}, 2),
        ("diffusers_unipc", {"order": 2}, 3),  # its corrector gives one more than it claims
        ("diffusers_dpmpp", {"order": 3}, 2),  # 3 is claimed; its second difference has half its weight
        ("azula_reab", {"order": 2}, 1),  # 2 is claimed; σ_t stands for σ_s
    ],
)
def test_orders_are_what_they_are(name: str, options: Any, order: int) -> None:
    """Inside the path, on a grid whose first and last steps do not count."""
    from fm_core.testing.fields import FROM, MIXTURE, PATHS, TO, exact_states, run, settled, start

    one, path = solver(name, **options), PATHS["trigonometric"]
    x = start(path, MIXTURE, FROM)
    ends = exact_states(path, MIXTURE, x, [FROM, TO])[-1]
    few, many = (float((run(one, path, MIXTURE, x, settled(n)).x - ends).norm()) for n in (24, 96))
    measured = torch.tensor(few / many).log2().item() / 2
    assert order - 0.3 < measured < order + 0.75


@pytest.mark.parametrize("module", ["azula", "diffusers", "flow_matching", "torchsde"])
def test_a_library_that_is_not_there_is_skipped_and_said(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [module, *(one for one in sys.modules if one.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.delitem(sys.modules, f"fm_plugins.peers.{module}", raising=False)
    (name,) = [one.name for one in contenders(o for o in OTHERS if o.startswith(module))][:1]
    with pytest.raises(PluginError, match=f"{module} is not installed .*pip install .*{module}"):
        fm.build("solver", name.partition("(")[0])
    (record,) = suite.bench_solvers(
        tmp_path, problems=["gaussian"], only=[name], budgets=[8], seeds=1, samples=4, progress=False
    ).records
    assert (record.status, record.group) == ("skipped", module)
    assert "pip install" in record.why


def test_what_a_peer_does_not_take_is_said_before_anything_runs() -> None:
    pytest.importorskip("diffusers")
    with pytest.raises(OptionError, match="odrer"):
        contenders(["diffusers_unipc(odrer=3)"])
    with pytest.raises(ValueError, match="order"):
        contenders(["diffusers_unipc(order=7)"])


def test_peers_and_ours_run_in_one_block(tmp_path: Path) -> None:
    """The same noise and calls: torchdiffeq's Euler and flow_matching's are ours, to the last bits."""
    names = ["euler", "torchdiffeq_euler", "torchdiffeq_rk4"]
    records = suite.bench_solvers(
        tmp_path, problems=["eight_gaussians"], only=names, budgets=[8], seeds=1, samples=16, progress=False
    ).records
    found = {record.contender: record for record in records if record.suite == "solvers"}
    assert {one.group for one in found.values()} == {"ours", "torchdiffeq"}
    ours, theirs = (found[name].figures for name in names[:2])
    assert theirs["error_median"] == pytest.approx(ours["error_median"], rel=1e-9)
    assert theirs["nfe"] == ours["nfe"] == found["torchdiffeq_rk4"].figures["nfe"] == 8
    assert all(one.figures["sample_s"] > 0 for one in found.values())


def test_heun_of_diffusers_takes_no_more_than_its_budget() -> None:
    one, f = solver("diffusers_flow_heun"), field(ring())
    for nfe, calls in ((5, 5), (8, 7)):
        before = f.calls
        with torch.no_grad():
            one.run(f, noise(), nfe)
        assert f.calls - before == calls
    assert missing(contenders(["diffusers_flow_heun"])[0]) == ""


def test_torchdiffeq_that_gives_up_diverges() -> None:
    def breaks(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x / (t[:, None] > 0.5).logical_not().to(x)

    pipeline = fm.compose(path="linear", model=fm.Model(breaks, predicts="velocity"))
    with pytest.raises(DivergenceError, match="gives up"):
        pipeline.replace(solver="torchdiffeq_dopri5").sample(x0=noise(), rtol=1e-9, atol=1e-9)
