"""Guidances with one defect each: of classifier-free guidance, clipping and momentum."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core.guiding import both
from fm_core.prediction import Prediction
from fm_core.testing.mutants.planting import Changed, plant, right

__all__: list[str] = []

DATA, SCORE, VELOCITY, NOISE = Prediction.DATA, Prediction.SCORE, Prediction.VELOCITY, Prediction.NOISE


@frozen(eq=False)
class _CFG:
    """u + s·(c − u), by `mix(s, c, u)`."""

    scale: float = 3.0
    mix: Any = None
    acts_on: Prediction | None = None

    needs = frozenset[Prediction]()
    layer = 0
    evals = 1

    @property
    def off(self) -> bool:
        return self.scale == 1

    def guide(self, field: Any, x_t: Tensor, t: Tensor, cond: Any, *, until: Any = None) -> Tensor:
        kind = self.acts_on or field.native
        c, u = both(field, x_t, t, cond, torch.full_like(cond, field.model.null), kind, until=until)
        mixed: Tensor = c + (self.scale - 1) * (c - u) if self.mix is None else self.mix(self.scale, c, u)
        return mixed


@frozen(eq=False)
class _On:
    """`change(prediction, field, x_t, t)` of a kind; the plain prediction where it is `none`."""

    change: Any
    acts_on: Prediction | None = DATA
    none: bool = False
    evals: int = 1
    layer: int | None = None
    needs: frozenset[Prediction] = frozenset({DATA})

    def guide(self, field: Any, x_t: Tensor, t: Tensor, cond: Any, *, until: Any = None) -> Tensor:
        plain = field.predict(x_t, t, cond, self.acts_on or field.native, until=until)
        changed: Tensor = self.change(plain, field, x_t, t)
        return changed


def _clipped(low: float = -0.5, high: float = 0.5) -> _On:
    return _On(lambda d, field, x, t: d.clamp(low, high))


def _momentum(memory: Any) -> Any:
    """Adds half of the last prediction, kept in `memory(field)`."""

    def make() -> _On:
        def change(plain: Tensor, field: Any, x: Tensor, t: Tensor) -> Tensor:
            kept = memory(field)
            last: Tensor = kept.get("momentum", torch.zeros_like(plain))
            kept["momentum"] = plain.detach()
            return plain + 0.5 * last

        return _On(change)

    return make


right("guidance", "cfg", lambda scale=3.0: _CFG(scale))
right("guidance", "clip", _clipped)
right("guidance", "momentum", _momentum(lambda field: field.memory))


def _cfg(mix: Any, **others: Any) -> Any:
    return lambda scale=3.0: _CFG(scale, mix, **others)


def _apart(mix: Any) -> Any:
    """The scale that is off treated apart."""
    return lambda scale=3.0: _CFG(scale, lambda s, c, u: c if s == 1 else mix(s, c, u))


def _on(change: Any, **others: Any) -> Any:
    return lambda: _On(change, **others)


plant("guidance", "builds", "no method guide", lambda: type("Mute", (), {"needs": frozenset()})())
plant("guidance", "builds", "an option that its example does not give", lambda scale: _CFG(scale))
plant(
    "guidance", "declares_what_it_is", "acts on 'x0', which means two things", lambda: Changed(_clipped(), acts_on="x0")
)
plant("guidance", "declares_what_it_is", "half a network call", _on(lambda d, *a: d, evals=0.5))
plant("guidance", "declares_what_it_is", "a layer of its own", _on(lambda d, *a: d, layer=7))
plant(
    "guidance",
    "off_is_the_identity",
    "c + w·(c − u): 1 is not off",
    _cfg(lambda s, c, u: c + s * (c - u)),
    found="guidance scales (CellFlow 302, …)",
)
plant(
    "guidance",
    "off_is_the_identity",
    "the unconditional answer at scale 1",
    _cfg(lambda s, c, u: u + (s - 1) * (c - u)),
)
plant(
    "guidance",
    "near_off_is_near_the_plain",
    "c + w·(c − u), its scale 1 treated apart",
    _apart(lambda s, c, u: c + s * (c - u)),
    found="guidance scales (CellFlow 302, …)",
)
plant(
    "guidance",
    "near_off_is_near_the_plain",
    "c + w·(c − u), w = 1 called off",
    lambda w=3.0: _CFG(w, lambda s, c, u: c if s == 1 else c + s * (c - u)),
)
plant("guidance", "near_off_is_near_the_plain", "away from the condition", _apart(lambda s, c, u: u + s * (u - c)))
plant("guidance", "near_off_is_near_the_plain", "unconditional unless it is off", _apart(lambda s, c, u: u))
plant("guidance", "towards_the_condition", "away from the condition", _apart(lambda s, c, u: u + s * (u - c)))
plant("guidance", "towards_the_condition", "the unconditional answer at any scale", _apart(lambda s, c, u: u))
plant(
    "guidance",
    "towards_the_condition",
    "c and u swapped, and a strength w",
    lambda w=3.0: _CFG(w, lambda s, c, u: c + s * (u - c)),
)
plant(
    "guidance",
    "images_are_rows_of_numbers",
    "thresholded by a quantile of the channels, where that of the event is meant",
    _on(lambda d, *a: d / d.abs().quantile(0.9, dim=1, keepdim=True).clamp_min(1)),
)
plant("guidance", "images_are_rows_of_numbers", "flat states only", _on(lambda d, *a: d @ torch.eye(d.shape[1]).to(d)))
plant("guidance", "off_costs_nothing", "off is never said", lambda scale=3.0: Changed(_CFG(scale), off=False))
plant("guidance", "off_costs_nothing", "off at 0, not at 1", lambda scale=3.0: Changed(_CFG(scale), off=scale == 0))
plant(
    "guidance",
    "samples_are_independent",
    "thresholded by a quantile of the batch",
    _on(lambda d, *a: d / d.abs().quantile(0.9).clamp_min(1)),
)
plant("guidance", "shapes_and_dtypes", "answers in float64", _cfg(lambda s, c, u: (u + s * (c - u)).double()))
plant("guidance", "shapes_and_dtypes", "a graph kept under no_grad", _on(lambda d, field, x, t: _graph(d, x)))
plant(
    "guidance",
    "space_is_honest",
    "data clipped in whatever kind arrives",
    _on(lambda p, *a: p.clamp(-0.5, 0.5), acts_on=None),
)
plant(
    "guidance",
    "space_is_honest",
    "predictions of whatever kind limited to length 1",
    _on(lambda p, *a: p / p.norm(dim=1, keepdim=True).clamp_min(1), acts_on=None),
)
plant(
    "guidance",
    "network_calls",
    "two calls, one declared",
    _on(lambda d, field, x, t: 0.5 * d + 0.5 * field.predict(x, t, None, DATA)),
)
plant(
    "guidance",
    "network_calls",
    "a finite difference not counted",
    _on(
        lambda d, field, x, t: d + field.predict(x + 1e-3, t, None, DATA) - field.predict(x - 1e-3, t, None, DATA),
        evals=2,
    ),
)
plant("guidance", "gradients_pass", "its answer detached", _on(lambda d, *a: 0.5 * d.detach()))
plant("guidance", "gradients_pass", "computed under no_grad", _on(lambda d, field, x, t: _without(field, x, t)))
_KEPT: dict[str, Any] = {}
plant(
    "guidance",
    "runs_do_not_meet",
    "momentum kept by the module",
    _momentum(lambda field: _KEPT),
    found="schedulers that keep a state",
)


class _Own:
    """Momentum kept by the guidance."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def __call__(self) -> Any:
        return _momentum(lambda field: self.kept)()


plant("guidance", "runs_do_not_meet", "momentum kept by the guidance", lambda: _Own()())
plant(
    "guidance",
    "randomness",
    "noise from torch's global generator",
    _on(lambda d, *a: d + 1e-3 * torch.randn(d.shape).to(d)),
)
plant("guidance", "randomness", "the states changed in place", _on(lambda d, field, x, t: d + x.clamp_(-0.1, 0.1)))
plant(
    "guidance",
    "all_channels",
    "three of four channels guided",
    _cfg(lambda s, c, u: torch.cat([u[:, :3] + s * (c - u)[:, :3], c[:, 3:]], 1)),
    found="SiT (issue 23)",
)
plant("guidance", "all_channels", "the channels' mean guided", _cfg(lambda s, c, u: c + (s - 1) * _level(c - u)))


def _graph(d: Tensor, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return d + 0.1 * x.detach().requires_grad_().tanh()


def _without(field: Any, x: Tensor, t: Tensor) -> Tensor:
    with torch.no_grad():
        return 0.5 * field.predict(x, t, None, DATA)  # type: ignore[no-any-return]


def _level(d: Tensor) -> Tensor:
    """Its share in the first of four channels alone."""
    keep = torch.zeros_like(d)
    keep[:, :1] = d[:, :1]
    return keep
