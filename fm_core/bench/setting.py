"""A problem and what its contenders share: source samples, conditions, true ends, and draws of the truth, by seed.

Where a problem knows no law that samples shall have, it is that of its reference's ends, from other noise. Two halves
of a set of independent draws are two independent draws, so the floor takes no more of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from fm_core import registry
from fm_core.bench.contenders import Contender
from fm_core.bench.problem import BenchProblem, require_problem
from fm_core.bench.running import NotHere
from fm_core.errors import ArgumentError, DataError, DivergenceError
from fm_core.floor import Metric, floor
from fm_core.naming import label, parse
from fm_core.pipeline import Pipeline
from fm_core.randomness import make_generator, spawn_seed

__all__ = ["Draws", "Setting", "Truth", "distance_metric"]

FLOOR_DRAWS = 5
PILOT, LEAST_PILOT = 128, 32
"""Trajectories that the fitted contender is fitted to: fewer of larger states, each of which says more."""

PILOT_NUMBERS = 2048
"""Numbers that the ends of a pilot have, between these bounds."""

KEPT = 8
"""Seeds whose draws are kept."""


@frozen(eq=False)
class Draws:
    """What all contenders of one problem and seed start from, and where the flow takes them."""

    x0: Tensor
    cond: Any
    ends: Tensor


@frozen(eq=False)
class Truth:
    """Draws of the law that samples shall have, and the floor of their distance from it."""

    x1: Tensor
    floor: float


@frozen(eq=False, slots=False)
class Setting:
    """A problem, and how many samples it is judged by.

    Args:
        given: A problem, or its registry name with options, or its configuration; built when it is first needed, since
            a trained one is trained then.
        samples: Samples of each seed.
        name: As records name it.

    `warm` holds the contenders and budgets that have run, so that all tables of theirs are there.
    """

    given: Any
    samples: int
    name: str = field(kw_only=True)
    warm: set[tuple[Any, ...]] = field(init=False, factory=set, repr=False)
    _draws: Callable[[int], Draws] = field(init=False, repr=False)
    _truths: Callable[[int], Truth] = field(init=False, repr=False)
    _fits: dict[int, tuple[Pipeline, float]] = field(init=False, factory=dict, repr=False)
    _with: dict[Contender, Any] = field(init=False, factory=dict, repr=False)

    @name.default
    def _typed(self) -> str:
        return label(self.given)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_draws", lru_cache(maxsize=KEPT)(self._drawn))
        object.__setattr__(self, "_truths", lru_cache(maxsize=KEPT)(self._judged))

    @cached_property
    def problem(self) -> BenchProblem:
        """The problem, built."""
        try:
            return require_problem(self.given)
        except ArgumentError as error:
            error.add_note(f"while building {self._called}")
            raise

    @property
    def _of_plugin(self) -> str:
        config = parse(self.given) if isinstance(self.given, str) else self.given
        found = registry.find("problem", config["name"]) if isinstance(config, Mapping) else None
        return f" ({found.source.where})" if found else ""

    def pipeline_with(self, contender: Contender, nfe: int | None = None) -> Any:
        """What samples by a contender, the same for all seeds: its tables are computed once."""
        if contender.fitted:
            assert nfe is not None
            return self.fitted(nfe)
        if contender not in self._with:
            self._with[contender] = contender.on(self.problem.pipeline)
        return self._with[contender]

    def fitted(self, nfe: int) -> Pipeline:
        """The problem's pipeline with a table fitted to it, once for a budget, on noise that no seed draws."""
        return self._fit(nfe)[0]

    def fit_seconds(self, nfe: int) -> float:
        """How long that took."""
        return self._fit(nfe)[1]

    def _fit(self, nfe: int) -> tuple[Pipeline, float]:
        if nfe not in self._fits:
            from fm_core.calibration.asking import predictions_of, require_determined
            from fm_core.calibration.calibrate import calibrate

            generator = make_generator(spawn_seed(0, 77))
            pilot = min(PILOT, max(LEAST_PILOT, PILOT_NUMBERS // math.prod(self.problem.event_shape)))
            cond = self.problem.condition(pilot, generator)
            x0 = self._source(pilot, generator)
            try:
                require_determined(x0, predictions_of(self.problem.pipeline, nfe))
            except DataError as error:
                raise NotHere(str(error)) from error
            began = time.perf_counter()
            found = calibrate(self.problem.pipeline, x0=x0, cond=cond, nfe=nfe, seed=0, progress=False)
            self._fits[nfe] = found, time.perf_counter() - began
        return self._fits[nfe]

    def draws(self, seed: int) -> Draws:
        """Source samples, conditions and true ends of a seed."""
        return self._draws(seed)

    def truth(self, seed: int) -> Truth:
        """What samples of a seed are compared with, found when it is first asked for."""
        return self._truths(seed)

    def source(self, seed: int) -> tuple[Tensor, Any]:
        """Source samples and conditions of a seed."""
        generator = make_generator(spawn_seed(seed, 1))
        cond = self.problem.condition(self.samples, generator)
        return self._source(self.samples, generator), cond

    def _source(self, n: int, generator: torch.Generator) -> Tensor:
        pipeline = self.problem.pipeline
        device, dtype = pipeline.placement
        dtype = torch.float64 if self.problem.exact else dtype
        shape = (n, *self.problem.event_shape)
        return pipeline.path.sample_source(shape, generator=generator, dtype=dtype).to(device)

    def _drawn(self, seed: int) -> Draws:
        x0, cond = self.source(seed)
        return Draws(x0, cond, self._ends(x0, cond))

    def _judged(self, seed: int) -> Truth:
        n, generator = self.samples, make_generator(spawn_seed(seed, 2))
        x1, law = self._of_law(n, generator), None
        if x1 is None:
            cond = self.problem.condition(n, generator)
            x1 = self._ends(self._source(n, generator), cond)
            law = torch.cat([x1, self.draws(seed).ends])
        least = floor(
            distance_metric(), self._of_law if law is None else law, n, draws=FLOOR_DRAWS, generator=generator
        )
        return Truth(x1, least.mean)

    def _ends(self, x0: Tensor, cond: Any) -> Tensor:
        """Where the reference takes source samples, float64."""
        try:
            ends = self.problem.reference(x0.clone(), cond)  # contenders start from x0, whatever is written into this
        except DivergenceError as error:
            raise DataError(f"the reference of {self._called} cannot be found: {error}") from error
        return self._sound("reference", ends, tuple(x0.shape)).to(torch.float64)

    def _of_law(self, n: int, generator: torch.Generator) -> Tensor | None:
        x1 = self.problem.truth(n, generator)
        return None if x1 is None else self._sound("truth", x1, (n, *self.problem.event_shape))

    def _sound(self, what: str, given: Any, shape: tuple[int, ...]) -> Tensor:
        """What the problem gave: of another shape it would be broadcast, and what is not finite be blamed on solvers.

        Raises:
            DataError: If it is no finite tensor of this shape.
        """
        got = tuple(given.shape) if isinstance(given, Tensor) else f"a {type(given).__name__}"
        if got != shape:
            raise DataError(f"the {what} of {self._called} is a tensor of shape {shape}; got {got}")
        assert isinstance(given, Tensor)
        wrong = int((~given.isfinite()).flatten(1).any(1).sum())
        if wrong:
            raise DataError(f"the {what} of {self._called} is finite; got {wrong} of {len(given)} rows that are not")
        return given

    @property
    def _called(self) -> str:
        return f"problem {self.name}{self._of_plugin}"


def distance_metric() -> Metric:
    """By what samples are compared with the truth."""
    metric: Metric = registry.build("metric", "energy_distance")
    return metric
