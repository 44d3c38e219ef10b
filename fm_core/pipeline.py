"""Pipelines: parts by name or as objects, checked against each other when composed, then trained and sampled.

pipe = compose(path="linear", model=Model(net, predicts="velocity"), objective="cfm", solver="heun")
pipe = pipe.fit(x1, steps=5_000, seed=0).pipeline
out = pipe.sample((256, 2), nfe=20, seed=0)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from attrs import evolve, field as attribute, frozen
from torch import Tensor, nn
from torch.utils.data import Dataset

from fm_core import registry
from fm_core.building import origin, remember
from fm_core.compat import Problem, asked_by, problems
from fm_core.course import plan_of
from fm_core.encoding import encode
from fm_core.errors import CompatError, DataError, DivergenceError, ShapeError, UnknownNameError, did_you_mean
from fm_core.evaluating import evaluating
from fm_core.field import Field, Model
from fm_core.fit.checkpoint import save
from fm_core.fit.trainer import fit
from fm_core.gaussian import Source
from fm_core.holding import held_networks
from fm_core.protocols import (
    Codec,
    Coupling,
    Guidance,
    Objective,
    ProbabilityPath,
    Solver,
    TimeGrid,
    VectorFieldModel,
    span_of,
)
from fm_core.randomness import make_generator
from fm_core.sampling import sample
from fm_core.shapes import batch_time, check_batch, map_tensors

__all__ = ["Pipeline", "compose", "recipe"]

Part = str | Mapping[str, Any]
"""A registry name, or a mapping `{"name": …, **options}`."""


@frozen(eq=False, kw_only=True)
class Pipeline:
    """Parts that compose: made by `compose` or `recipe`, never changed, only replaced.

    Raises:
        CompatError: For parts that do not compose, listing every problem.
    """

    path: ProbabilityPath
    model: VectorFieldModel
    objective: Objective | None = None
    coupling: Coupling | None = None
    solver: Solver | None = None
    grid: TimeGrid | None = None
    guidance: tuple[Guidance, ...] = attribute(default=(), converter=tuple)
    codec: Codec | None = None
    courses: dict[Any, Any] = attribute(factory=dict, init=False, repr=False)
    """Grids and plans already computed, by budget."""

    fit = fit
    sample = sample
    encode = encode
    plan = plan_of
    save = save

    def __attrs_post_init__(self) -> None:
        found = problems(self)
        if found:
            raise CompatError(found)

    @property
    def placement(self) -> tuple[torch.device, torch.dtype]:
        """Device and floating dtype of the network's parameters; the CPU and torch's default dtype if it has none."""
        net = getattr(self.model, "net", self.model)
        parameters = net.parameters() if isinstance(net, nn.Module) else ()
        for parameter in parameters:
            if parameter.is_floating_point():
                return parameter.device, parameter.dtype
        return torch.device("cpu"), torch.get_default_dtype()

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Pipeline:
        """This pipeline, its network and those of its guidances and codec moved (in place, as `Module.to` does)."""
        for net in held_networks(getattr(self.model, "net", self.model), self.guidance, self.codec):
            net.to(device=device, dtype=dtype)
        return self

    def replace(self, **parts: Any) -> Pipeline:
        """A pipeline with other parts and the same network, without retraining.

        Args:
            parts: Any arguments of `compose`.
        """
        _known_parts(parts)
        own = {name: getattr(self, name) for name in _PARTS if hasattr(self, name)}
        if getattr(self.path, "source", None) is not None:
            if parts.get("source", self) is None:
                own["path"] = _sourced(self.path, None)
            elif "path" in parts and getattr(parts["path"], "source", None) is None:
                own["source"] = self.path.source  # type: ignore[attr-defined]  # another path keeps the source
        return compose(**(own | parts))

    def check(self, x1: Tensor, cond: Any = None, *, seed: int = 0) -> None:
        """Dry-runs the parts on a small batch: one loss, one prediction for the solver.

        Args:
            x1: Data, shape `(B, *E)`; two samples are enough.
            cond: Their condition, any pytree with the batch first.
            seed: Seed of what is drawn.

        Raises:
            ShapeError: If shapes do not fit, or the network returns another shape.
            DataError: If the data is not finite floating point.
            DivergenceError: If the loss or the prediction is not finite.
        """
        if not isinstance(x1, Tensor) or not x1.is_floating_point() or not len(x1):
            got = f"{tuple(x1.shape)} {x1.dtype}" if isinstance(x1, Tensor) else type(x1).__name__
            raise DataError(f"data are a floating-point tensor (B, *E), B ≥ 1, scaled to about unit size; got {got}")
        if not bool(x1.isfinite().all()):
            raise DataError("data must be finite; got NaN or infinity: clean them first")
        check_batch(cond, x1.shape[0], "cond")
        device, dtype = self.placement
        field, generator = Field(self.model, self.path, self.guidance), make_generator(seed, device)
        cond = map_tensors(lambda tensor: tensor.to(device), cond)
        with torch.no_grad(), evaluating(self.model):
            x1 = x1.to(device, dtype)
            x1 = x1 if self.codec is None else self.codec.encode(x1)
            x0 = self.path.sample_source(tuple(x1.shape), generator=generator, dtype=dtype, device=device)
            low, high = span_of(self.path, self.model.predicts[0], ())
            t = batch_time((low + high) / 2, x1)
            point = self.path.interpolate(x0, x1, t, generator=generator)
            results = {}
            if self.objective is not None:
                results["loss"] = self.objective.loss(Field(self.model, self.path), point, cond)
                if results["loss"].shape != x1.shape[:1]:
                    raise ShapeError(
                        f"the objective must return one loss a sample, ({len(x1)},); got {tuple(results['loss'].shape)}"
                    )
            for kind in asked_by(self.solver, self.path) if self.solver is not None else (field.native,):
                results[f"{kind} prediction"] = field.predict(point.x_t, t, cond, kind)
        for name, value in results.items():
            if not bool(value.isfinite().all()):
                raise DivergenceError(
                    f"the {name} is not finite at t = {float(t[0]):.6g}; look at the network's weights and outputs"
                )


def compose(
    *,
    path: Part | ProbabilityPath,
    model: Part | VectorFieldModel | nn.Module,
    objective: Part | Objective | None = None,
    coupling: Part | Coupling | None = None,
    solver: Part | Solver | None = None,
    grid: Part | TimeGrid | None = None,
    guidance: Sequence[Part | Guidance] | Part | Guidance | None = (),
    source: Part | Tensor | Source | Dataset[Any] | None = None,
    codec: Part | Codec | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Pipeline:
    """Composes parts, each a registry name, one with options such as `"unipc(order=3)"`, a mapping `{"name": …,
    **options}`, or an object.

    Args:
        path: Probability path.
        model: Network. A bare module predicts what the objective regresses on.
        objective: Training objective; needed to fit.
        coupling: Pairing of source and data; independent for None.
        solver: Needed to sample.
        grid: Time grid; the solver's own, or uniform, for None.
        guidance: One guidance, or several, the innermost first.
        source: Source of x0 in place of the path's own: a data set by name, a tensor `(N, *D)`, a Dataset, a callable
            `(n, generator) -> x0`.
        codec: Map between data and the space of the path.
        device, dtype: Where and in what the network is put.

    Raises:
        CompatError: For parts that do not compose, listing every problem with why and fix.
        UnknownNameError: For a name that no plugin provides.
    """
    built_path = registry.from_config("path", path)
    if source is not None:
        built_path = _from_source(built_path, source)
    objective = None if objective is None else registry.from_config("objective", objective)
    several = _several(guidance)
    pipeline = Pipeline(
        path=built_path,
        model=_as_model(registry.from_config("model", model), objective),
        objective=objective,
        coupling=None if coupling is None else registry.from_config("coupling", coupling),
        solver=None if solver is None else registry.from_config("solver", solver),
        grid=None if grid is None else registry.from_config("grid", grid),
        guidance=tuple(registry.from_config("guidance", part) for part in several),
        codec=None if codec is None else registry.from_config("codec", codec),
    )
    return pipeline if device is None and dtype is None else pipeline.to(device, dtype)


_PARTS = tuple(inspect.signature(compose).parameters)


def _known_parts(parts: Iterable[str]) -> None:
    for name in parts:
        if name not in _PARTS:
            raise UnknownNameError(f"a pipeline has no part {name!r}; {did_you_mean(name, _PARTS)}")


def recipe(name: str, **parts: Any) -> Pipeline:
    """The pipeline of a method by its name.

    Args:
        name: Registry name of a recipe: a mapping of `compose` arguments.
        parts: `model=`, and any other argument of `compose` that shall differ from the recipe.

    Raises:
        UnknownNameError: For a name that no plugin provides.
        CompatError: For parts that do not compose, or no model.
    """
    _known_parts(parts)
    whole = registry.recipe(name) | parts
    if "model" not in whole:
        raise CompatError(
            [
                Problem(
                    f"the recipe {name!r} needs a model", "a recipe names the method, not the network", "give model=net"
                )
            ]
        )
    return compose(**whole)


def _several(guidance: Any) -> Sequence[Any]:
    if guidance is None:
        return ()
    return guidance if isinstance(guidance, list | tuple) else (guidance,)


def _as_model(model: Any, objective: Objective | None) -> VectorFieldModel:
    """A VectorFieldModel from what was given; a bare module predicts what its objective regresses on."""
    if hasattr(model, "predicts"):
        return model  # type: ignore[no-any-return]
    kinds = tuple(objective.needs) if objective is not None else ()
    if callable(model) and len(kinds) == 1:
        return Model(model, predicts=kinds)
    raise CompatError(
        [
            Problem(
                f"what does {type(model).__name__} predict?",
                "a bare network is taken to predict what its objective regresses on, and "
                + (f"this objective needs {', '.join(sorted(kinds))}" if kinds else "there is no objective"),
                "say it: fm.Model(net, predicts='velocity')",
            )
        ]
    )


def _from_source(path: Any, source: Any) -> Any:
    """The path with another source of x0; it keeps its registry name."""
    if not hasattr(path, "source"):
        raise CompatError(
            [
                Problem(
                    f"{type(path).__name__} takes no source",
                    "it has no attribute `source`",
                    "use a Gaussian path, such as 'linear'",
                )
            ]
        )
    return _sourced(
        path, _as_source(registry.from_config("dataset", source) if isinstance(source, str | Mapping) else source)
    )


def _sourced(path: Any, source: Source | None) -> Any:
    sourced = evolve(path, source=source)
    spec = origin(path)
    if spec is not None:
        remember(sourced, spec)
    return sourced


@frozen(eq=False)
class _Resampled:
    """Source samples drawn with replacement from given ones `(N, *D)`."""

    x0: Tensor

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        generator = generator or make_generator()
        index = torch.randint(len(self.x0), (n,), generator=generator, device=generator.device)
        return self.x0[index.to(self.x0.device)]


@frozen(eq=False)
class _Unconditional:
    """The samples of a callable that draws `(x, cond)` pairs or samples alone."""

    draw: Callable[[int, torch.Generator | None], Any]

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        drawn = self.draw(n, generator)
        return drawn[0] if isinstance(drawn, tuple | list) else drawn  # type: ignore[no-any-return]


def _as_source(source: Any) -> Source:
    if isinstance(source, _Resampled | _Unconditional):
        return source
    if isinstance(source, Dataset):
        items = [source[i] for i in range(len(source))]  # type: ignore[arg-type]
        made: Any = _Resampled(torch.stack([item[0] if isinstance(item, tuple | list) else item for item in items]))
    elif isinstance(source, Tensor):
        if source.ndim < 2 or not len(source) or not source.is_floating_point():
            raise DataError(
                "a source tensor has the shape (N, *D), N ≥ 1, floating point; "
                f"got {tuple(source.shape)} {source.dtype}"
            )
        made = _Resampled(source)
    elif callable(source):
        made = _Unconditional(source)
    else:
        raise DataError(
            "source= takes a data set by name, a tensor, a Dataset or a callable (n, generator); "
            f"got {type(source).__name__}"
        )
    spec = origin(source)
    if spec is not None:
        remember(made, spec)
    return made  # type: ignore[no-any-return]
