"""The protocols that plugins satisfy: path, model, objective, guidance, solver, coupling, grid, codec.

Conventions, the same everywhere: `t ∈ [0, 1]` rises from the source to the data, `x0` is a source (noise) sample,
`x1` a data sample. States have shape `(B, *D)`, times `()` or `(B,)`; models always receive `(B,)`. Attributes that a
class leaves out have the defaults listed in `DEFAULTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from attrs import field, frozen

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fm_core.field import Field
    from fm_core.prediction import Prediction

__all__ = [
    "DEFAULTS",
    "Codec",
    "Coupling",
    "Guidance",
    "Objective",
    "OnStep",
    "PathSample",
    "ProbabilityPath",
    "Solver",
    "TimeGrid",
    "VectorFieldModel",
    "declared",
    "span_of",
]

OnStep = Callable[[float, "Tensor"], None]
"""Called by solvers with `(t, x)` at the first state and after every accepted step."""

DEFAULTS: dict[str, Any] = {
    "geometry": "euclidean",
    "geometries": frozenset({"euclidean"}),
    "grid": None,
    "independent": False,
    "bijective": True,
    "pool": None,
    "acts_on": None,
    "evals": 1,
    "off": False,
    "layer": None,
    "per_step": False,
    "stochastic": False,
    "closing": False,
    "exact_in": None,
}
"""What an attribute means where a component does not have it."""


def declared(component: object, name: str) -> Any:
    """The component's attribute, or its default from `DEFAULTS` when absent."""
    return getattr(component, name, DEFAULTS[name])


def span_of(path: ProbabilityPath, src: Prediction, needs: Iterable[Prediction]) -> tuple[float, float]:
    """The closed interval in which a network that predicts `src` may be asked for `needs`: the path's `span`, `(0,
    1)` where it has none.
    """
    span: Callable[..., tuple[float, float]] | None = getattr(path, "span", None)
    return span(src, needs) if span else (0.0, 1.0)


@frozen(eq=False)
class PathSample:
    """A point of a path between a source and a data sample.

    Args:
        x_t: State, shape `(B, *D)`.
        t: Time, shape `(B,)`.
        x0: Source sample, shape `(B, *D)`.
        x1: Data sample, shape `(B, *D)`.
        extra: What a path needs besides to answer `target`, by name (a third noise, a bridge's end), each `(B, *D)`.
    """

    x_t: Tensor
    t: Tensor
    x0: Tensor
    x1: Tensor
    extra: dict[str, Tensor] = field(factory=dict)


@runtime_checkable
class ProbabilityPath(Protocol):
    """A path of distributions from the source (t = 0) to the data (t = 1).

    `provides` are the predictions that `target` and `convert` can give. Optional: `geometry` (default "euclidean");
    `span(src, needs)`, the closed interval in which a network that predicts `src` may be asked for `needs` (default
    `(0, 1)`); `affine(t, src, dst)`, the coefficients by which tables fold conversions in; `sigma(t)`, by which a
    source sample is scaled where sampling starts (default 1); `closing`, whether the data prediction closes a run that
    reaches t = 1 (default False).
    """

    @property
    def provides(self) -> frozenset[Prediction]: ...

    def sample_source(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Unscaled source samples x0 of shape `(B, *D)`: what `interpolate` takes."""
        ...

    def interpolate(self, x0: Tensor, x1: Tensor, t: Tensor, *, generator: torch.Generator | None = None) -> PathSample:
        """A point x_t between x0 and x1, both `(B, *D)`, at times t `(B,)`."""
        ...

    def target(self, sample: PathSample, kind: Prediction) -> Tensor:
        """What a network that predicts `kind` regresses on, shape `(B, *D)`."""
        ...

    def convert(self, value: Tensor, x_t: Tensor, t: Tensor, *, src: Prediction, dst: Prediction) -> Tensor:
        """The prediction `value` of kind `src` at `(x_t, t)`, as a prediction of kind `dst`, shape `(B, *D)`."""
        ...


@runtime_checkable
class VectorFieldModel(Protocol):
    """A network with its meaning: which prediction(s) it returns, in this order."""

    @property
    def predicts(self) -> tuple[Prediction, ...]: ...

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor | tuple[Tensor, ...]:
        """Predictions at states `(B, *D)` and times `(B,)`; `cond` is any pytree of tensors, batch first."""
        ...


@runtime_checkable
class Objective(Protocol):
    """A training objective: where in time to look, and the loss of every sample."""

    @property
    def needs(self) -> frozenset[Prediction]: ...

    def sample_time(
        self,
        path: ProbabilityPath,
        batch: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Training times, shape `(B,)`."""
        ...

    def loss(self, field: Field, sample: PathSample, cond: Any = None) -> Tensor:
        """Loss of every sample, shape `(B,)`, unreduced."""
        ...


@runtime_checkable
class Guidance(Protocol):
    """A field made from a field.

    Optional: `acts_on`, the space its arithmetic is right in (default None: any); `evals`, the network calls of one
    guided prediction (default 1); `off`, whether it changes nothing (default False), in which case a field leaves it
    out; `layer`, 0 for one that extrapolates between answers of the field inside it, 1 for one that adds a term of its
    own and must not be extrapolated (default None: anywhere), never falling from the innermost to the outermost;
    `per_step`, whether what it does depends on where a step ends (default False), which adaptive solvers do not know;
    `select(rows) -> Guidance`, of one that holds something for every sample, the guidance of some of them, by a slice
    or their indices; `plain`, like `guide`, the prediction that it starts from, where that is another one than the
    field's inside.
    """

    @property
    def needs(self) -> frozenset[Prediction]: ...

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """The guided prediction, `(B, *D)`, in the space `acts_on` (the field's native one for None); per sample,
        never across the batch.
        """
        ...


@runtime_checkable
class Solver(Protocol):
    """A way from one time to another along a field.

    Optional: `stochastic` (default False), `geometries` (default euclidean), `grid`, a `TimeGrid` of its own used
    unless the caller gives one; `exact_in`, the variable ("t", "log_snr" or "noise_to_signal") in which it integrates
    predictions that are polynomials of degree < order exactly (default None). Adaptive solvers carry `rtol` and `atol`,
    which `sample` may replace, and take the interval's ends (and times to report) as `times`.
    """

    @property
    def needs(self) -> frozenset[Prediction]: ...
    @property
    def order(self) -> int: ...
    @property
    def evals_per_step(self) -> int: ...

    def solve(
        self,
        field: Field,
        x: Tensor,
        times: Tensor,
        *,
        cond: Any = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Carries states x `(B, *D)` from `times[0]` to `times[-1]` (float64, `(N+1,)`, strictly monotone)."""
        ...


@runtime_checkable
class Coupling(Protocol):
    """A pairing of source and data samples within a batch.

    Optional: `independent` (default False: then `score` is no longer known from the noise), `bijective` (default
    True), `pool`, how many samples to pair at once where that is more than the training batch (default None: the
    batch).
    """

    def pair(
        self, x0: Tensor, x1: Tensor, cond: Any = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Indices `(i, j)`, each `(B,)`: `x0[i]` goes with `x1[j]`; conditions follow x1."""
        ...


@runtime_checkable
class TimeGrid(Protocol):
    """A rule that places the steps of a solver."""

    def times(self, path: ProbabilityPath, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """Grid of shape `(steps + 1,)`, float64 on the CPU, from `span[0]` to `span[1]`, strictly monotone (falling
        if `span[1] < span[0]`).
        """
        ...


@runtime_checkable
class Codec(Protocol):
    """A map between data and the space in which the path lives (latents, whitened data)."""

    def encode(self, x: Tensor) -> Tensor:
        """Data `(B, *E)` to path space `(B, *D)`."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Path space `(B, *D)` to data `(B, *E)`."""
        ...
