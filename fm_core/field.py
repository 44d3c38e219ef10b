"""Networks with their meaning (`Model`), and fields: a model on a path, with guidances around it.

A field answers *any* prediction from one network call, so objectives, solvers and guidances do not know how the
network was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core.errors import PredictionError, ShapeError
from fm_core.prediction import Prediction, as_prediction
from fm_core.protocols import Guidance, ProbabilityPath, VectorFieldModel, declared, span_of
from fm_core.shapes import batch_time

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["Field", "Model", "Training"]


def _kinds(predicts: str | tuple[str, ...] | list[str]) -> tuple[Prediction, ...]:
    names = (predicts,) if isinstance(predicts, str) else tuple(predicts)
    if not names:
        raise PredictionError("a model predicts at least one kind; got none; say for example predicts='velocity'")
    return tuple(as_prediction(name) for name in names)


@frozen
class Training:
    """What a network was trained under: it stays with the network, since composing it otherwise later unlocks nothing.

    Args:
        path, objective, coupling: Registry names, None where a part was built by hand.
        independent: Whether x0 and x1 were paired independently.
        gaussian_source: Whether x0 was standard normal.
        schedule: α and σ at seven times inside (0, 1), by which another path is told from this one; empty for paths
            that have none.
        event_shape: Shape of one state, `D`.
        provenance: What the pairs came from, one line for each stage (reflow).
    """

    path: str | None = None
    objective: str | None = None
    coupling: str | None = None
    independent: bool = True
    gaussian_source: bool = True
    schedule: tuple[float, ...] = ()
    event_shape: tuple[int, ...] | None = None
    provenance: tuple[str, ...] = ()


@frozen(eq=False)
class Model:
    """Makes a module a `VectorFieldModel`.

    Args:
        net: Called as `net(x_t, t)`, or `net(x_t, t, cond)` with a condition, x_t `(B, *D)`, t `(B,)`; returns `(B,
            *D)`, or a tuple of them.
        predicts: What it returns: a kind, or several in the order of its outputs.
        null: The condition that means none (training dropout and classifier-free guidance share it).
        call: Calls a network of another signature: `call(net, x_t, t, cond)`.
        trained: What it was trained under; `fit` fills it in.

    >>> Model(lambda x, t: x, predicts="eps").predicts
    (<Prediction.NOISE: 'noise'>,)
    """

    net: Callable[..., Any]
    predicts: tuple[Prediction, ...] = attribute(converter=_kinds)
    null: Any = attribute(default=None, kw_only=True)
    call: Callable[[Any, Tensor, Tensor, Any], Any] | None = attribute(default=None, kw_only=True)
    trained: Training | None = attribute(default=None, kw_only=True)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Any:
        """The network's output at states `(B, *D)` and times `(B,)`."""
        if self.call is not None:
            return self.call(self.net, x_t, t, cond)
        return self.net(x_t, t) if cond is None else self.net(x_t, t, cond)


def _active(guidances: Iterable[Guidance]) -> tuple[Guidance, ...]:
    return tuple(guidance for guidance in guidances if not declared(guidance, "off"))


@frozen(eq=False)
class Field:
    """A model on a path, with guidances around it, the first innermost.

    Attributes:
        inner: The field inside the outermost guidance; None without guidance.
        guidances: Those that change something: what is `off` is left out.
        native: The kind in which predictions arrive: the outermost guidance's `acts_on`, else the model's own.
        arriving: All kinds that arrive from one call: several from a network with several outputs.
        memory: What guidances keep from call to call, such as a momentum, each under its own key. A sampling run has
            fields of its own, so it ends with the run and is not shared between threads.
    """

    model: VectorFieldModel
    path: ProbabilityPath
    guidances: tuple[Guidance, ...] = attribute(default=(), converter=_active)
    inner: Field | None = attribute(init=False)
    native: Prediction = attribute(init=False)
    _calls: list[int] = attribute(factory=lambda: [0], init=False, repr=False)
    arriving: tuple[Prediction, ...] = attribute(init=False, repr=False)
    memory: dict[Any, Any] = attribute(factory=dict, init=False, repr=False)

    @inner.default
    def _inner(self) -> Field | None:
        return Field(self.model, self.path, self.guidances[:-1]) if self.guidances else None

    @native.default
    def _native(self) -> Prediction:
        if self.inner is None:
            return self.model.predicts[0]
        acts_on = declared(self.guidances[-1], "acts_on")
        return self.inner.native if acts_on is None else as_prediction(acts_on)

    @arriving.default
    def _arriving(self) -> tuple[Prediction, ...]:
        return tuple(self.model.predicts) if self.inner is None else (self.native,)

    def span(self, needs: Iterable[str] = ()) -> tuple[float, float]:
        """The closed interval in which this field may be asked for all of `needs`: every conversion on the way exists.

        A guidance asks the field inside it for what it needs and for the space it acts in, and hands on the latter.
        """
        low, high = span_of(self.path, self.native, frozenset(map(as_prediction, needs)))
        if self.inner is None:
            return low, high
        inner = self.inner.span(frozenset(self.guidances[-1].needs) | {self.native})
        return max(low, inner[0]), min(high, inner[1])

    @property
    def calls(self) -> int:
        """How often the network has been called through this field, by whatever asked."""
        return self._calls[0] if self.inner is None else self.inner.calls

    @property
    def remembers(self) -> bool:
        """Whether some guidance has kept something of the calls so far, so that their order counts."""
        return bool(self.memory) or (self.inner is not None and self.inner.remembers)

    def forget(self) -> None:
        """Empties what guidances have kept, as for a new run."""
        self.memory.clear()
        if self.inner is not None:
            self.inner.forget()

    def beside(self, model: VectorFieldModel) -> Field:
        """The unguided field of another model on this path, whose network calls are counted with this one's."""
        other, innermost = Field(model, self.path), self
        while innermost.inner is not None:
            innermost = innermost.inner
        object.__setattr__(other, "_calls", innermost._calls)
        return other

    def predict(self, x_t: Tensor, t: Tensor | float, cond: Any, *kinds: str, until: Tensor | None = None) -> Any:
        """Predictions of the asked kinds at `(x_t, t)`, from one network call.

        Args:
            x_t: States, shape `(B, *D)`.
            t: Time, a number, `()` or `(B,)`.
            cond: Condition, any pytree with the batch first, or None.
            kinds: One or more kinds of prediction.
            until: The time the solver is going to, `(B,)`, for guidances and flow maps that need it.

        Returns:
            A tensor `(B, *D)` for one kind, a tuple of them for several.

        Raises:
            ShapeError: If the network returns another shape, or another number of outputs than it declares.
        """
        return self.ask(x_t, batch_time(t, x_t), cond, kinds, until)

    def ask(self, x_t: Tensor, t: Tensor, cond: Any, kinds: tuple[str, ...], until: Tensor | None) -> Any:
        """`predict` for times that are `(B,)` already, as an executor has them: its hot path."""
        inner = self.inner
        if inner is None:
            self._calls[0] += 1
            output = self.model(x_t, t, cond)
        else:
            output = self.guidances[-1].guide(inner, x_t, t, cond, until=until)
        if kinds == self.arriving and isinstance(output, Tensor) and output.shape == x_t.shape:
            return output
        outputs = tuple(output) if isinstance(output, tuple | list) else (output,)
        if len(outputs) != len(self.arriving) or any(getattr(o, "shape", None) != x_t.shape for o in outputs):
            raise self._wrong_output(outputs, x_t, t)
        if len(kinds) == 1:
            return self._as(kinds[0], outputs, x_t, t)
        return tuple(self._as(kind, outputs, x_t, t) for kind in kinds)

    def _as(self, kind: str, outputs: tuple[Tensor, ...], x_t: Tensor, t: Tensor) -> Tensor:
        kind = as_prediction(kind)
        for have, output in zip(self.arriving, outputs, strict=True):
            if have == kind:
                return output
        return self.path.convert(outputs[0], x_t, t, src=self.native, dst=kind)

    def _wrong_output(self, outputs: tuple[Any, ...], x_t: Tensor, t: Tensor) -> ShapeError:
        author = f"the guidance {type(self.guidances[-1]).__name__}" if self.guidances else "the network"
        return ShapeError(
            f"{author} must return {len(self.arriving)} tensor(s) of the state's shape {tuple(x_t.shape)}; "
            f"got {', '.join(_shape(output) for output in outputs)} in call {self.calls}, at t = {float(t[0]):.6g}. "
            "A network of another signature is adapted by fm.Model(net, predicts=…, call=lambda net, x, t, cond: …)."
        )


def _shape(output: Any) -> str:
    return str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__


def training_of(
    pipeline: Pipeline, event_shape: tuple[int, ...], provenance: tuple[str, ...] | None = None
) -> Training:
    """The record of a training of `pipeline`; `provenance` names the stages behind given pairs, which are never
    independent.
    """
    from fm_core.building import origin

    def name(part: object) -> str | None:
        spec = origin(part)
        return spec.name if spec else None

    coupling, path = pipeline.coupling, pipeline.path
    return Training(
        path=name(path),
        objective=name(pipeline.objective),
        coupling=name(coupling),
        independent=provenance is None and (coupling is None or bool(declared(coupling, "independent"))),
        gaussian_source=getattr(path, "source", None) is None,
        schedule=schedule_fingerprint(path),
        event_shape=tuple(event_shape),
        provenance=provenance or (),
    )


def schedule_fingerprint(path: ProbabilityPath) -> tuple[float, ...]:
    """α and σ at t = 1/8 … 7/8, or nothing for a path without them."""
    alpha, sigma = getattr(path, "alpha", None), getattr(path, "sigma", None)
    if not callable(alpha) or not callable(sigma):
        return ()
    t = torch.arange(1, 8, dtype=torch.float64) / 8
    return tuple(torch.cat([alpha(t), sigma(t)]).tolist())
