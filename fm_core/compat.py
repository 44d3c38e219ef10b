"""What composes with what: capabilities checked when composing, every problem at once, each with its reason and its
fix.

Data, noise, v and velocity convert under any coupling and any source. Only `score = −noise/σ` needs x0 Gaussian and
independent of x1; without it fall the SDEs, Langevin dynamics and guidance by scores. What a network was trained
under counts as much as what it is composed with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from attrs import frozen

from fm_core.building import name_of, origin
from fm_core.errors import did_you_mean
from fm_core.field import schedule_fingerprint
from fm_core.prediction import Prediction
from fm_core.protocols import declared

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline
    from fm_core.protocols import Objective, ProbabilityPath, Solver

__all__ = ["Problem", "asked_by", "made_for", "other_path", "problems"]

_SAME = 1e-6
"""Schedules that differ by less are one."""

_METHODS = {
    "path": ("sample_source", "interpolate", "target", "convert"),
    "model": ("__call__",),
    "objective": ("sample_time", "loss"),
    "coupling": ("pair",),
    "solver": ("solve",),
    "grid": ("times",),
    "guidance": ("guide",),
    "codec": ("encode", "decode"),
}
_ATTRIBUTES = {
    "path": ("provides",),
    "model": ("predicts",),
    "objective": ("needs",),
    "solver": ("needs", "order", "evals_per_step"),
    "guidance": ("needs",),
}


@frozen
class Problem:
    """One reason why parts do not compose.

    Args:
        what: What does not fit.
        why: The reason.
        fix: What to do.
    """

    what: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}\n     why: {self.why}\n     fix: {self.fix}"


def problems(pipeline: Pipeline) -> list[Problem]:
    """Every problem of a pipeline's parts; empty where they compose."""
    malformed = [problem for kind, part in _parts(pipeline) for problem in _malformed(kind, part)]
    if malformed:
        return malformed
    checks = (_geometry, _predictions, _refused, _score, _layers, _steps, _inner_path, _made_for, _trained_elsewhere)
    return [problem for check in checks for problem in check(pipeline)]


def _parts(pipeline: Pipeline) -> Iterator[tuple[str, object]]:
    single = ("path", "model", "objective", "coupling", "solver", "grid", "codec")
    required = ("path", "model")
    yield from ((k, getattr(pipeline, k)) for k in single if k in required or getattr(pipeline, k) is not None)
    yield from (("guidance", guidance) for guidance in pipeline.guidance)


def _malformed(kind: str, part: object) -> Iterator[Problem]:
    if isinstance(part, type):
        yield Problem(
            f"{part.__name__} is a class, and a {kind} is an object",
            "what a class would be made with is not known",
            f"make one: {part.__name__}(…)",
        )
        return
    needed = (*_METHODS.get(kind, ()), *_ATTRIBUTES.get(kind, ()))
    missing = [name for name in needed if not hasattr(part, name)]
    if missing and kind == "path" and hasattr(part, "alpha") and hasattr(part, "sigma"):
        name = type(part).__name__
        yield Problem(
            f"{name} is a schedule, not yet a path", "it has α and σ alone", f"wrap it: fm.GaussianPath({name}(…))"
        )
    elif missing:
        yield Problem(
            f"{type(part).__name__} is no {kind}: it has no {', '.join(missing)}",
            f"a {kind} follows the protocol fm_core.protocols, which asks for {', '.join(needed)}",
            f"give a registry name, an object made by fm.build({kind!r}, …), or an object with these attributes",
        )


def asked_by(part: Objective | Solver, path: ProbabilityPath) -> frozenset[Prediction]:
    """The predictions that an objective or a solver asks for on this path: a table's may depend on it."""
    space_on = getattr(part, "space_on", None)
    return frozenset(part.needs) if space_on is None else frozenset({space_on(path)})


def _geometry(pipeline: Pipeline) -> Iterator[Problem]:
    geometry, solver = declared(pipeline.path, "geometry"), pipeline.solver
    if solver is not None and geometry not in declared(solver, "geometries"):
        yield Problem(
            f"the solver {type(solver).__name__} does not serve {geometry} paths",
            f"it serves {', '.join(sorted(declared(solver, 'geometries')))}",
            f"choose a solver whose `geometries` hold {geometry!r}",
        )


def _needs(pipeline: Pipeline) -> Iterator[tuple[str, object, frozenset[Prediction]]]:
    for kind in ("objective", "solver"):
        if (part := getattr(pipeline, kind)) is not None:
            yield kind, part, asked_by(part, pipeline.path)
    yield from (("guidance", guidance, frozenset(guidance.needs)) for guidance in pipeline.guidance)


def _predictions(pipeline: Pipeline) -> Iterator[Problem]:
    path = pipeline.path
    provides = frozenset(path.provides)
    known = f"the path {type(path).__name__} provides {_listed(provides)}"
    for kind in pipeline.model.predicts:
        if kind not in provides and not _only_score(path, kind):
            yield Problem(
                f"the model predicts {str(kind)!r}, which this path does not know",
                known,
                f"name what the network returns by predicts=…; {did_you_mean(kind, provides)}",
            )
    for role, part, needs in _needs(pipeline):
        for kind in sorted(needs - provides):
            if not _only_score(path, kind):
                yield Problem(
                    f"the {role} {name_of(part)!r} needs {str(kind)!r}, which this path does not give",
                    known,
                    f"choose a {role} that needs one of these, or another path",
                )


def _only_score(path: object, kind: Prediction) -> bool:
    """A Gaussian path withholds the score for its source alone: `_score` explains that better."""
    return kind == Prediction.SCORE and getattr(path, "source", None) is not None


def _refused(pipeline: Pipeline) -> Iterator[Problem]:
    refused: frozenset[Prediction] = getattr(getattr(pipeline.path, "schedule", None), "refused", frozenset())
    kind = pipeline.model.predicts[0]  # the one that others are converted from
    if kind in refused:
        yield Problem(
            f"the model predicts {str(kind)!r}, which this schedule refuses",
            "it begins at zero signal-to-noise ratio, α(0) = 0, and is asked there: the state is the noise itself, so "
            f"its {kind} says nothing of the data, and no conversion can get it back",
            "train the network to predict 'v' or 'data' (objective='v' or 'data'), or compose it with the schedule "
            "without zero_terminal_snr",
        )


def _steps(pipeline: Pipeline) -> Iterator[Problem]:
    if pipeline.solver is None or not (hasattr(pipeline.solver, "rtol") and hasattr(pipeline.solver, "atol")):
        return
    for guidance in pipeline.guidance:
        if declared(guidance, "per_step"):
            yield Problem(
                f"the guidance {name_of(guidance)!r} and the solver {name_of(pipeline.solver)!r}",
                "what the guidance does depends on where a step ends, and an adaptive solver tries steps of any length "
                "and throws some away",
                "use a solver with a fixed grid, such as 'ddim'",
            )


def _inner_path(pipeline: Pipeline) -> Iterator[Problem]:
    own, here = getattr(getattr(pipeline.model, "net", None), "path", None), schedule_fingerprint(pipeline.path)
    there = schedule_fingerprint(own) if own is not None else ()
    if there and here and not _same(there, here):
        yield Problem(
            f"the network {type(pipeline.model.net).__name__} was built for another path",  # type: ignore[attr-defined]
            "it scales its inputs by the α and σ of its own path, which are others than this one's",
            "build it with the path that the pipeline has: path=…",
        )


def _made_for(pipeline: Pipeline) -> Iterator[Problem]:
    if pipeline.solver is not None:
        yield from made_for(pipeline.solver, pipeline.model.predicts, pipeline.path)


def made_for(solver: object, predicts: Sequence[Prediction], path: object) -> Iterator[Problem]:
    """Why a table that is made for one network alone, as a calibrated one is, means nothing on this path.

    Args:
        solver: Any solver; that it is made for one network it says by `predicts`, and by `schedule` of its `plan`.
        predicts: What the network predicts.
        path: The path.
    """
    own, plan = getattr(solver, "predicts", ()), getattr(solver, "plan", None)
    if own and tuple(predicts) != tuple(own):
        there, here = (" and ".join(kinds) for kinds in (own, predicts))
        yield Problem(
            "this table was made for another network",
            f"this network predicts {here}, and that one predicted {there}: its weights mean nothing here",
            _CALIBRATE,
        )
    yield from other_path(getattr(plan, "schedule", ()), getattr(plan, "title", "the one"), path)


def other_path(schedule: Sequence[float], title: str, path: object) -> Iterator[Problem]:
    """Why a table fitted on the path of this fingerprint means nothing on another; nothing for an empty fingerprint."""
    if schedule and not _same(schedule, schedule_fingerprint(path)):  # type: ignore[arg-type]
        yield Problem(
            "this table was calibrated for another field",
            f"the path here has other α and σ than {title!r} it was fitted on: its weights mean nothing here",
            _CALIBRATE,
        )


_CALIBRATE = "calibrate this pipeline: fm.calibrate(pipe, …, nfe=…), or choose solver='auto'"


def _same(there: Sequence[float], here: Sequence[float]) -> bool:
    return len(there) == len(here) and all(abs(a - b) <= _SAME for a, b in zip(there, here, strict=True))


def _layers(pipeline: Pipeline) -> Iterator[Problem]:
    layered = [(layer, g) for g in pipeline.guidance if (layer := declared(g, "layer")) is not None]
    for (below, inner), (above, outer) in pairwise(layered):
        if above < below:
            yield Problem(
                f"the guidance {name_of(inner)!r} stands inside {name_of(outer)!r}",
                f"{name_of(outer)!r} extrapolates between answers of what is inside it, and would extrapolate the term "
                f"that {name_of(inner)!r} adds as well",
                f"list it the other way round, the innermost first: guidance=[{name_of(outer)!r}, {name_of(inner)!r}]",
            )


def _score(pipeline: Pipeline) -> Iterator[Problem]:
    reason = _why_no_score(pipeline)
    if reason is None:
        return
    why = f"score = −noise/σ holds only for a Gaussian source that is independent of the data, and {reason}"
    for role, part, needs in _needs(pipeline):
        stochastic = role == "solver" and declared(part, "stochastic")
        if Prediction.SCORE in needs or stochastic:
            what = "is stochastic and follows" if stochastic else "needs"
            fix = {
                "solver": "use a deterministic solver (euler, heun, …), or independent pairs from a Gaussian source",
                "objective": "use the 'cfm' objective, or an independent coupling and a Gaussian source",
            }.get(role, "drop this guidance, or train with an independent coupling and a Gaussian source")
            yield Problem(f"the {role} {name_of(part)!r} {what} the score, which is not known here", why, fix)
    if Prediction.SCORE in pipeline.model.predicts:
        yield Problem(
            "the model predicts the score, which is not known here",
            why,
            "predict the velocity, or change coupling or source",
        )


def _why_no_score(pipeline: Pipeline) -> str | None:
    coupling, trained = pipeline.coupling, getattr(pipeline.model, "trained", None)
    if coupling is not None and not declared(coupling, "independent"):
        return f"the coupling {name_of(coupling)!r} pairs x0 with x1"
    if getattr(pipeline.path, "source", None) is not None:
        return "the source of this path is not Gaussian noise"
    if trained is not None and not trained.independent:
        made = trained.coupling or "reflow"
        return f"this network was trained on pairs ({made}); composing it otherwise does not change that"
    if trained is not None and not trained.gaussian_source:
        return "this network was trained from another source than Gaussian noise; composing it otherwise keeps that"
    return None


def _trained_elsewhere(pipeline: Pipeline) -> Iterator[Problem]:
    trained = getattr(pipeline.model, "trained", None)
    here = schedule_fingerprint(pipeline.path)
    if trained is None:
        return
    if trained.event_shape is not None and trained.gaussian_source != (getattr(pipeline.path, "source", None) is None):
        yield Problem(
            "the network was trained from another source",
            "it carries "
            + ("Gaussian noise" if trained.gaussian_source else "samples of its own source")
            + " to the data",
            "compose it without source="
            if trained.gaussian_source
            else "compose it with the source= it was trained from",
        )
    spec = origin(pipeline.path)
    if not trained.schedule or not here:
        if trained.path is not None and spec is not None and spec.name != trained.path:
            yield Problem(
                "the network was trained on another path",
                f"that was {trained.path!r}, and this is {spec.name!r}: at one t they hold other states",
                f"compose it with path={trained.path!r}",
            )
        return
    if not _same(trained.schedule, here):
        yield Problem(
            "the network was trained on another path",
            f"its schedule was that of {trained.path or 'a path built by hand'}, with other α and σ than this one: "
            "at one t the two hold other noise levels",
            f"compose it with path={trained.path!r} and the options it was trained with"
            if trained.path
            else "compose it with the path it was trained on",
        )


def _listed(kinds: Iterable[str]) -> str:
    return ", ".join(sorted(kinds)) or "nothing"
