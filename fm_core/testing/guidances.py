"""What every guidance keeps: it acts on every sample by itself, in the space that it names, and keeps nothing.

The field inside is the exact one of a mixture with three labels, each a component; label 3 means none. A guidance is
built with its example's options; its condition is a label for every sample, and what else it holds it brings along.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fm_core.field import Field
from fm_core.guiding import of_rows
from fm_core.mixture import GaussianMixture
from fm_core.prediction import Prediction, as_prediction
from fm_core.protocols import Guidance, declared
from fm_core.randomness import make_generator
from fm_core.testing.fields import MIXTURE, PATHS
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.traces import global_randomness

__all__ = ["LABELS", "Conditional", "guidance_of", "guided", "inputs"]

LABELS = 3
"""Labels 0 … 2 of the field inside, and the label that means none."""

KINDS = ("velocity", "data", "noise", "v")


class Conditional:
    """The exact field of a labelled mixture, on events of any shape; `asked` are the labels that it was told."""

    null = LABELS

    def __init__(self, path: Any, predicts: str = "velocity", shape: tuple[int, ...] = (2,)) -> None:
        self.predicts = (as_prediction(predicts),)
        self.path, self.shape = path, shape
        self.asked = set[int]()
        size = math.prod(shape)
        means = MIXTURE.means.repeat(1, -(-size // 2))[:, :size]
        parts = [GaussianMixture(means[k : k + 1], MIXTURE.stds[k]) for k in range(LABELS)]
        self.laws = [*parts, GaussianMixture(means, MIXTURE.stds, MIXTURE.weights)]

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        flat = x_t.flatten(1)
        labels = torch.full((len(x_t),), LABELS) if cond is None else cond
        self.asked |= set(labels.tolist())
        answers = torch.stack([law.predict(self.path, self.predicts[0], flat, t) for law in self.laws])
        return answers[labels, torch.arange(len(x_t))].reshape(x_t.shape)


def guidance_of(subject: Subject, **options: Any) -> tuple[Guidance, tuple[int, ...]]:
    """The guidance under examination, and the event shape of states that it takes: its `shape`, (2,) by default."""
    guidance: Guidance = subject.build(**options)
    return guidance, tuple(getattr(guidance, "shape", (2,)))


def inputs(shape: tuple[int, ...] = (2,)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four states, their times, labels, and the times the solver is going to."""
    x = torch.randn(4, *shape, generator=make_generator(2), dtype=torch.float64)
    t = torch.linspace(0.3, 0.7, 4, dtype=torch.float64)
    return x, t, torch.arange(4) % LABELS, t + 0.1


def guided(
    guidance: Guidance, model: Any, path: Any, kind: str | None = None, rows: slice | Tensor = slice(None)
) -> Tensor:
    """The guided prediction of a kind, of the native one by default, for some of the inputs."""
    x, t, cond, until = (value[rows] for value in inputs(model.shape))
    field = Field(model, path, (guidance,))
    with torch.no_grad():
        answer: Tensor = field.predict(x, t, cond, kind or field.native, until=until)
    return answer


@check_of("guidance")
def declares_what_it_is(subject: Subject) -> None:
    """`needs` and `acts_on` are kinds of prediction, `evals` a number of calls ≥ 1, `layer` 0, 1 or None."""
    guidance = subject.build()
    acts_on, evals, layer = (declared(guidance, name) for name in ("acts_on", "evals", "layer"))
    if not set(map(as_prediction, guidance.needs)) <= set(Prediction):
        raise Failed(f"needs = {guidance.needs!r}: kinds of prediction")
    if acts_on is not None and as_prediction(acts_on) not in set(Prediction):
        raise Failed(f"acts_on = {acts_on!r}: a kind of prediction, or None")
    if not isinstance(evals, int) or evals < 1 or layer not in (None, 0, 1):
        raise Failed(f"evals = {evals!r}, layer = {layer!r}: a whole number ≥ 1, and None, 0 or 1")


@check_of("guidance")
def samples_are_independent(subject: Subject) -> float:
    """A sample alone is guided as in its batch: no norm, quantile or mean runs over the batch."""
    guidance, shape = guidance_of(subject)
    path, worst = PATHS["linear"], 0.0
    model = Conditional(path, shape=shape)
    whole = guided(guidance, model, path)
    each: list[slice | Tensor] = [slice(i, i + 1) for i in range(len(whole))]
    for rows in (*each, torch.arange(len(whole)).flip(0)):
        alone = guided(of_rows(guidance, rows), model, path, rows=rows)
        worst = max(worst, float((alone - whole[rows]).abs().max()))
    return at_most(worst, 1e-9, "a sample alone differs from the same in its batch by")


@check_of("guidance")
def shapes_and_dtypes(subject: Subject) -> None:
    """The guided prediction has the state's shape and dtype, and keeps no gradient where none was asked for."""
    guidance, shape = guidance_of(subject)
    path = PATHS["linear"]
    for dtype in (torch.float64, torch.float32):
        x, t, cond, until = inputs(shape)
        with torch.no_grad():
            answer = guidance.guide(Field(Conditional(path, shape=shape), path), x.to(dtype), t, cond, until=until)
        if answer.shape != x.shape or answer.dtype != dtype:
            raise Failed(f"states {tuple(x.shape)} of {dtype} were answered by {tuple(answer.shape)} of {answer.dtype}")
        if answer.requires_grad:
            raise Failed("under no_grad its answer still requires a gradient: memory grows with every step")
        if not bool(answer.isfinite().all()):
            raise Failed("its answer is not finite")


@check_of("guidance")
def images_are_rows_of_numbers(subject: Subject) -> float:
    """Images are guided as the same numbers in a row: norms and quantiles run over the event, not the channels."""
    guidance, _ = guidance_of(subject)
    if hasattr(guidance, "shape"):
        raise Skipped("it takes states of one shape only")
    path = PATHS["linear"]
    flat, *images = (
        guided(subject.build(), Conditional(path, shape=shape), path, "velocity").flatten(1)
        for shape in ((12,), (3, 2, 2), (1, 3, 4))
    )
    worst = max(float((image - flat).abs().max()) for image in images)
    return at_most(worst, 1e-9, "reshaped, the same numbers are guided elsewhere, by")


@check_of("guidance")
def space_is_honest(subject: Subject) -> float:
    """Whatever kind the network predicts, the guided field is the same: what it returns is of the kind it says."""
    guidance, shape = guidance_of(subject)
    worst = 0.0
    for path in PATHS.values():
        answers = [guided(guidance, Conditional(path, kind, shape), path, "velocity") for kind in KINDS]
        worst = max(worst, *(float((answer - answers[0]).abs().max()) for answer in answers[1:]))
    return at_most(worst, 1e-7, "between networks of other kinds the guided velocity differs by")


@check_of("guidance")
def network_calls(subject: Subject) -> float:
    """A guided prediction costs at most the network calls that `evals` says."""
    guidance, shape = guidance_of(subject)
    path = PATHS["linear"]
    model = Conditional(path, shape=shape)
    x, t, cond, until = inputs(shape)
    field = Field(model, path, (guidance,))
    with torch.no_grad():
        field.predict(x, t, cond, field.native, until=until)
    return at_most(field.calls, int(declared(guidance, "evals")), "network calls of one guided prediction")


@check_of("guidance")
def gradients_pass(subject: Subject) -> None:
    """With gradients on it can be differentiated by the state, as differentiable sampling needs."""
    guidance, shape = guidance_of(subject)
    path = PATHS["linear"]
    x, t, cond, until = inputs(shape)
    state = x.clone().requires_grad_()
    with torch.enable_grad():
        answer = guidance.guide(Field(Conditional(path, shape=shape), path), state, t, cond, until=until)
    if not answer.requires_grad:
        raise Failed("with gradients on, its answer has none")
    (gradient,) = torch.autograd.grad(answer.sum(), state, allow_unused=True)
    if gradient is None or not bool(gradient.isfinite().all()):
        raise Failed("its gradient by the state is missing or not finite")


@check_of("guidance")
def runs_do_not_meet(subject: Subject) -> float:
    """A run on a field of its own gives the same whatever runs came before: what is kept is kept in `field.memory`."""
    guidance, shape = guidance_of(subject)
    path = PATHS["linear"]
    x, t, cond, until = inputs(shape)

    def run(shift: float) -> Tensor:
        field = Field(Conditional(path, shape=shape), path, (guidance,))
        with torch.no_grad():
            return torch.cat([field.predict(x + k * shift, t, cond, field.native, until=until) for k in (1, 2)])

    first = run(1.0)
    run(-3.0)
    return at_most(float((run(1.0) - first).abs().max()), 0.0, "after another run it gives another answer, by")


@check_of("guidance")
def randomness(subject: Subject) -> None:
    """It touches no global random state, and does not change the states that it is given."""
    guidance, shape = guidance_of(subject)
    path = PATHS["linear"]
    x, t, cond, until = inputs(shape)
    before = x.clone()

    def guide() -> Tensor:
        with torch.no_grad():
            return guidance.guide(Field(Conditional(path, shape=shape), path), x, t, cond, until=until)

    global_randomness(guide)
    if not torch.equal(x, before):
        raise Failed("the states are other ones after guiding")
