"""Figures of a trained method: how near its samples come, how short and straight its paths are, how right its field.

Source samples x0 are carried along N steps to x̂1 and compared with as many fresh data points x1:

    w2               W2(x̂1, x1), exact; read it beside its floor, W2 between two fresh sets of data
    energy_distance  2E‖x̂1 − x1‖ − E‖x̂1 − x̂1'‖ − E‖x1 − x1'‖, likewise
    path_energy      Σ_k E‖x_{k+1} − x_k‖²/h_k, which for Euler's steps is Σ_k h_k·E‖v_k‖²; never below E‖x̂1 − x0‖²
    npe              |path_energy − W2²(q0, q1)| / W2²(q0, q1), the latter between the first states and x1
    straightness     path_energy − E‖x̂1 − x0‖² = E ∫‖x̂1 − x0 − v‖² dt, 0 for straight lines at constant speed
    velocity_error   √(E‖v − u‖² / E‖u‖²) over x_t ~ p_t, where the velocity u is known in closed form

References:
    Tong et al. 2024 (NPE). https://arxiv.org/abs/2302.00482
    Liu et al. 2023 (straightness). https://arxiv.org/abs/2209.03003
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core import registry
from fm_core.bench.papers import Budget, Task
from fm_core.field import Field
from fm_core.gaussian import GaussianPath
from fm_core.pipeline import Pipeline
from fm_core.prediction import Prediction
from fm_core.protocols import declared, span_of
from fm_core.randomness import make_generator, spawn_seed

__all__ = ["EXAM", "Exam", "energies", "judge", "oracle", "velocity_error"]

EXAM = 2
"""Stream of a cell's seed, beside those of the training."""

SOURCE, DATA, OTHER_DATA, TIMES = range(4)
"""Streams of the exam."""


@frozen(eq=False)
class Exam:
    """Fresh points of a task, the same for all methods of one seed.

    Args:
        task: Whose points.
        budget: How many.
        seed: Which.
    """

    task: Task
    budget: Budget
    seed: int

    def floor(self) -> dict[str, float]:
        """One draw of the floor of W2, and of W2²(q0, q1)."""
        return {**self.distances(self._draw(self.task.data, OTHER_DATA)), "squared_w2": self.squared_w2}

    def distances(self, samples: Tensor) -> dict[str, float]:
        """How far samples `(n, *D)` are from the data points."""
        energy = registry.build("metric", "energy_distance")
        return {"w2": self.w2(samples, self.x1), "energy_distance": energy(samples, self.x1)}

    @cached_property
    def x0(self) -> Tensor:
        """Source points, shape `(n, *D)`."""
        if self.task.source is not None:
            return self._draw(self.task.source, SOURCE)
        generator = make_generator(spawn_seed(self.seed, EXAM, SOURCE))
        return torch.randn(self.x1.shape, generator=generator)

    @cached_property
    def x1(self) -> Tensor:
        """Data points, shape `(n, *D)`."""
        return self._draw(self.task.data, DATA)

    @cached_property
    def squared_w2(self) -> float:
        """W2² between source and data points."""
        return self.w2(self.x0, self.x1) ** 2

    @cached_property
    def w2(self) -> Callable[[Tensor, Tensor], float]:
        """Exact W2."""
        return registry.build("metric", "wasserstein2")  # type: ignore[no-any-return]

    def _draw(self, data: Mapping[str, Any], stream: int) -> Tensor:
        generator = make_generator(spawn_seed(self.seed, EXAM, stream))
        return registry.from_config("dataset", data)(self.budget.n, generator)  # type: ignore[no-any-return]


def judge(pipeline: Pipeline, exam: Exam, exact: Field | None = None, *, only_energy: bool = False) -> dict[str, float]:
    """The figures of a trained pipeline on the points of an exam.

    Args:
        pipeline: Its solver samples; energies are left out where it draws noise.
        exam: The points.
        exact: The field that the training regresses on, where it is known.
        only_energy: Whether to leave out the distances, which take longest.
    """
    out = pipeline.sample(x0=exam.x0, steps=exam.budget.euler, trajectory=True, seed=exam.seed)
    figures = {} if only_energy else exam.distances(out.x)
    figures["nfe"] = float(out.nfe)
    if not declared(pipeline.solver, "stochastic"):
        assert out.trajectory is not None
        figures |= energies(out.trajectory, out.times, exam)
    if exact is not None:
        figures["velocity_error"] = velocity_error(pipeline, exact, exam)
    return figures


def energies(states: Tensor, times: Tensor, exam: Exam) -> dict[str, float]:
    """What a trajectory spends, beside the least it could.

    Args:
        states: At the grid points, shape `(N+1, n, *D)`; Euler's, so that (x_{k+1} − x_k)/h is the velocity.
        times: The grid, shape `(N+1,)`.
        exam: Where the trajectories lead.
    """
    states = states.double()
    moves, h = states.diff(dim=0).flatten(2), times.diff().cpu()
    moves, h = moves[h > 0], h[h > 0]  # the closing data prediction takes no time
    energy = float((moves.square().sum(2).mean(1) / h).sum())
    direct = float(moves.sum(0).square().sum(1).mean())
    # Paths without a unit source start from σ(0)·x0.
    unit = torch.equal(states[0], exam.x0.double())
    optimum = exam.squared_w2 if unit else exam.w2(states[0], exam.x1) ** 2
    return {
        "npe": abs(energy - optimum) / optimum,
        "path_energy": energy,
        "squared_w2": optimum,
        "straightness": energy - direct,
    }


def oracle(task: Task, pipeline: Pipeline) -> Field | None:
    """The field that training on a task regresses on, if it is known: a Gaussian path from noise, independent pairs."""
    coupled = pipeline.coupling is not None and not declared(pipeline.coupling, "independent")
    if task.oracle is None or coupled or not isinstance(pipeline.path, GaussianPath):
        return None
    exact = registry.from_config("problem", {**task.oracle, "path": pipeline.path}).pipeline
    return Field(exact.model, pipeline.path)


@torch.no_grad()
def velocity_error(pipeline: Pipeline, exact: Field, exam: Exam) -> float:
    """√(E‖v − u‖² / E‖u‖²) over x_t ~ p_t, t uniform on the part of [0, 1] where both can be asked."""
    learned, kind = Field(pipeline.model, pipeline.path), Prediction.VELOCITY
    spans = [span_of(pipeline.path, field.native, (kind,)) for field in (learned, exact)]
    low, high = max(span[0] for span in spans), min(span[1] for span in spans)
    generator = make_generator(spawn_seed(exam.seed, EXAM, TIMES))
    t = low + (high - low) * torch.rand(len(exam.x0), generator=generator, dtype=torch.float64)
    x_t = pipeline.path.interpolate(exam.x0, exam.x1, t, generator=generator).x_t
    truth = exact.predict(x_t.double(), t, None, kind)
    wrong = learned.predict(x_t.float(), t, None, kind).double() - truth
    return float(wrong.norm() / truth.norm())
