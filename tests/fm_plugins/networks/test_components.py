"""Every network by its name: built from its example, trained, sampled, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core.randomness import make_generator
from fm_plugins.networks import fm_components

COMPONENTS = {component.name: component for component in fm_components()}
HUGE = {"dit_b", "dit_l", "dit_xl", "unet_cifar10"}
FIELDS = sorted(COMPONENTS.keys() - {"noisy_classifier"})
IMAGE_NETS: list[dict[str, Any]] = [
    {"name": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [-1], "heads": 2, "classes": 3},
    {"name": "unet", "width": 8, "multipliers": [1], "blocks": 1, "heads": 2, "dropout": 0.2, "cond_dim": 2},
    {"name": "dit", "width": 16, "depth": 1, "heads": 2, "classes": 3, "checkpoint": True},
]


@pytest.mark.parametrize("name", FIELDS)
def test_every_network_is_built_from_its_example_and_called(name: str) -> None:
    """Those of hundreds of millions of weights as shapes only."""
    example = dict(COMPONENTS[name].example)
    with torch.device("meta" if name in HUGE else "cpu"):
        net = fm.registry.from_config("model", {"name": name, **example})
        shape = example.get("shape", 2)
        x = torch.zeros(2, *([shape] if isinstance(shape, int) else shape))
        assert net(x, torch.full((2,), 0.5)).shape == x.shape


def test_classifier_is_built_from_its_example_and_called() -> None:
    net = fm.build("model", "noisy_classifier", **dict(COMPONENTS["noisy_classifier"].example))
    assert net(torch.zeros(2, 1, 8, 8), torch.ones(2)).shape == (2, 10)


def test_every_component_says_what_it_is_and_where_it_comes_from() -> None:
    assert all(component.summary and "https://" in component.reference for component in COMPONENTS.values())


def data(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.randint(0, 3, (n,), generator=generator)
    return torch.randn(n, 1, 4, 4, generator=generator) * 0.1 + labels[:, None, None, None] - 1, labels


@pytest.mark.parametrize("config", IMAGE_NETS, ids=str)
def test_network_is_trained_sampled_saved_and_loaded(config: dict[str, Any], tmp_path: Path) -> None:
    net = fm.registry.from_config("model", {**config, "shape": [1, 4, 4], "seed": 0})
    vector = "cond_dim" in config
    null = torch.zeros(2) if vector else 3

    def rows(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x1, labels = data(n, generator)
        return x1, labels.float()[:, None].expand(-1, 2) if vector else labels

    pipe = fm.compose(
        path="linear", model=fm.Model(net, predicts="velocity", null=null), objective="cfm", solver="heun"
    )
    pipe = pipe.fit(rows, steps=4, batch_size=16, seed=0).pipeline
    cond = rows(5, make_generator(1))[1]
    x = pipe.sample((5, 1, 4, 4), steps=2, seed=0, cond=cond).x
    assert x.isfinite().all()
    pipe.save(tmp_path)
    again = fm.load(tmp_path).sample((5, 1, 4, 4), steps=2, seed=0, cond=cond).x
    assert torch.equal(again, x)


@pytest.mark.parametrize("path", ["linear", {"name": "linear", "sigma_min": 0.01}], ids=str)
def test_preconditioned_network_is_saved_and_loaded(path: Any, tmp_path: Path) -> None:
    inner = fm.registry.from_config("model", {**IMAGE_NETS[0], "shape": [1, 4, 4], "seed": 0})
    net = fm.build("model", "edm_precond", net=inner, path=path, sigma_data=0.8)
    pipe = fm.compose(path=path, model=fm.Model(net, predicts="data", null=3), objective="cfm", solver="heun")
    pipe = pipe.fit(data, steps=3, batch_size=16, seed=0).pipeline
    cond = torch.arange(4)
    x = pipe.sample((4, 1, 4, 4), steps=2, seed=0, cond=cond).x
    pipe.save(tmp_path)
    assert torch.equal(fm.load(tmp_path).sample((4, 1, 4, 4), steps=2, seed=0, cond=cond).x, x)
