"""What every probability path keeps of its predictions: targets, conversions, shapes, dtypes, devices, and the ends."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from fm_core.errors import PredictionError
from fm_core.prediction import GAUSSIAN_KINDS, Prediction
from fm_core.protocols import PathSample, span_of
from fm_core.randomness import make_generator
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of, worst_of
from fm_core.testing.paths import INSIDE, SHAPES, ends_of, pair_of, path_of, requires, sample_at

__all__: list[str] = []


@check_of("path")
def target_is_the_velocity(subject: Subject) -> float:
    """The velocity target is dx_t/dt at fixed x0 and x1 (and at the path's own noise)."""
    path = path_of(subject)
    requires(path, Prediction.VELOCITY)

    def error(t: float, shape: tuple[int, ...]) -> float:
        h = 1e-5 * min(t, 1 - t)
        before, after = (sample_at(path, s, shape).x_t for s in (t - h, t + h))
        target = path.target(sample_at(path, t, shape), Prediction.VELOCITY)
        return float(((after - before) / (2 * h) - target).abs().max() / (1 + target.abs().max()))

    return worst_of(error, 1e-5, "relative distance of the target from the difference quotient", t=INSIDE, shape=SHAPES)


@check_of("path")
def provides_is_honest(subject: Subject) -> None:
    """`target` and `convert` give every kind that `provides` names, finite and of the state's shape, and no other."""
    path = path_of(subject)
    sample = sample_at(path, 0.4, (3, 2))
    for kind in sorted(path.provides):
        value = path.target(sample, kind)
        if value.shape != sample.x_t.shape or not bool(value.isfinite().all()):
            raise Failed(f"target({str(kind)!r}) has the shape {tuple(value.shape)} or is not finite")
        back = path.convert(value, sample.x_t, sample.t, src=kind, dst=kind)
        at_most(float((back - value).abs().max()), 1e-12, f"convert from {kind} to itself changes it by")
    if not set(path.provides) <= GAUSSIAN_KINDS:
        return
    for kind in sorted(GAUSSIAN_KINDS - set(path.provides)):
        try:
            path.convert(sample.x_t, sample.x_t, sample.t, src=sorted(path.provides)[0], dst=kind)
        except PredictionError:
            continue
        if kind != Prediction.SCORE:  # what breaks the score is the source: see score_needs_a_gaussian_source
            raise Failed(f"convert gives {str(kind)!r}, which `provides` does not name")


@check_of("path")
def conversions_agree_with_targets(subject: Subject) -> float:
    """Converting one kind's target gives another kind's target, for every pair of kinds that the path provides."""
    path = path_of(subject)
    kinds = sorted(path.provides)
    if len(kinds) < 2:
        raise Skipped(f"the path provides {', '.join(kinds)} alone")

    def error(t: float, shape: tuple[int, ...], pair: tuple[str, str]) -> float:
        src, dst = pair
        sample = sample_at(path, t, shape)
        want = path.target(sample, dst)
        got = path.convert(path.target(sample, src), sample.x_t, sample.t, src=src, dst=dst)
        return float((got - want).abs().max() / (1 + want.abs().max()))

    pairs = st.tuples(st.sampled_from(kinds), st.sampled_from(kinds))
    return worst_of(error, 1e-9, "relative error of a conversion", t=INSIDE, shape=SHAPES, pair=pairs, examples=60)


@check_of("path")
def conversions_round_trip(subject: Subject) -> float:
    """A prediction of any value, converted to another kind and back, is what it was: nothing is clipped or padded."""
    path = path_of(subject)
    kinds = sorted(path.provides)
    if len(kinds) < 2:
        raise Skipped(f"the path provides {', '.join(kinds)} alone")

    def error(t: float, shape: tuple[int, ...], pair: tuple[str, str]) -> float:
        src, dst = pair
        sample = sample_at(path, t, shape)
        value = 4 * pair_of(shape)[0].flip(0)
        there = path.convert(value, sample.x_t, sample.t, src=src, dst=dst)
        back = path.convert(there, sample.x_t, sample.t, src=dst, dst=src)
        return float((back - value).abs().max() / (1 + value.abs().max()))

    pairs = st.tuples(st.sampled_from(kinds), st.sampled_from(kinds))
    return worst_of(error, 1e-8, "relative error after there and back", t=INSIDE, shape=SHAPES, pair=pairs, examples=60)


@check_of("path")
def times_broadcast(subject: Subject) -> float:
    """A time `(B,)` belongs to the samples, also where B is the width: every row equals the row alone.

    PyTorch's own rules would take it for a row of the width, silently.
    """
    path, worst = path_of(subject), 0.0
    for shape in ((3, 3), (2, 2, 2), (4, 1, 4, 4), (1, 5)):
        x0, x1 = pair_of(shape)
        t = torch.linspace(0.2, 0.8, shape[0], dtype=torch.float64)
        whole = path.interpolate(x0, x1, t, generator=make_generator(0))
        moved = path.interpolate(x0, x1 + 1, t, generator=make_generator(0)).x_t - whole.x_t
        for i in range(shape[0]):
            rows = slice(i, i + 1)
            ends = [
                path.interpolate(x0[rows], x, t[rows], generator=make_generator(0)).x_t
                for x in (x1[rows], x1[rows] + 1)
            ]
            worst = max(worst, float((ends[1] - ends[0] - moved[rows]).abs().max()))
        for kind in sorted(path.provides):
            worst = max(worst, _rows_differ(path, whole, kind))
    return at_most(worst, 1e-10, "a row in its batch differs from the row alone by")


def _rows_differ(path: Any, whole: Any, kind: str) -> float:
    """How far targets and conversions of a row alone are from those in its batch."""
    worst, first = 0.0, sorted(path.provides)[0]
    target = path.target(whole, kind)
    values = path.convert(target, whole.x_t, whole.t, src=kind, dst=first)
    for i in range(len(whole.x_t)):
        rows = slice(i, i + 1)
        extra = {name: value[rows] for name, value in whole.extra.items()}
        alone = PathSample(whole.x_t[rows], whole.t[rows], whole.x0[rows], whole.x1[rows], extra)
        single = path.target(alone, kind)
        value = path.convert(single, alone.x_t, alone.t, src=kind, dst=first)
        worst = max(worst, float((single - target[rows]).abs().max()), float((value - values[rows]).abs().max()))
    return worst


@check_of("path")
def one_time_for_all(subject: Subject) -> float:
    """A time `()` is that of every sample: states, targets and conversions are those at as many equal times."""
    path = path_of(subject)
    (x0, x1), first, pairs = pair_of((3, 2)), sorted(path.provides)[0], []
    times = torch.tensor(0.4, dtype=torch.float64), torch.full((3,), 0.4, dtype=torch.float64)
    samples = [path.interpolate(x0, x1, t, generator=make_generator(0)) for t in times]
    pairs.append([sample.x_t for sample in samples])
    for kind in sorted(path.provides):
        targets = [path.target(sample, kind) for sample in samples]
        pairs += [targets, [path.convert(targets[1], samples[1].x_t, t, src=kind, dst=first) for t in times]]
    for given, want in pairs:
        if given.shape != want.shape:
            raise Failed(f"at a time () it gives {tuple(given.shape)} for states {tuple(want.shape)}")
    worst = max(float((given - want).abs().max()) for given, want in pairs)
    return at_most(worst, 1e-12, "at a time () it gives something else than at as many equal times, by")


@check_of("path")
def dtypes(subject: Subject) -> float:
    """States, targets, conversions and source samples have the dtype asked for, and float32 agrees with float64."""
    path, worst = path_of(subject), 0.0
    for kind in sorted(path.provides):
        values = []
        for dtype in (torch.float32, torch.float64):
            for what, value in _everything(path, kind, dtype, "cpu").items():
                if value.dtype != dtype:
                    raise Failed(f"{what} of {dtype} inputs is {value.dtype}")
            values.append(path.target(sample_at(path, 0.37, (4, 3), dtype), kind).double())
        worst = max(worst, float((values[0] - values[1]).abs().max() / (1 + values[1].abs().max())))
    return at_most(worst, 1e-4, "float32 differs from float64 by")


@check_of("path")
def devices(subject: Subject) -> None:
    """What it computes lies where its inputs lie: on a GPU if there is one, else on PyTorch's meta device."""
    path, device = path_of(subject), "cuda" if torch.cuda.is_available() else "meta"
    for kind in sorted(path.provides):
        try:
            made = _everything(path, kind, torch.float32, device)
        except NotImplementedError as error:
            raise Skipped(f"it moves values to the CPU, which only a GPU can show: {error}") from error
        except RuntimeError as error:
            if "item()" in str(error):
                raise Skipped(f"it reads values, which only a GPU can show: {error}") from error
            raise Failed(f"on the device {device!r} it raised {str(error).splitlines()[0]}") from error
        for what, value in made.items():
            if value.device.type != device:
                raise Failed(f"{what} of inputs on {device!r} lies on {value.device.type!r}")


def _everything(path: Any, kind: str, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """All that a path computes, by what it is."""
    x0, x1 = (x.to(dtype).to(device) for x in pair_of((4, 3)))
    t = torch.full((4,), 0.37, dtype=dtype, device=device)
    sample = path.interpolate(x0, x1, t, generator=make_generator(3))
    target = path.target(sample, kind)
    first = sorted(path.provides)[0]
    return {
        "x_t": sample.x_t,
        f"the target {kind}": target,
        f"the conversion of {kind} to {first}": path.convert(target, sample.x_t, t, src=kind, dst=first),
        "a source sample": path.sample_source((4, 2), generator=make_generator(0), dtype=dtype, device=device),
    }


@check_of("path")
def finite_inside_the_span(subject: Subject) -> None:
    """Between the ends of `span` every conversion is finite, the ends included, and the span lies in [0, 1]."""
    path = path_of(subject)
    kinds = sorted(path.provides)
    for src in kinds:
        for dst in kinds:
            low, high = span_of(path, src, frozenset({dst}))
            if not 0 <= low < high <= 1:
                raise Failed(f"the span of {src} for {dst} is [{low}, {high}]")
            for t in (low, high, (low + high) / 2):
                sample = sample_at(path, t, (2, 3))
                value = path.convert(torch.ones_like(sample.x_t), sample.x_t, sample.t, src=src, dst=dst)
                if not bool(value.isfinite().all()):
                    raise Failed(f"{src} → {dst} is not finite at t = {t:.6g}, an end or the middle of its span")


@check_of("path")
def span_reaches_the_ends(subject: Subject) -> float:
    """The span of every conversion leaves out little: α/σ ≤ 0.1 where it begins and σ/α ≤ 0.05 where it ends.

    A run starts where the network may be asked first, and the last data prediction closes it: what lies outside the
    span no solver ever follows.
    """
    path = path_of(subject)
    kinds = sorted(path.provides)
    spans = {span_of(path, src, frozenset({dst})) for src in kinds for dst in kinds}
    return max(ends_of(path, span) for span in sorted(spans))


@check_of("path")
def target_is_continuous_at_the_ends(subject: Subject) -> float:
    """The targets do not jump at an end of the span: at a distance of 1e-9 they are what they are at the end."""
    path, worst = path_of(subject), 0.0
    for kind in sorted(path.provides):
        low, high = span_of(path, kind, frozenset({kind}))
        for end, beside in ((low, low + 1e-9), (high, high - 1e-9)):
            here, there = (path.target(sample_at(path, t, (4, 2)), kind) for t in (end, beside))
            worst = max(worst, float((here - there).abs().max() / (1 + here.abs().max())))
    return at_most(worst, 0.01, "a target jumps by")
