"""What guidances that add a term to the score keep: on Gaussians the term is the gradient that Bayes' rule gives.

With x1 ~ N(m, I), x_t = α·x1 + σ·x0 and y = A·x1 + σ_y·n, x1 given x_t is N(D, c·I) with `D = m + α/(α² + σ²)·(x_t −
α·m)` and `c = σ²/(α² + σ²)`, so y given x_t is N(A·D, c·AAᵀ + σ_y²·I), and

    ∇ log p(y|x_t) = α/(α² + σ²)·Aᵀ·(c·AAᵀ + σ_y²·I)⁻¹·(y − A·D).

References:
    Bishop 2006, Pattern Recognition and Machine Learning, 2.3.3 (linear-Gaussian models).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_core.field import Field
from fm_core.prediction import Prediction
from fm_core.protocols import declared
from fm_core.testing.fields import MIXTURE, PATHS
from fm_core.testing.guidances import LABELS, Conditional, guidance_of, inputs
from fm_core.testing.kit import Skipped, Subject, at_most, check_of
from fm_core.testing.mixture import GaussianMixture

__all__: list[str] = []

_A = torch.tensor([[1.0, 0.4], [0.0, 0.5]], dtype=torch.float64)
_Y = torch.tensor([0.7, -0.9], dtype=torch.float64)
_NOISE = 0.3


def _measure(x: Tensor) -> Tensor:
    return x @ _A.T.to(x)


@check_of("guidance")
def posterior_of_a_linear_measurement(subject: Subject) -> float:
    """With y = A·x1 + noise and Gaussian data of unit variance its term is ∇ log p(y|x_t) in closed form.

    For guidances that are built with options y, operator and noise. A has rank 2, so one iteration of a linear solver
    does not do.
    """
    if not subject.takes("y", "operator", "noise"):
        raise Skipped("it is not built with options y, operator and noise")
    guidance = subject.build(y=_Y, operator=_measure, noise=_NOISE)
    data, worst = GaussianMixture([[0.4, -0.3]], 1.0), 0.0
    x, t, _, until = inputs()
    for path in PATHS.values():
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        gain = alpha / (alpha.square() + sigma.square())
        mean = data.means + gain * (x - alpha * data.means)
        covariance = (sigma * gain / alpha * sigma)[:, :, None] * (_A @ _A.T) + _NOISE**2 * torch.eye(2).to(_A)
        residual = torch.linalg.solve(covariance, _Y - _measure(mean))
        score = data.predict(path, Prediction.SCORE, x, t)
        with torch.no_grad():
            field = Field(data.model(path), path, (guidance,))
            given = field.predict(x, t, None, Prediction.SCORE, until=until)
        worst = max(worst, float((given - score - gain * residual @ _A).abs().max()))
    return at_most(worst, 1e-6, "distance from the posterior's score")


@check_of("guidance")
def classifier_gives_the_conditional_score(subject: Subject) -> float:
    """With Bayes' own classifier of a mixture's components, the score of all becomes that of the component asked for.

    For guidances that are built with an option classifier.
    """
    if not subject.takes("classifier"):
        raise Skipped("it is not built with an option classifier")
    plain = {name: value for name, value in {"scale": 1.0, "conditional": False}.items() if subject.takes(name)}
    worst = 0.0
    x, t, cond, until = inputs()
    for path in PATHS.values():
        model = Conditional(path)
        parts, weights = model.laws[:LABELS], MIXTURE.weights.log()

        def classify(x: Tensor, t: Tensor, path: Any = path, parts: Any = parts, weights: Tensor = weights) -> Tensor:
            return torch.stack([part.log_prob(path, x, t) for part in parts], 1) + weights

        with torch.no_grad():
            field = Field(model, path, (subject.build(classifier=classify, **plain),))
            given = field.predict(x, t, cond, Prediction.SCORE, until=until)
        want = torch.stack([part.predict(path, Prediction.SCORE, x, t) for part in parts])[cond, torch.arange(4)]
        worst = max(worst, float((given - want).abs().max()))
    return at_most(worst, 1e-9, "distance from the score of the component")


@check_of("guidance")
def a_term_is_a_gradient(subject: Subject) -> float:
    """What a guidance adds to the score of Gaussian data is ∇log p of something: its Jacobian is symmetric."""
    guidance, shape = guidance_of(subject)
    if declared(guidance, "acts_on") != Prediction.SCORE:
        raise Skipped("it does not act on the score")
    path, rows = PATHS["linear"], slice(0, 1)
    x, t, cond, until = (value[rows] for value in inputs(shape))
    model = Conditional(path, shape=shape)
    model.laws = [GaussianMixture(model.laws[0].means, 0.8)] * (LABELS + 1)
    guidance = guidance.select(rows) if hasattr(guidance, "select") else guidance

    def term(state: Tensor) -> Tensor:
        inner = Field(model, path)
        with torch.no_grad():
            given: Tensor = guidance.guide(inner, state, t, cond, until=until)
            plain: Tensor = inner.predict(state, t, cond, Prediction.SCORE)
        return (given - plain).flatten()

    h, units = 1e-4, torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *x.shape)
    jacobian = torch.stack([(term(x + h * e) - term(x - h * e)) / (2 * h) for e in units])
    return at_most(float((jacobian - jacobian.T).abs().max() / (1 + jacobian.abs().max())), 1e-4, "its curl is")
