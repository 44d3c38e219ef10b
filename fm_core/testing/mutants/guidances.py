"""Guidances with one defect each: of classifier-free, classifier and posterior guidance, clipping and momentum."""

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


@frozen(eq=False)
class _Classifier:
    """score + s·∇ log p(y|x_t, t), with `sign` and `sums` as defects."""

    classifier: Any = lambda x, t: x.flatten(1)[:, :1] * torch.arange(3.0).to(x)
    scale: float = 1.0
    conditional: bool = False
    sign: float = 1.0
    unnormalised: bool = False

    needs = frozenset({SCORE})
    acts_on = SCORE
    layer = 1

    @property
    def off(self) -> bool:
        return self.scale == 0

    def guide(self, field: Any, x_t: Tensor, t: Tensor, cond: Any, *, until: Any = None) -> Tensor:
        inside = cond if self.conditional else torch.full_like(cond, field.model.null)
        score: Tensor = field.predict(x_t, t, inside, SCORE, until=until)
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x_t if x_t.requires_grad else x_t.detach().requires_grad_()
            logits = self.classifier(x, t)
            logits = logits if self.unnormalised else logits.log_softmax(1)
            chosen = logits.gather(1, cond[:, None]).sum()
            return score + self.sign * self.scale * torch.autograd.grad(chosen, x, create_graph=keep)[0]


@frozen(eq=False)
class _Posterior:
    """score + (∂D/∂x)ᵀAᵀv, (A·C·Aᵀ + σ_y²)·v = y − A·D with C = σ²/(α² + σ²), by conjugate gradients."""

    y: Any = 0.0
    operator: Any = lambda x: x
    noise: float = 0.5
    iterations: int = 5
    over_batch: bool = False
    covariance: bool = True

    needs = frozenset({SCORE, DATA})
    acts_on = SCORE
    layer = 1

    def guide(self, field: Any, x_t: Tensor, t: Tensor, cond: Any, *, until: Any = None) -> Tensor:
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x_t if x_t.requires_grad else x_t.detach().requires_grad_()
            score, data = field.predict(x, t, cond, SCORE, DATA, until=until)
            measured = self.operator(data)
            residual = torch.as_tensor(self.y).to(measured) - measured
            alpha, sigma = (f(t)[:, None] for f in (field.path.alpha, field.path.sigma))
            c = sigma**2 / (alpha**2 + sigma**2) * self.covariance

            def apply(v: Tensor) -> Tensor:
                back = torch.autograd.grad(measured, data, v, retain_graph=True)[0]
                spread: Tensor = self.operator(c * back) - self.operator(torch.zeros_like(back)) + self.noise**2 * v
                return spread

            v = _solved(apply, residual.detach(), self.iterations)
            if self.over_batch:
                v = v / residual.norm()
            term = torch.autograd.grad(measured, x, v, create_graph=keep)[0]
            given: Tensor = score + term
        return given if keep else given.detach()


def _solved(apply: Any, b: Tensor, iterations: int) -> Tensor:
    """Conjugate gradients for every sample."""
    x, r = torch.zeros_like(b), b
    p, rr = r, (r * r).sum(1, keepdim=True)
    for _ in range(iterations):
        q = apply(p)
        step = rr / (p * q).sum(1, keepdim=True).clamp_min(1e-300)
        x, r = x + step * p, r - step * q
        new = (r * r).sum(1, keepdim=True)
        p, rr = r + new / rr.clamp_min(1e-300) * p, new
    return x


right("guidance", "cfg", lambda scale=3.0: _CFG(scale))
right("guidance", "clip", _clipped)
right("guidance", "momentum", _momentum(lambda field: field.memory))
right("guidance", "classifier", _Classifier, conditional=True)
right("guidance", "posterior", lambda y=0.0, operator=lambda x: x, noise=0.5: _Posterior(y, operator, noise))


def _cfg(mix: Any, **others: Any) -> Any:
    return lambda scale=3.0: _CFG(scale, mix, **others)


def _on(change: Any, **others: Any) -> Any:
    return lambda: _On(change, **others)


def _posterior(**defect: Any) -> Any:
    return lambda y=0.0, operator=lambda x: x, noise=0.5: _Posterior(y, operator, noise, **defect)


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
plant("guidance", "off_costs_nothing", "off is never said", lambda scale=3.0: Changed(_CFG(scale), off=False))
plant("guidance", "off_costs_nothing", "off at 0, not at 1", lambda scale=3.0: Changed(_CFG(scale), off=scale == 0))
plant(
    "guidance",
    "samples_are_independent",
    "a step divided by a norm over the batch",
    _posterior(over_batch=True),
    found="azula, DPSSampler: 0.13 between B = 1 and 4",
)
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
plant(
    "guidance",
    "posterior_of_a_linear_measurement",
    "one iteration of conjugate gradients",
    _posterior(iterations=1),
    found="azula, MMPS with 1 iteration: off by 4.6",
)
plant(
    "guidance",
    "posterior_of_a_linear_measurement",
    "the covariance of the data given the state left out",
    _posterior(covariance=False),
    found="DPS",
)
plant(
    "guidance",
    "classifier_gives_the_conditional_score",
    "the gradient with the other sign",
    lambda classifier=None, scale=1.0: _Classifier(classifier, scale, sign=-1.0),
)
plant(
    "guidance",
    "classifier_gives_the_conditional_score",
    "logits taken for log-probabilities",
    lambda classifier=None, scale=1.0: _Classifier(classifier, scale, unnormalised=True),
)
plant(
    "guidance",
    "classifier_gives_the_conditional_score",
    "the network conditioned, too",
    lambda classifier=None, scale=1.0: _Classifier(classifier, scale, conditional=True),
)
plant(
    "guidance",
    "a_term_is_a_gradient",
    "a term turned by a right angle",
    _on(lambda s, field, x, t: s + torch.stack([x[:, 1], -x[:, 0]], 1), acts_on=SCORE),
)
plant(
    "guidance",
    "a_term_is_a_gradient",
    "one coordinate's gradient given to all",
    _on(lambda s, field, x, t: s + x[:, :1].sin().expand_as(x), acts_on=SCORE),
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
