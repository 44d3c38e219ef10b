"""The observer writes a line for every step of a training that it observes."""

from __future__ import annotations

from pathlib import Path

import fm_core as fm
import torch
from fm_core.registry import observing

from my_plugin.observer import LossFile


def test_every_step_is_a_line_of_the_file(tmp_path: Path) -> None:
    pipe = fm.recipe("cfm", model=fm.Model(torch.nn.Identity(), predicts="velocity", call=lambda net, x, t, cond: x))
    losses = tmp_path / "losses.csv"
    net = fm.build("model", "mlp", shape=2, width=8, seed=0)
    with observing(LossFile(losses)):
        result = pipe.replace(model=net).fit(torch.zeros(8, 2), steps=3, batch_size=4, seed=0, lr=0.5)
    header, *lines = losses.read_text().splitlines()
    assert header == "step,loss,lr"
    assert [line.split(",")[0] for line in lines] == ["0", "1", "2"]
    assert lines[0] == f"0,{float(result.losses[0]):.6g},0.5"
