"""The recipe composes: all that it names exists and fits together."""

from __future__ import annotations

import fm_core as fm
import torch

from my_plugin import fm_components


def test_it_composes_trains_and_samples() -> None:
    (recipe,) = (component.target for component in fm_components() if component.kind == "recipe")
    pipe = fm.compose(**recipe, model=fm.build("model", "mlp", shape=2, width=8, seed=0))
    trained = pipe.fit(torch.zeros(8, 2), steps=2, batch_size=4, seed=0).pipeline
    assert trained.sample((3, 2), steps=2, seed=0).x.shape == (3, 2)
