"""diffusers' networks on their own schedules: each trajectory equals that of diffusers' own sampler."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core.fit.global_rng import own_randomness
from fm_plugins.adapters.network import ARCHITECTURES, diffusers_model, diffusers_network
from fm_plugins.adapters.scheduler import CLASSES, FLOWS, NARROW, diffusers_path, read_scheduler

diffusers = pytest.importorskip("diffusers")

UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 2,
    "out_channels": 4,
    "num_layers": 1,
    "sample_size": 8,
    "norm_num_groups": 2,
    "num_embeds_ada_norm": 10,
}
DDPM = {"_class_name": "DDPMScheduler"}
DIT_SHAPE = (3, 2, 8, 8)
SHAPE = (3, 1, 8, 8)
KINDS = {"epsilon": "noise", "sample": "data", "v_prediction": "v"}


def unet(dtype: torch.dtype = torch.float64, **changes) -> torch.nn.Module:
    with own_randomness(0, torch.device("cpu")):
        return diffusers.UNet2DModel(**{**UNET, **changes}).eval().to(dtype)


def dit(dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    with own_randomness(0, torch.device("cpu")):
        net = diffusers.DiTTransformer2DModel(**DIT).eval()
        for weights in net.parameters():  # adaLN-zero begins as the identity
            weights.data.add_(0.05 * torch.randn_like(weights))
        return net.to(dtype)


def noise(shape=SHAPE, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def exactly(scheduler):
    """The scheduler with its products in float64, which it computes in float32."""
    n = scheduler.config.num_train_timesteps
    knots = 1 - (torch.arange(n, dtype=torch.float64) + 1) / n
    scheduler.alphas_cumprod = diffusers_path(scheduler.config).alpha(knots).square()
    scheduler.betas = 1 - scheduler.alphas_cumprod / torch.cat([torch.ones(1), scheduler.alphas_cumprod[:-1]])
    scheduler.alphas = 1 - scheduler.betas
    return scheduler


@torch.no_grad()
def run(scheduler, net, x: Tensor, *, channels: int | None = None, **conditions) -> list[Tensor]:
    """Every state of diffusers' own loop."""
    states = [x]
    for k in scheduler.timesteps:
        output = net(x, k.expand(len(x)), **conditions).sample
        output = output if channels is None else output[:, :channels]
        x = scheduler.step(output, k, x).prev_sample
        states.append(x)
    return states


def same(ours: Tensor, theirs: list[Tensor], tolerance: float) -> None:
    stacked = torch.stack(theirs)
    assert ours.shape == stacked.shape
    assert stacked[0].sub(stacked[-1]).abs().max() > 0.1  # the loop went somewhere
    assert (ours - stacked).abs().max() < tolerance * stacked.abs().max()


def sampled(pipe: fm.Pipeline, **arguments) -> Tensor:
    out = pipe.sample(**arguments, trajectory=True)
    return out.trajectory.x if hasattr(out.trajectory, "x") else out.trajectory


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("prediction_type", KINDS)
@pytest.mark.usefixtures("global_rng_untouched")
def test_ddim_equals_diffusers_along_the_whole_trajectory(prediction_type, dtype, tolerance):
    """Every index of a 16-step schedule, closed by the data prediction as diffusers' set_alpha_to_one does."""
    scheduler = diffusers.DDIMScheduler(16, 1e-3, 0.6, clip_sample=False, prediction_type=prediction_type)
    scheduler.set_timesteps(16)
    net, x0 = unet(dtype), noise(dtype=dtype)
    path = diffusers_path(scheduler.config)
    start = x0 * path.sigma(torch.zeros((), dtype=torch.float64)).to(dtype)
    theirs = run(exactly(scheduler) if dtype == torch.float64 else scheduler, net, start)
    pipe = fm.compose(path=path, model=diffusers_model(net, scheduler=scheduler.config), solver="ddim")
    assert pipe.model.predicts == (KINDS[prediction_type],)
    same(sampled(pipe, x0=x0, steps=15), theirs, tolerance)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_ddim_equals_diffusers_on_twenty_of_a_thousand_indices(schedule):
    """The leading spacing, k = 950, 900, …, 0, run by the solver itself from t = 1 − 951/1000."""
    scheduler = diffusers.DDIMScheduler(1000, beta_schedule=schedule, clip_sample=False)
    scheduler.set_timesteps(20)
    net, x = unet(), noise()
    path, model = diffusers_path(scheduler.config), diffusers_model(net, scheduler=scheduler.config)
    theirs = run(exactly(scheduler), net, x)
    times, ours = 1 - (scheduler.timesteps.double() + 1) / 1000, []
    field = fm.Field(model, path)
    with torch.no_grad():
        last = fm.build("solver", "ddim").solve(field, x, times, on_step=lambda t, x: ours.append(x))
        ours.append(field.predict(last, float(times[-1]), None, "data"))
    same(torch.stack(ours), theirs, 1e-12)


def test_ancestral_sampling_equals_diffusers_ddpm_given_the_same_noise():
    """DDPMScheduler's mean and fixed_small variance; its last step, to the data, is without noise."""
    scheduler = diffusers.DDPMScheduler(15, 1e-3, 0.6, clip_sample=False)
    scheduler.set_timesteps(15)
    net, x0 = unet(), noise()
    path, model = diffusers_path(scheduler.config), diffusers_model(net, scheduler=scheduler.config)
    start = x0 * path.sigma(torch.zeros((), dtype=torch.float64))
    exactly(scheduler)
    plan = fm.build("solver", "ddpm").prepare(
        fm.Field(model, path), 1 - torch.arange(15, 0, -1).double() / 15, final=True
    )
    x, y = start, start
    with torch.no_grad():
        for row, k in zip(plan.rows, scheduler.timesteps, strict=True):
            t = torch.full((len(x),), 1 - (int(k) + 1) / 15, dtype=torch.float64)
            generator = torch.Generator().manual_seed(int(k))
            x = scheduler.step(net(x, k).sample, int(k), x, generator=generator).prev_sample
            z = noise(seed=int(k))
            weights = dict(row.states), dict(row.predictions)
            y = sum(weights[0].values()) * y + sum(weights[1].values()) * model(y, t) + row.noise * z
            assert (x - y).abs().max() < 1e-11 * x.abs().max()
    assert plan.stochastic


def test_a_dit_with_learned_variances_equals_diffusers():
    """Class labels, 2C outputs of which the first C are the noise, and the label of no class."""
    scheduler = diffusers.DDIMScheduler(12, 1e-3, 0.6, clip_sample=False)
    scheduler.set_timesteps(12)
    net, x0, labels = dit(), noise(DIT_SHAPE), torch.tensor([1, 0, 7])
    path = diffusers_path(scheduler.config)
    start = x0 * path.sigma(torch.zeros((), dtype=torch.float64))
    theirs = run(exactly(scheduler), net, start, channels=2, class_labels=labels)
    model = diffusers_model(net, scheduler=scheduler.config)
    pipe = fm.compose(path=path, model=model, solver="ddim")
    same(sampled(pipe, x0=x0, steps=11, cond=labels), theirs, 1e-12)
    assert model.null == 10
    assert model(start, torch.zeros(3), torch.full((3,), model.null)).shape == DIT_SHAPE
    with pytest.raises(fm.ConditionError, match="conditional"):
        pipe.sample(x0=x0, steps=11)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.usefixtures("global_rng_untouched")
def test_flow_euler_equals_diffusers_on_its_own_sigmas(shift):
    """float32, as diffusers' sigmas are; its velocity is noise − data, and its timesteps are 1000·(1 − t)."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(12)
    net, x0 = unet(torch.float32), noise(dtype=torch.float32)
    theirs = run(scheduler, net, x0)
    model, path = diffusers_model(net, scheduler=scheduler.config), diffusers_path(scheduler.config)
    pipe = fm.compose(path=path, model=model, solver="euler")
    assert model.predicts == ("velocity",)
    same(sampled(pipe, x0=x0, times=(1 - scheduler.sigmas.double()).tolist()), theirs, 1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # it hands torch's tensors to numpy as numpy 2 deprecates
def test_networks_of_sigma_space_schedulers_are_the_same_networks():
    """EulerDiscreteScheduler holds x/α: DDIM's states there, told the same indices."""
    config = {"num_train_timesteps": 16, "beta_start": 1e-3, "beta_end": 0.6, "timestep_spacing": "linspace"}
    scheduler = diffusers.EulerDiscreteScheduler(**config)
    scheduler.set_timesteps(16)
    net, x0 = unet(), noise()
    path, model = diffusers_path(scheduler.config), diffusers_model(net, scheduler=scheduler.config)
    alpha = path.alpha(1 - torch.arange(16, 0, -1).double() / 16)
    x = x0 * path.sigma(torch.zeros((), dtype=torch.float64)) / alpha[0]
    ours = sampled(fm.compose(path=path, model=model, solver="ddim"), x0=x0, steps=15)
    for i, k in enumerate(scheduler.timesteps):
        assert (ours[i] / alpha[i] - x).abs().max() < 1e-4 * x.abs().max()  # its σ are float32
        with torch.no_grad():
            output = net(scheduler.scale_model_input(x, k), k).sample
        x = scheduler.step(output, k, x).prev_sample
    assert (ours[-1] - x).abs().max() < 1e-4 * x.abs().max()


def test_schedules_equal_those_of_every_scheduler_class():
    """ᾱ at all indices, with each class's own defaults, from the class name alone."""
    for name in sorted(CLASSES):
        kind = getattr(diffusers, name)
        assert (inspect.signature(kind).parameters["beta_start"].default == 0.00085) == (name in NARROW), name
        path = diffusers_path({"_class_name": name})
        t = 1 - (torch.arange(1000, dtype=torch.float64) + 1) / 1000
        with warnings.catch_warnings():  # some hand torch's tensors to numpy in a way that numpy 2 deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            theirs = kind().alphas_cumprod.double()
        assert (path.alpha(t).square() / theirs - 1).abs().max() < 2e-4, name  # float32 products of 1000 factors
    for name in FLOWS:
        assert hasattr(diffusers, name)
        assert read_scheduler({"_class_name": name}).path == "linear"


@pytest.mark.parametrize(
    "options",
    [
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.01, 0.1, 0.2, 0.4, 0.8, 0.9], "num_train_timesteps": 6},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
)
def test_options_of_a_schedule_are_read(options):
    config = diffusers.DDIMScheduler(**options).config
    n = config.num_train_timesteps
    t = 1 - (torch.arange(n, dtype=torch.float64) + 1) / n
    difference = diffusers_path(config).alpha(t).square() - diffusers.DDIMScheduler(**options).alphas_cumprod
    assert difference.abs().max() < 2e-6


def test_every_architecture_on_the_list_exists_and_takes_its_keywords():
    for name, signature in ARCHITECTURES.items():
        parameters = inspect.signature(getattr(diffusers, name).forward).parameters
        assert {signature.x_name, signature.cond, "timestep"} <= set(parameters), name
        required = parameters[signature.cond].default is inspect.Parameter.empty
        assert signature.conditional or not required, name


def test_a_conditional_unet_takes_its_sequence_alone_or_by_name():
    with own_randomness(0, torch.device("cpu")):
        net = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=2,
            out_channels=2,
            block_out_channels=(8, 8),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=6,
            attention_head_dim=2,
        ).eval()
    model = diffusers_model(net, scheduler={"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"})
    x, words, t = noise((2, 2, 8, 8), torch.float32), noise((2, 5, 6), torch.float32), torch.tensor([0.4, 0.1])
    with torch.no_grad():
        theirs = net(x, torch.tensor([599, 899]), words).sample
        assert torch.equal(model(x, t, words), theirs)
        assert torch.equal(model(x, t, {"encoder_hidden_states": words}), theirs)


def test_a_network_is_told_the_very_index_at_every_knot():
    """In float32 too, where 1 − 1/1000 alone is off by 6e-5 of an index."""
    heard = []

    def net(x, k, **_):
        heard.append(k)
        return {"sample": x}

    model = diffusers_model(net, scheduler={"_class_name": "DDPMScheduler"})
    for dtype in (torch.float32, torch.float64):
        t = 1 - (torch.arange(1000, dtype=torch.float64) + 1) / 1000
        model(torch.zeros(1000, 1, dtype=dtype), t.to(dtype))
        assert torch.equal(heard.pop(), torch.arange(1000, dtype=dtype))


def test_gradients_reach_states_and_weights():
    net, x = unet(), noise().requires_grad_()
    model = diffusers_model(net, scheduler={"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"})
    model(x, torch.full((3,), 0.3, dtype=torch.float64)).square().sum().backward()
    assert x.grad.abs().max() > 0
    assert all(p.grad is not None for p in net.parameters())


def test_prediction_and_schedule_other_than_declared_are_refused():
    config = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
    with pytest.raises(fm.PredictionError, match=r"predicts 'v'.*'noise'.*prediction_type"):
        diffusers_model(unet(), scheduler=config, predicts="noise")
    model = diffusers_model(unet(), scheduler=config, predicts="v")
    for path in (fm.build("path", "ddpm", betas="scaled_linear"), "linear"):
        with pytest.raises(fm.CompatError, match="trained on another path"):
            fm.compose(path=path, model=model, solver="ddim")
    fm.compose(path="ddpm", model=model, solver="ddim")


def test_noise_prediction_under_zero_terminal_snr_is_refused():
    config = {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}
    with pytest.raises(fm.CompatError, match=r"zero signal-to-noise"):
        fm.compose(path=diffusers_path(config), model=diffusers_model(unet(), scheduler=config), solver="ddim")
    config["prediction_type"] = "v_prediction"
    fm.compose(path=diffusers_path(config), model=diffusers_model(unet(), scheduler=config), solver="ddim")


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"_class_name": "DDIMSheduler"}, fm.SavedFileError, "did you mean.*DDIMScheduler"),
        ({"_class_name": "LCMScheduler"}, fm.SavedFileError, "consistency"),
        ({"_class_name": "FlowMatchLCMScheduler"}, fm.SavedFileError, "consistency"),
        ({"prediction_type": "epsilon"}, fm.SavedFileError, "_class_name"),
        ({**DDPM, "prediction_type": "eps"}, fm.PredictionError, "epsilon"),
        ({**DDPM, "prediction_type": "flow_prediction"}, fm.PredictionError, "use_flow_sigmas"),
        ({**DDPM, "use_flow_sigmas": True, "prediction_type": "v_prediction"}, fm.PredictionError, "ambiguous"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, fm.SavedFileError, "rising"),
        ({"beta_schedule": "sigmoid"}, fm.SavedFileError, "trained_betas"),
        ({**DDPM, "trained_betas": [0.1] * 5}, fm.SavedFileError, "5 trained_betas"),
        ({**DDPM, "timestep_type": "continuous"}, fm.SavedFileError, "c_noise"),
        ("DDIMScheduler", fm.SavedFileError, "mapping"),
    ],
)
def test_schedulers_that_are_not_understood_are_refused(config, error, words):
    with pytest.raises(error, match=words):
        diffusers_path(config)


def test_configurations_in_memory_are_told_by_what_they_hold():
    """diffusers names the class in files only; a flow taken for a diffusion would be sampled as noise."""
    for flow in FLOWS:
        assert read_scheduler(getattr(diffusers, flow)().config).path == "linear"
    assert read_scheduler(diffusers.DDIMScheduler().config).path == "ddpm"
    for other in ("LCMScheduler", "TCDScheduler", "EDMEulerScheduler", "ScoreSdeVeScheduler", "FlowMatchLCMScheduler"):
        with pytest.raises(fm.SavedFileError, match="not among those"):
            read_scheduler(getattr(diffusers, other)().config)


def test_flow_sigmas_of_other_schedulers_make_a_flow():
    config = diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True).config
    scheduled = read_scheduler(config)
    assert (scheduled.path, str(scheduled.predicts), scheduled.sign) == ("linear", "velocity", -1)


def test_networks_of_other_channels_are_refused():
    with pytest.raises(fm.ShapeError, match="joined to the state"):
        diffusers_model(unet(in_channels=3), scheduler={"_class_name": "PNDMScheduler"})


@pytest.mark.usefixtures("global_rng_untouched")
def test_a_network_is_built_by_name_from_configurations():
    first, again, other = (
        fm.build("model", "diffusers", architecture="UNet2DModel", config=UNET, scheduler=DDPM, seed=seed)
        for seed in (0, 0, 1)
    )
    t, x = torch.tensor([0.2, 0.5, 0.9]), noise(dtype=torch.float32)
    assert torch.equal(first(x, t), again(x, t))
    assert not torch.equal(first(x, t), other(x, t))
    with pytest.raises(fm.UnknownNameError, match=r"did you mean 'UNet2DModel'"):
        diffusers_network("UNet2dModel", UNET, DDPM)
    with pytest.raises(fm.SavedFileError, match="no 'time_embed'"):
        diffusers_network("UNet2DModel", {**UNET, "time_embed": "fourier"}, DDPM)
