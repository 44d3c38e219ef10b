"""Every objective of the diffusion family is least at the exact prediction, and is configured by values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import Field, Matching, Model
from fm_core.registry import from_config, to_config
from fm_core.testing import GaussianMixture

DATA = GaussianMixture([[-1.0], [0.8]], [0.5, 0.7], [0.4, 0.6])
OBJECTIVES: list[tuple[str, dict[str, Any]]] = [
    ("ddpm", {}),
    ("ddpm", {"weight": {"name": "min_snr", "gamma": 5.0}, "time": "stratified"}),
    ("dsm", {}),
    ("dsm", {"weight": "likelihood"}),
    ("dsm", {"sigma": 0.4}),
    ("data", {"weight": "truncated_snr"}),
    ("v", {"weight": {"name": "sigmoid", "bias": 1.0}, "time": {"name": "logit_normal", "mean": 0.5}}),
    ("v", {}),
    ("edm", {"sigma_data": 0.8}),
]
KINDS = {"ddpm": "noise", "dsm": "score", "data": "data", "v": "v", "edm": "data"}


def expectation(nodes: int = 100) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    z, w = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(nodes))
    w = w / w.sum()
    x0, standard = torch.cartesian_prod(z, z).unbind(1)
    for mean, std, weight in zip(DATA.means[:, 0], DATA.stds, DATA.weights, strict=True):
        yield x0[:, None], (mean + std * standard)[:, None], weight * torch.outer(w, w).flatten()


@pytest.mark.parametrize(("name", "options"), OBJECTIVES, ids=str)
@pytest.mark.parametrize("path_name", ["vp", "cosine", "ve", "ddpm", "linear"])
def test_the_exact_prediction_is_where_the_loss_is_least(path_name: str, name: str, options: dict[str, Any]) -> None:
    """At times of its own drawing, the derivative of the expected loss along any perturbation vanishes there, and the
    second is positive; along a wrong field it does not vanish.
    """
    path, objective = fm.build("path", path_name), fm.build("objective", name, **options)
    exact = DATA.model(path, objective.kind)
    times = objective.sample_time(path, 2, generator=torch.Generator().manual_seed(1)).double()
    for t in times:
        shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)

        def perturbed(x: Tensor, s: Tensor, shift: Tensor = shift) -> Tensor:
            scaled = x / (path.alpha(s) + path.sigma(s))[:, None]
            return (
                exact.net(x, s) + shift[0] + shift[1] * torch.sin(2 * scaled) + shift[2] * torch.exp(-scaled.square())
            )

        field = Field(Model(perturbed, objective.kind), path)
        loss = sum(
            (weight * objective.loss(field, path.interpolate(x0, x1, t.expand(len(x0))))).sum()
            for x0, x1, weight in expectation()
        )
        slope = torch.autograd.grad(loss, shift, create_graph=True)[0]
        curvature = torch.autograd.grad(slope.sum(), shift)[0]
        assert (curvature > 0).all()
        assert (slope.abs() / curvature).max() < 1e-7


@pytest.mark.parametrize(("name", "options"), OBJECTIVES, ids=str)
def test_objectives_are_saved_with_their_options(name: str, options: dict[str, Any]) -> None:
    objective = fm.build("objective", name, **options)
    again = from_config("objective", json.loads(json.dumps(to_config(objective))))
    assert again == objective or again.weight.kind == objective.weight.kind
    assert objective.kind == KINDS[name]
    assert isinstance(again, Matching)


@pytest.mark.parametrize("path_name", ["vp", "sub_vp", "ve", "edm", "cosine", "ddpm", "linear"])
@pytest.mark.parametrize(("name", "options"), OBJECTIVES, ids=str)
def test_losses_are_finite_on_every_path(path_name: str, name: str, options: dict[str, Any]) -> None:
    """Of images in float32, at times drawn by the objective, for a network of each kind."""
    path, objective = fm.build("path", path_name), fm.build("objective", name, **options)
    generator = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 512, 1, 2, 2, generator=generator)
    t = objective.sample_time(path, 512, generator=generator)
    low, high = path.span(objective.kind, objective.needs)
    assert low <= float(t.double().min())
    assert float(t.double().max()) <= high
    loss = objective.loss(Field(Model(lambda x, t: x.tanh(), objective.kind), path), path.interpolate(x0, x1, t))
    assert (loss.shape, loss.dtype) == ((512,), torch.float32)
    assert loss.isfinite().all()


def test_edm_times_and_weight_make_the_raw_output_count_alike() -> None:
    """With c_skip and c_out of EDM's preconditioning the weight on the raw network's output is 1 at every level."""
    path, objective = fm.build("path", "edm"), fm.build("objective", "edm", sigma_data=0.7)
    t = objective.sample_time(path, 64, generator=torch.Generator().manual_seed(0)).double()
    level = path.sigma(t)
    c_out = level * 0.7 / (level**2 + 0.49).sqrt()
    torch.testing.assert_close(
        objective.weight(path, t, objective.kind) * c_out**2, torch.ones_like(t), rtol=1e-10, atol=0
    )
