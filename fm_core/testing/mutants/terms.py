"""Guidances that add a term to the score, with one defect each: classifier and posterior guidance, and a tilt."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core.prediction import Prediction
from fm_core.shapes import over
from fm_core.testing.mutants.planting import plant, right

__all__: list[str] = []

DATA, SCORE = Prediction.DATA, Prediction.SCORE


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
            alpha, sigma = (over(f(t), x) for f in (field.path.alpha, field.path.sigma))
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
    (x, r), least = (torch.zeros_like(b), b), torch.finfo(b.dtype).tiny
    p, rr = r, _dot(r, r)
    for _ in range(iterations):
        q = apply(p)
        step = rr / _dot(p, q).clamp_min(least)
        x, r = x + step * p, r - step * q
        new = _dot(r, r)
        p, rr = r + new / rr.clamp_min(least) * p, new
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return over((a * b).flatten(1).sum(1), a)


@frozen(eq=False)
class _Added:
    """score + (least + s)·term(field, x, t, cond), and the plain score at s = 0."""

    term: Any
    strength: float = 1.0
    least: float = 0.0
    evals: int = 2

    needs = frozenset({SCORE})
    acts_on = SCORE
    layer = 1

    @property
    def off(self) -> bool:
        return self.strength == 0

    def guide(self, field: Any, x_t: Tensor, t: Tensor, cond: Any, *, until: Any = None) -> Tensor:
        score: Tensor = field.predict(x_t, t, cond, SCORE, until=until)
        if self.off:
            return score
        guided: Tensor = score + (self.least + self.strength) * self.term(field, x_t, t, cond)
        return guided


def _tilt(field: Any, x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
    """∇ log p(y|x_t) for log p(y|x1) linear in x1: (∂D/∂x_t)ᵀ·(1, …, 1), exact on Gaussian data."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x_t if x_t.requires_grad else x_t.detach().requires_grad_()
        data = field.predict(x, t, cond, DATA)
        slope: Tensor = torch.autograd.grad(data.sum(), x, create_graph=keep)[0]
        return slope


right("guidance", "classifier", _Classifier, conditional=True)
right("guidance", "posterior", lambda y=0.0, operator=lambda x: x, noise=0.5: _Posterior(y, operator, noise))
right("guidance", "tilt", lambda scale=1.0: _Added(_tilt, scale))


def _posterior(**defect: Any) -> Any:
    return lambda y=0.0, operator=lambda x: x, noise=0.5: _Posterior(y, operator, noise, **defect)


plant(
    "guidance",
    "samples_are_independent",
    "a step divided by a norm over the batch",
    _posterior(over_batch=True),
    found="azula, DPSSampler: 0.13 between B = 1 and 4",
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
    lambda: _Added(lambda field, x, t, cond: torch.stack([x[:, 1], -x[:, 0]], 1)),
)
plant(
    "guidance",
    "a_term_is_a_gradient",
    "one coordinate's gradient given to all",
    lambda: _Added(lambda field, x, t, cond: x[:, :1].sin().expand_as(x)),
)
plant(
    "guidance",
    "a_term_fades_in_noise",
    "a push away from 5, the same at all noise levels",
    lambda strength=1.0: _Added(lambda field, x, t, cond: x - 5, strength),
)
plant(
    "guidance",
    "a_term_fades_in_noise",
    "a measurement of the data held against the noised state",
    lambda strength=1.0: _Added(lambda field, x, t, cond: (0.7 - x) / 0.3**2, strength),
    found="guidance by a loss of x_t",
)
plant(
    "guidance",
    "a_term_fades_in_noise",
    "a pull to the origin that fades like α, its Jacobian too",
    lambda strength=1.0: _Added(lambda field, x, t, cond: -over(t, x) * x, strength),
)
plant(
    "guidance",
    "near_off_is_near_the_plain",
    "s + 1 times its term, none at s = 0",
    lambda scale=1.0: _Added(_tilt, scale, least=1.0),
)
