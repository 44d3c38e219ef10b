"""EDM's preconditioning: table 1 on α = 1, unit variances on every path, the limits at both ends."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

import fm_core as fm
from fm_core.errors import CompatError
from fm_core.gaussian import GaussianPath
from fm_core.randomness import make_generator
from fm_plugins.networks.edm_precond import EDMPrecond
from fm_plugins.networks.mlp import MLP
from fm_plugins.networks.unet import UNet


@frozen
class Falling:
    """α = 1, σ = 80·(1 − t): EDM's path as a schedule of t."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return 80 * (1 - t)


class Recorder(nn.Module):
    """Remembers what it was asked, and returns a fixed function of it."""

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        self.x, self.t, self.cond = x, t, cond
        return x.sin() + t.reshape(-1, *[1] * (x.ndim - 1))


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(2,), (3,), (1, 4, 5)], ids=str)
def test_equals_table_1_where_alpha_is_one(sigma_data: float, shape: tuple[int, ...]) -> None:
    net = Recorder()
    g = make_generator(0)
    t = torch.rand(3, generator=g, dtype=torch.float64) * 0.9
    x = torch.randn(3, *shape, generator=g, dtype=torch.float64)
    answer = EDMPrecond(net, path=GaussianPath(Falling()), sigma_data=sigma_data)(x, t)
    sigma = (80 * (1 - t)).reshape(-1, *[1] * len(shape))
    skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    out = sigma * sigma_data / (sigma**2 + sigma_data**2).sqrt()
    inside = 1 / (sigma**2 + sigma_data**2).sqrt()
    expected = skip * x + out * Recorder()(inside * x, sigma.flatten().log() / 4)
    torch.testing.assert_close(answer, expected, rtol=1e-12, atol=1e-12)


def test_input_and_target_of_the_inner_network_have_unit_variance(path: GaussianPath) -> None:
    """Karras et al., appendix B.6, as exact second moments: x1 of variance σ_d², x0 of variance 1."""
    sigma_data = 0.7
    precond = EDMPrecond(Recorder(), path=path, sigma_data=sigma_data)
    t = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    alpha, sigma = path.alpha(t), path.sigma(t)
    skip, out, scale = precond.coefficients(alpha, sigma)
    one = torch.ones_like(t)
    torch.testing.assert_close(scale**2 * (alpha**2 * sigma_data**2 + sigma**2), one, rtol=1e-12, atol=0)
    target = ((1 - skip * alpha) ** 2 * sigma_data**2 + skip**2 * sigma**2) / out**2
    torch.testing.assert_close(target, one, rtol=1e-9, atol=0)


def test_skip_makes_the_amplification_of_errors_smallest(path: GaussianPath) -> None:
    """c_out² = (1 − c_skip·α)²σ_d² + c_skip²σ² is least at this c_skip: 0 slope, and more on both sides."""
    sigma_data = 0.7
    t = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    alpha, sigma = path.alpha(t), path.sigma(t)
    skip, out, _ = EDMPrecond(Recorder(), path=path, sigma_data=sigma_data).coefficients(alpha, sigma)

    def amplification(c: Tensor) -> Tensor:
        return (1 - c * alpha) ** 2 * sigma_data**2 + c**2 * sigma**2

    torch.testing.assert_close(amplification(skip), out**2, rtol=1e-9, atol=0)
    assert (amplification(skip + 1e-3) > out**2).all()
    assert (amplification(skip - 1e-3) > out**2).all()


def test_right_inner_answer_gives_the_data(path: GaussianPath) -> None:
    """F's target put in for F: D is x1, whatever the path."""

    class Target(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return (x1 - skip * sample.x_t) / out

    g = make_generator(2)
    x0, x1 = (torch.randn(5, 2, 3, generator=g, dtype=torch.float64) for _ in range(2))
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    precond = EDMPrecond(Target(), path=path)
    sample = path.interpolate(x0, x1, t)
    skip, out, _ = (c.reshape(-1, 1, 1) for c in precond.coefficients(path.alpha(t), path.sigma(t)))
    torch.testing.assert_close(precond(sample.x_t, t), x1, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_exact_and_finite(paths: dict[str, GaussianPath], dtype: torch.dtype) -> None:
    """Where σ = 0 the data is the state; where α = 0 it is σ_d·F, of an input of unit variance."""
    net = MLP(2, time="fourier", seed=0).to(dtype)
    precond = EDMPrecond(net, path=paths["linear"], sigma_data=0.7)
    x = torch.randn(4, 2, generator=make_generator(1), dtype=dtype)
    torch.testing.assert_close(precond(x, torch.ones(4, dtype=dtype)), x, rtol=1e-6, atol=1e-6)
    at_noise = precond(x, torch.zeros(4, dtype=dtype))
    torch.testing.assert_close(at_noise, 0.7 * net(x, torch.full((4,), math.log(1e4) / 4, dtype=dtype)))
    close = precond(x, torch.full((4,), 1 - 1e-6, dtype=dtype))
    torch.testing.assert_close(close, x, rtol=1e-4, atol=1e-4)


def test_inner_network_is_given_a_quarter_of_the_log_noise_or_the_time(paths: dict[str, GaussianPath]) -> None:
    net, t = Recorder(), torch.tensor([0.25, 0.5])
    x = torch.zeros(2, 2)
    EDMPrecond(net, path=paths["linear"])(x, t)
    torch.testing.assert_close(net.t, torch.tensor([3.0, 1.0]).log() / 4)
    assert net.cond is None
    EDMPrecond(net, path=paths["linear"], noise="t")(x, t, torch.tensor([1, 2]))
    assert torch.equal(net.t, t)
    assert torch.equal(net.cond, torch.tensor([1, 2]))


def test_bfloat16_states_have_times_of_their_own_precision(paths: dict[str, GaussianPath]) -> None:
    net = Recorder()
    y = EDMPrecond(net, path=paths["vp"])(
        torch.zeros(3, 2, dtype=torch.bfloat16), torch.rand(3, generator=make_generator(0))
    )
    assert net.t.dtype == torch.float32
    assert net.x.dtype == torch.bfloat16
    assert y.isfinite().all()


def test_state_dict_is_the_inner_networks() -> None:
    net = MLP(2, seed=0)
    assert set(EDMPrecond(net, path="linear").state_dict()) == {f"net.{name}" for name in net.state_dict()}


def test_network_compiles_without_graph_break() -> None:
    net = UNet((1, 4, 4), width=8, multipliers=(1,), blocks=1, heads=1, seed=0)
    precond = EDMPrecond(net, path="linear")
    torch._dynamo.reset()
    x, t = torch.zeros(2, 1, 4, 4), torch.tensor([0.1, 0.9])
    compiled = torch.compile(precond, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t), precond(x, t))


def test_configurations_are_built() -> None:
    precond = EDMPrecond(
        {"kind": "model", "name": "mlp", "shape": 2, "seed": 3},
        path={"kind": "path", "name": "linear", "sigma_min": 0.01},
    )
    torch.testing.assert_close(precond.net.state_dict(), MLP(2, seed=3).state_dict(), rtol=0, atol=0)
    assert float(precond.path.sigma(torch.ones(()))) == pytest.approx(0.01)


def test_preconditioned_network_is_trained_and_sampled_as_data_prediction() -> None:
    """On N(1, 0.25·I), whose posterior mean preconditioning nearly is from the start."""

    def data(n: int, generator: torch.Generator) -> Tensor:
        return 1 + 0.5 * torch.randn(n, 2, generator=generator)

    net = fm.build("model", "edm_precond", net=fm.build("model", "mlp", shape=2, time="fourier", seed=0), path="linear")
    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="data"), objective="cfm", solver="heun")
    result = pipe.fit(data, steps=150, batch_size=256, seed=0)
    x = result.pipeline.sample((512, 2), steps=10, seed=0).x
    assert (x.mean(0) - 1).abs().max() < 0.15
    assert (x.std(0) - 0.5).abs().max() < 0.15


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sigma_data": 0.0}, ValueError, "above 0; got 0.0"),
        ({"sigma_data": math.inf}, ValueError, "above 0"),
        ({"noise": "cnoise"}, ValueError, "did you mean 'c_noise'"),
        ({"path": {"name": "icfm", "sigma": 0.1}}, CompatError, "ICFM has no alpha and sigma"),
    ],
    ids=str,
)
def test_bad_options_are_refused_when_built(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EDMPrecond(MLP(2), **{"path": "linear", **options})
