"""Every network of a pipeline is found, wherever it is held, and moves with it."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor, nn

import fm_core as fm
from fm_core.holding import held_networks


@frozen(eq=False)
class Codec:
    """A linear autoencoder."""

    there: nn.Module
    back: nn.Module

    def encode(self, x: Tensor) -> Tensor:
        return self.there(x)  # type: ignore[no-any-return]

    def decode(self, z: Tensor) -> Tensor:
        return self.back(z)  # type: ignore[no-any-return]


def test_networks_are_found_in_attributes_options_and_lists_once() -> None:
    one, two, three = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    guidance = fm.build("guidance", "interval", guidance=fm.build("guidance", "classifier", classifier=one))
    assert held_networks([guidance, {"a": two}], Codec(two, three), one) == [one, two, three]
    assert held_networks(fm.Model(lambda x, t: x, "velocity"), nn.Identity(), 3, "text") == []


def test_pipeline_moves_the_networks_of_its_guidances_and_codec() -> None:
    net = fm.build("model", "mlp", shape=2, classes=3, width=8, seed=0)
    weak = fm.Model(fm.build("model", "mlp", shape=2, classes=3, width=4, seed=1), "velocity", null=3)
    judge = fm.build("model", "noisy_classifier", shape=2, classes=3, width=4, seed=0)
    codec = Codec(nn.Linear(2, 2), nn.Linear(2, 2))
    pipe = fm.compose(
        path="linear",
        model=fm.Model(net, "velocity", null=3),
        solver="euler",
        guidance=[
            fm.build("guidance", "autoguidance", weak=weak, scale=2.0),
            fm.build("guidance", "interval", guidance=fm.build("guidance", "classifier", classifier=judge)),
        ],
    ).replace(codec=codec)
    moved = pipe.to(dtype=torch.float64)
    for network in (net, weak.net, judge, codec.there, codec.back):
        assert {p.dtype for p in network.parameters()} == {torch.float64}
    x = moved.sample((4, 2), cond=torch.tensor([0, 1, 2, 0]), steps=3, seed=0).x
    assert x.dtype == torch.float64
