"""Networks of other conventions give what their own libraries' loops give, on the whole trajectory."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from torchdiffeq import odeint

import fm_core as fm
from fm_core.fit.global_rng import own_randomness
from fm_core.registry import components, from_config, to_config
from fm_plugins.adapters.adapt import adapt, edm, flow_matching, torchcfm
from fm_plugins.adapters.convention import CLOCKS, Convention


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mlp(shape: int | tuple[int, ...] = 2, dtype: torch.dtype = torch.float64) -> nn.Module:
    return fm.build("model", "mlp", shape=shape, width=16, depth=2, seed=0).to(dtype)


def trajectory(pipe: fm.Pipeline, **arguments) -> Tensor:
    return pipe.sample(**arguments, trajectory=True).trajectory


class TimeFirst(nn.Module):
    """TorchCFM's way: net(t, x, y), t one number or one for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = mlp()

    def forward(self, t: Tensor, x: Tensor, y: Tensor | None = None) -> Tensor:
        velocity = self.inside(x, t.expand(len(x)))
        return velocity if y is None else velocity * y[:, None]


class Extras(nn.Module):
    """flow_matching's way: forward(x, t, **extras)."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = mlp()

    def forward(self, x: Tensor, t: Tensor, **extras: Tensor) -> Tensor:
        return self.inside(x, t.expand(len(x))) * extras.get("gain", torch.ones(len(x)))[:, None]


class Scalar(nn.Module):
    """TorchCFM's torch_wrapper: one time () is repeated for the batch, and is a column of the input."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.net(torch.cat([x, t.repeat(len(x))[:, None]], 1))


@pytest.mark.parametrize(("solver", "method"), [("euler", "euler"), ("midpoint", "midpoint"), ("heun", "heun2")])
@pytest.mark.parametrize("library", ["torchcfm", "flow_matching"])
def test_trajectories_equal_odeint_of_the_foreign_module(library, solver, method):
    """Both libraries sample by torchdiffeq's odeint on their own module, from t = 0 to t = 1."""
    net, adapted = (TimeFirst(), torchcfm) if library == "torchcfm" else (Extras(), flow_matching)
    x0 = draw(5, 2)
    times = torch.linspace(0, 1, 11, dtype=torch.float64)
    with torch.no_grad():
        theirs = odeint(net if library == "torchcfm" else lambda t, x: net(x=x, t=t), x0, times, method=method)
    pipe = fm.compose(path="linear", model=adapted(net), solver=solver)
    ours = trajectory(pipe, x0=x0, steps=10)
    assert pipe.model.net is net
    assert (theirs[0] - theirs[-1]).abs().max() > 0.1
    assert (ours - theirs).abs().max() < 1e-13


def test_networks_of_torchcfm_itself():
    """Its MLP of [x, t], bare and as torch_wrapper calls it, and its U-Net with class labels."""
    models = pytest.importorskip("torchcfm.models.models")
    unet = pytest.importorskip("torchcfm.models.unet.unet")
    with own_randomness(0, torch.device("cpu")):
        net = models.MLP(dim=2, w=16, time_varying=True).double()
        image = unet.UNetModelWrapper(
            (1, 8, 8), 32, 1, channel_mult=(1,), class_cond=True, num_classes=4, num_heads=1
        ).eval()
        for weights in image.out.parameters():  # it begins with zeros
            nn.init.normal_(weights, std=0.1)
    x0, times = draw(4, 2), torch.linspace(0, 1, 9, dtype=torch.float64)
    with torch.no_grad():
        theirs = odeint(Scalar(net), x0, times, method="euler")
    bare = adapt(net, predicts="velocity", convention={"order": "cat"})
    for model in (bare, torchcfm(Scalar(net), one_time=True)):
        ours = trajectory(fm.compose(path="linear", model=model, solver="euler"), x0=x0, steps=8)
        assert (ours - theirs).abs().max() < 1e-13
    images, labels = draw(3, 1, 8, 8, dtype=torch.float32), torch.tensor([0, 3, 1])
    with torch.no_grad():
        theirs = odeint(lambda t, x: image(t, x, labels), images, times[::4].float(), method="euler")
    ours = trajectory(fm.compose(path="linear", model=torchcfm(image), solver="euler"), x0=images, steps=2, cond=labels)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_conditions_reach_foreign_keywords():
    x, t, gain = draw(3, 2), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0])
    plain = mlp()(x, t)
    assert torch.equal(torchcfm(TimeFirst())(x, t, gain), plain * gain[:, None])
    assert torch.equal(flow_matching(Extras())(x, t, {"gain": gain}), plain * gain[:, None])
    assert torch.equal(flow_matching(Extras(), cond="gain")(x, t, gain), plain * gain[:, None])
    with pytest.raises(fm.ConditionError, match="by name"):
        flow_matching(Extras())(x, t, gain)


def test_a_network_of_one_time_refuses_several():
    """Else all samples of a training batch would be told the first one's time."""
    model = torchcfm(Scalar(nn.Linear(3, 2).double()), one_time=True)
    assert model(draw(3, 2), torch.full((3,), 0.5, dtype=torch.float64)).shape == (3, 2)
    with pytest.raises(fm.TimeError, match=r"one time for the whole batch.*0\.1 to 0\.9"):
        model(draw(2, 2), torch.tensor([0.1, 0.9], dtype=torch.float64))


@frozen
class Falling:
    """EDM's path with σ falling evenly, so that Heun's method in t is Heun's method in σ."""

    high: float = 8.0
    low: float = 0.01
    closing: bool = True

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.high + (self.low - self.high) * t


class Preconditioned(nn.Module):
    """D(x; σ) = c_skip·x + c_out·F(c_in·x, c_noise), with the coefficients of Karras et al., table 1."""

    def __init__(self, data_std: float = 0.5) -> None:
        super().__init__()
        self.raw, self.data_std = mlp(), data_std

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        s, sigma = self.data_std, sigma[:, None]
        total = (sigma**2 + s**2).sqrt()
        return x * (s / total) ** 2 + sigma * s / total * self.raw(x / total, sigma[:, 0].log() / 4)


@torch.no_grad()
def karras(net: nn.Module, x: Tensor, sigmas: Tensor, *, heun: bool) -> list[Tensor]:
    """Algorithm 1 of Karras et al. without churn, for s(t) = 1 and σ(t) = t."""
    states = [x]
    for now, after in pairwise(sigmas):
        slope = (x - net(x, now.expand(len(x)))) / now
        new = x + (after - now) * slope
        if heun and after > 0:
            new = x + (after - now) * (slope + (new - net(new, after.expand(len(x)))) / after) / 2
        x = new
        states.append(x)
    return states


def test_an_edm_denoiser_equals_karras_heun_loop():
    net, path, x0 = Preconditioned(), fm.GaussianPath(Falling()), draw(4, 2)
    sigmas = torch.cat([torch.linspace(8.0, 0.01, 13, dtype=torch.float64), torch.zeros(1)])
    theirs = torch.stack(karras(net, 8.0 * x0, sigmas, heun=True))
    ours = trajectory(fm.compose(path=path, model=edm(net, path=path), solver="heun"), x0=x0, steps=12)
    assert (theirs[0] - theirs[-1]).abs().max() > 1
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-12


def test_an_edm_denoiser_runs_on_other_paths_through_x_over_alpha(path):
    """Euler's method in σ is DDIM on every Gaussian path, state for state: x = α·(the state of α = 1)."""
    net, x = Preconditioned(), draw(4, 2)
    times = torch.linspace(0.05, 0.95, 12, dtype=torch.float64)
    alpha = path.alpha(times)
    theirs = karras(net, x, path.sigma(times) / alpha, heun=False)
    ours = []
    with torch.no_grad():
        fm.build("solver", "ddim").solve(
            fm.Field(edm(net, path=path, sigma_max=1e6), path), x * alpha[0], times, on_step=lambda t, x: ours.append(x)
        )
    assert (torch.stack(ours) / alpha[:, None, None] - torch.stack(theirs)).abs().max() < 1e-11 * x.abs().max()


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 2, 5, 5)])
def test_an_edm_denoiser_gives_the_data_prediction_in_closed_form(path, shape):
    """For N(0, s²): D(y; σ) = s²/(s² + σ²)·y, and E[x1 | x_t] = α·s²/(α²·s² + σ²)·x_t."""

    def net(y: Tensor, sigma: Tensor) -> Tensor:
        return 0.49 / (0.49 + sigma.reshape(-1, *[1] * (y.ndim - 1)) ** 2) * y

    x, t = draw(*shape), torch.linspace(0.1, 0.9, shape[0], dtype=torch.float64)
    alpha, sigma = path.alpha(t), path.sigma(t)
    exact = (0.49 * alpha / (0.49 * alpha**2 + sigma**2)).reshape(-1, *[1] * (x.ndim - 1)) * x
    assert (edm(net, path=path, sigma_max=1e6)(x, t) - exact).abs().max() < 1e-14


def test_an_edm_denoiser_is_not_asked_beyond_its_noise_levels():
    """Where σ/α exceeds sigma_max, at α = 0 even, it sees noise of that level; below, nothing changes."""
    heard = []

    def net(y: Tensor, sigma: Tensor) -> Tensor:
        heard.append((y, sigma))
        return y / (1 + sigma[:, None] ** 2)

    x, t = draw(3, 2), torch.tensor([0.0, 1e-3, 0.5], dtype=torch.float64)
    edm(net, path="linear", sigma_max=50.0)(x, t)
    y, sigma = heard.pop()
    assert torch.allclose(sigma, torch.tensor([50.0, 50.0, 1.0], dtype=torch.float64), rtol=1e-15)
    assert torch.allclose(y, x * torch.tensor([50.0, 50.0 / 0.999, 2.0], dtype=torch.float64)[:, None], rtol=1e-14)
    out = fm.compose(path="linear", model=edm(net, path="linear"), solver="heun").sample((4_000, 1), steps=40, seed=0)
    assert abs(float(out.x.std()) - 1) < 0.05


@pytest.mark.parametrize("clock", CLOCKS)
def test_clocks_tell_the_same_time(clock, paths):
    """Each reading, turned back by its definition, is t."""
    path = paths["cosine"]
    t = torch.tensor([0.125, 0.5, 0.75], dtype=torch.float64)
    told = Convention(clock=clock, steps=8, path=path).told(t)
    back = {
        "rising": lambda r: r,
        "falling": lambda r: 1 - r,
        "index": lambda k: 1 - (k + 1) / 8,
        "sigma": lambda s: torch.atan(1 / s) * 2 / math.pi,
        "c_noise": lambda c: torch.atan(torch.exp(-4 * c)) * 2 / math.pi,
        "log_snr": lambda r: torch.atan(torch.exp(r / 2)) * 2 / math.pi,
    }[clock]
    assert (back(told) - t).abs().max() < 1e-14
    scaled = Convention(clock=clock, steps=8, path=path, scale=1000).told(t)
    assert torch.equal(scaled, told * 1000)
    assert Convention(clock=clock, steps=8, path=path).told(t.float()).dtype == torch.float32


def test_integers_are_told_on_knots_alone():
    convention = Convention(clock="index", steps=1000, rounding="knots")
    k = torch.arange(1000)
    for dtype in (torch.float32, torch.float64):
        t = (1 - (k.double() + 1) / 1000).to(dtype)
        assert torch.equal(convention.told(t), k)
    with pytest.raises(fm.TimeError, match=r"t = 0\.4995 is 499\.5.*knots"):
        convention.told(torch.tensor([0.5, 0.4995]))
    nearest = Convention(clock="index", steps=1000, rounding="nearest")
    assert nearest.told(torch.tensor([0.4992])).tolist() == [500]


@pytest.mark.parametrize(
    ("output", "wrap"),
    [
        (None, lambda x: x),
        ("sample", lambda x: SimpleNamespace(sample=x)),
        ("sample", lambda x: {"sample": x}),
        (0, lambda x: (x, None)),
        (1, lambda x: [None, x]),
    ],
)
def test_predictions_are_found_in_what_comes_back(output, wrap):
    x, t = draw(2, 3), torch.zeros(2)
    model = adapt(lambda x, t: wrap(2 * x), predicts="data", convention={"output": output, "sign": -1})
    assert torch.equal(model(x, t), -2 * x)


def test_the_first_channels_are_the_prediction_of_learned_variances():
    model = adapt(lambda x, t: torch.cat([x, -x], 1), predicts="noise", convention={"learned_variance": True})
    for shape in ((1, 1), (3, 3), (2, 3, 4, 4)):
        x = draw(*shape)
        assert torch.equal(model(x, torch.zeros(shape[0])), x)
    with pytest.raises(fm.ShapeError, match="twice the state's 3 channels"):
        adapt(lambda x, t: x, predicts="noise", convention={"learned_variance": True})(draw(2, 3), torch.zeros(2))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Convention(clock="sigmas"), ValueError, "did you mean 'sigma'"),
        (lambda: Convention(order="xtc"), ValueError, "order is one of"),
        (lambda: Convention(sign=0), ValueError, "sign is one of"),
        (lambda: Convention(clock="sigma"), ValueError, "give path="),
        (lambda: Convention(rescaled=True), ValueError, "give path="),
        (lambda: adapt(print, predicts="v", convention={"clocks": "sigma"}), fm.FMError, "did you mean 'clock'"),
        (lambda: adapt(print, predicts="x0"), fm.PredictionError, "ambiguous"),
        (lambda: edm(print, path="linear", predicts="velocity"), fm.PredictionError, "predicts='data'"),
    ],
)
def test_conventions_that_mean_nothing_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("output", [None, "sample", 3])
def test_an_output_without_the_prediction_is_refused(output):
    model = adapt(lambda x, t: SimpleNamespace(mean=x), predicts="data", convention={"output": output})
    with pytest.raises(fm.ShapeError, match="SimpleNamespace"):
        model(draw(2, 2), torch.zeros(2))


def test_another_path_than_the_convention_s_is_refused():
    """Its σ/α would be those of another state."""
    with pytest.raises(fm.CompatError, match="another path"):
        fm.compose(path="cosine", model=edm(Preconditioned(), path="linear"), solver="heun")


def test_a_model_is_its_module_to_devices_and_dtypes():
    net = TimeFirst().float()
    pipe = fm.compose(path="linear", model=torchcfm(net), solver="euler", objective="cfm", dtype=torch.float64)
    assert pipe.placement[1] == torch.float64
    trained = pipe.fit(draw(64, 2), steps=3, batch_size=16, seed=0).pipeline.model
    assert all(not torch.equal(a, b) for a, b in zip(net.parameters(), trained.net.parameters(), strict=True))
    assert trained.call is pipe.model.call


def test_adapted_networks_are_built_and_written_by_name():
    """Options are JSON, the network inside included, and build an equal model."""
    config = {
        "name": "adapted",
        "net": {"kind": "model", "name": "mlp", "shape": 2, "seed": 3},
        "predicts": "noise",
        "convention": {"clock": "sigma", "path": {"kind": "path", "name": "linear"}, "rescaled": True},
    }
    model = fm.compose(path="linear", model=config, solver="heun").model
    written = json.loads(json.dumps(to_config(model)))
    again = from_config("model", written)
    x, t = draw(3, 2, dtype=torch.float32), torch.tensor([0.2, 0.5, 0.7])
    assert written["convention"]["clock"] == "sigma"
    assert torch.equal(model(x, t), again(x, t))
    assert again.trained == model.trained


def test_every_component_but_the_folder_builds_from_its_example():
    own = {item.component.key: item.component for item in components() if item.plugin == "adapters"}
    assert len(own) == 7
    assert [key for key, component in own.items() if not component.example] == ["model/diffusers_folder"]
    for key in ("model/adapted", "model/torchcfm", "model/flow_matching", "model/edm_denoiser"):
        model = fm.build("model", key.partition("/")[2], **own[key].example)
        assert model(draw(3, 2, dtype=torch.float32), torch.tensor([0.2, 0.5, 0.9])).shape == (3, 2)
    assert fm.build("path", "diffusers", **own["path/diffusers"].example).span("noise") == (0.0, 0.999)


def test_a_convention_is_a_value():
    convention = Convention(clock="index")
    assert evolve(convention, steps=10).told(torch.tensor([0.5])).tolist() == [4.0]
