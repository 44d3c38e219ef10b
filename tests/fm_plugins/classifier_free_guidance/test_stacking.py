"""Guidances around each other, the first innermost, each stack against its formula written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import Field, GaussianPath, Model
from fm_core.mixture import GaussianMixture
from fm_plugins.autoguidance.autoguidance import Autoguidance
from fm_plugins.classifier_free_guidance.apg import APG
from fm_plugins.classifier_free_guidance.cfg import CFG
from fm_plugins.classifier_free_guidance.cfg_pp import CFGPlusPlus
from fm_plugins.guidance_interval.interval import Interval
from fm_plugins.thresholding.clip import clip
from fm_plugins.thresholding.dynamic import dynamic_threshold

SHAPES = pytest.mark.parametrize("shape", [(1, 2), (4, 4), (3, 3, 2, 2)], ids=str)
NAMES = ("linear", "cosine", "vp", "ve")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answer(path: GaussianPath, kind: str, x: Tensor, t: Tensor, labels: Tensor, blur: float = 0.0) -> Tensor:
    """The exact prediction under every row's label: two classes, and 2 for the mixture of both."""
    means = 1.5 * draw(2, 2, *x.shape[1:], seed=1)
    laws = [GaussianMixture(m, 0.4 + blur) for m in (*means, means.flatten(0, 1))]
    return torch.stack([law.predict(path, kind, x, t) for law in laws])[labels, torch.arange(len(x))]


def network(path: GaussianPath, predicts: str = "velocity", blur: float = 0.0, seen: list[int] | None = None) -> Model:
    def net(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        if seen is not None:
            seen.append(len(x))
        return answer(path, predicts, x, t, labels, blur)

    return Model(net, predicts=predicts, null=2)


class Case:
    """A batch with its exact answers: c, u of the network, and of a weak one."""

    def __init__(self, path: GaussianPath, shape: Sequence[int]) -> None:
        self.path, self.x = path, draw(*shape)
        self.t = torch.linspace(0.35, 0.7, shape[0], dtype=torch.float64)
        self.until = self.t + 0.1
        self.labels = torch.arange(shape[0]) % 2
        none = torch.full_like(self.labels, 2)
        self.c, self.u, self.weak_c, self.weak_u = (
            answer(path, "data", self.x, self.t, labels, blur) for blur in (0.0, 0.5) for labels in (self.labels, none)
        )

    def data(self, *guidances: Any) -> Tensor:
        field = Field(network(self.path), self.path, guidances)
        return field.predict(self.x, self.t, self.labels, "data", until=self.until)

    def same(self, got: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.fixture(params=NAMES)
def some_path(request: pytest.FixtureRequest, paths: dict[str, GaussianPath]) -> GaussianPath:
    return paths[request.param]


@SHAPES
def test_clipping_outside_cfg_bounds_the_result_and_inside_both_answers(
    some_path: GaussianPath, shape: tuple[int, ...]
) -> None:
    case = Case(some_path, shape)
    case.same(case.data(CFG(3.0), clip()), (case.u + 3 * (case.c - case.u)).clamp(-1, 1))
    c, u = case.c.clamp(-1, 1), case.u.clamp(-1, 1)
    case.same(case.data(clip(), CFG(3.0)), u + 3 * (c - u))


@SHAPES
def test_both_clips_keep_their_own_noise(some_path: GaussianPath, shape: tuple[int, ...]) -> None:
    case = Case(some_path, shape)
    log_ratio = [(some_path.alpha(t) / some_path.sigma(t)).log() for t in (case.t, case.until)]
    factor = (1 / (1 - torch.exp(log_ratio[0] - log_ratio[1]))).view(-1, *[1] * (len(shape) - 1))
    guided = case.u + 3 * (case.c - case.u)
    case.same(case.data(CFG(3.0), clip(keep_noise=True)), guided + factor * (guided.clamp(-1, 1) - guided))
    plus = case.u + 0.6 * factor * (case.c - case.u)
    case.same(case.data(CFGPlusPlus(0.6), clip()), plus.clamp(-1, 1))


@SHAPES
def test_an_interval_of_cfg_inside_clipping(some_path: GaussianPath, shape: tuple[int, ...]) -> None:
    case = Case(some_path, shape)
    high = float(some_path.log_snr(torch.tensor(0.5, dtype=torch.float64)))
    inside = (case.t < 0.5).view(-1, *[1] * (len(shape) - 1))
    guided = torch.where(inside, case.u + 3 * (case.c - case.u), case.c)
    case.same(case.data(Interval(CFG(3.0), high=high)), guided)
    case.same(case.data(Interval(CFG(3.0), high=high), clip()), guided.clamp(-1, 1))


@SHAPES
def test_cfg_and_autoguidance_in_either_order(some_path: GaussianPath, shape: tuple[int, ...]) -> None:
    case = Case(some_path, shape)
    auto = Autoguidance(network(some_path, "noise", blur=0.5), 2.0)
    guided = case.u + 3 * (case.c - case.u)
    case.same(case.data(CFG(3.0), auto), case.weak_c + 2 * (guided - case.weak_c))
    c, u = 2 * case.c - case.weak_c, 2 * case.u - case.weak_u
    case.same(case.data(auto, CFG(3.0)), u + 3 * (c - u))


def test_a_stack_costs_what_its_parts_declare(paths: dict[str, GaussianPath]) -> None:
    path, seen = paths["linear"], list[int]()
    stack = [CFG(3.0), Autoguidance(network(path, blur=0.5, seen=seen), 2.0), clip()]
    pipe = fm.compose(path=path, model=network(path, seen=seen), solver="euler", guidance=stack)
    out = pipe.sample((3, 2), nfe=9, seed=0, cond=torch.tensor([0, 1, 0]))
    assert seen == [6, 3] * 4  # three steps, and the data prediction that closes the run
    assert out.nfe == 8


@pytest.mark.parametrize(
    "stack",
    [
        [CFG(3.0), clip()],
        [clip(), CFG(3.0), dynamic_threshold(0.9)],
        [APG(4.0, norm=1.0, momentum=-0.5), clip(keep_noise=True)],
        [CFGPlusPlus(0.6), clip()],
    ],
    ids=["cfg-clip", "clip-cfg-dynamic", "apg-clip", "cfg++-clip"],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.float64, 1e-11)], ids=str)
def test_stacked_samples_do_not_depend_on_their_neighbours(
    some_path: GaussianPath, stack: list[Any], dtype: torch.dtype, tolerance: float
) -> None:
    pipe = fm.compose(path=some_path, model=network(some_path), solver="euler", guidance=stack)
    args = {"steps": 8, "seed": 0, "cond": torch.tensor([0, 1, 0, 1]), "dtype": dtype}
    whole = pipe.sample((4, 3, 2, 2), **args)
    assert whole.x.dtype == dtype
    assert whole.x.isfinite().all()
    torch.testing.assert_close(pipe.sample((4, 3, 2, 2), chunk=1, **args).x, whole.x, rtol=tolerance, atol=tolerance)


def test_stacks_are_composed_by_name(paths: dict[str, GaussianPath]) -> None:
    stack = [{"name": "interval", "guidance": {"kind": "guidance", "name": "cfg", "scale": 2.0}, "low": -4.0}, "clip"]
    pipe = fm.compose(path=paths["linear"], model=network(paths["linear"]), solver="heun", guidance=stack)
    out = pipe.sample((3, 1, 4, 4), steps=5, seed=0, cond=torch.tensor([0, 1, 0]))
    assert out.x.abs().max() <= 1.0
