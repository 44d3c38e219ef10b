"""`fm demo`, made small: everything it promises is written, and the figures are those of real samples."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

import fm_core as fm
from fm_core.cli import showcase


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(showcase, "BUDGETS", (4, 8))
        patch.setattr(showcase, "DRAWS", 2)
        showcase.run(out, seed=0, effort=0.01)
    torch.set_num_threads(threads)
    return out


def test_every_method_solver_and_budget_has_a_figure_with_its_floor(demo):
    figures = json.loads((demo / "figures.json").read_text())["figures"]
    cells = {(f["data"], f["method"], f["solver"], f["nfe"] if f["solver"] != "dopri5" else None) for f in figures}
    methods = [("moons", method) for method in showcase.METHODS] + [("digits", "ot_cfm")]
    budgets = [(solver, nfe) for solver in ("euler", "heun", "rk4") for nfe in (4, 8)] + [("dopri5", None)]
    assert cells == {(*method, *budget) for method in methods for budget in budgets}
    assert all(f["value"] > 0 and f["floor"] > 0 and f["seconds"] > 0 and f["nfe"] > 0 for f in figures)


@pytest.mark.parametrize(
    "name", ["trajectories.png", "density.png", "quality_moons.png", "digits.png", "quality_digits.png", "moons.gif"]
)
def test_pictures_show_something(demo, name):
    with Image.open(demo / name) as picture:
        extrema = picture.convert("L").getextrema()
        assert extrema[1] - extrema[0] > 100
        assert name != "moons.gif" or picture.n_frames > 30


def test_the_weights_are_pipelines_that_sample_again(demo):
    pipe = fm.load(demo / "digits_ot_cfm")
    assert pipe.sample(3, steps=2, seed=0).x.shape == (3, 1, 8, 8)
    for method in showcase.METHODS:
        assert (demo / f"moons_{method}" / "model.safetensors").exists()


def test_the_table_fits_a_terminal(demo, capsys):
    figures = [showcase.Figure(**f) for f in json.loads((demo / "figures.json").read_text())["figures"]]
    showcase.Console(width=80).print(showcase._table(figures))
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert "rectified_flow" in printed
