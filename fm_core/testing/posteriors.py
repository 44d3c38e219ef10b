"""What guidances that add a term to the score keep: on Gaussians the term is the gradient that Bayes' rule gives.

With x1 ~ N(m, I), x_t = α·x1 + σ·x0 and y = A·x1 + σ_y·n, x1 given x_t is N(D, c·I) with `D = m + α/(α² + σ²)·(x_t −
α·m)` and `c = σ²/(α² + σ²)`, so y given x_t is N(A·D, c·AAᵀ + σ_y²·I), and

    ∇ log p(y|x_t) = α/(α² + σ²)·Aᵀ·(c·AAᵀ + σ_y²·I)⁻¹·(y − A·D).

Whatever y is, Tweedie's formulas for p(x_t) and p(x_t|y) differ by

    ∇ log p(y|x_t) = α/σ²·(E[x1|x_t, y] − E[x1|x_t]),    ∇² log p(y|x_t) = α²/σ⁴·(Cov[x1|x_t, y] − Cov[x1|x_t]),

so towards the noise, α → 0, such a term fades like α and its Jacobian like α²: noise alone says nothing of y.

References:
    Bishop 2006, Pattern Recognition and Machine Learning, 2.3.3 (linear-Gaussian models).
    Efron 2011 (Tweedie's formulas). https://doi.org/10.1198/jasa.2011.tm11181
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fm_core.field import Field
from fm_core.mixture import GaussianMixture
from fm_core.prediction import Prediction
from fm_core.protocols import declared
from fm_core.testing import strengths as _strengths  # noqa: F401  # its checks come before these
from fm_core.testing.fields import MIXTURE, PATHS
from fm_core.testing.guidances import LABELS, Conditional, guidance_of, inputs
from fm_core.testing.kit import Skipped, Subject, at_most, check_of

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
    term, x = _term(subject)
    jacobian = _jacobian(lambda state: term(state, 0.3), x, 1e-4)
    return at_most(float((jacobian - jacobian.T).abs().max() / (1 + jacobian.abs().max())), 1e-4, "its curl is")


@check_of("guidance")
def a_term_fades_in_noise(subject: Subject) -> float:
    """What a guidance adds to the score fades like α towards the noise, and its Jacobian like α², as ∇ log p(y|x_t)
    does.

    For those whose term no other check knows in closed form. From α = 0.01 to 0.0001 it must fall to less than 1/10
    (1/100 is right, 1 that of a term which does not fade), its Jacobian to less than 1/1000 (1/10,000, and 1/100).
    """
    if subject.takes("classifier") or subject.takes("y", "operator", "noise"):
        raise Skipped("its term is known in closed form, and compared with it")
    term, x = _term(subject)
    fall = _fall(term(x, 1e-2), term(x, 1e-4))
    at_most(fall, 0.1, "from α = 0.01 to 0.0001 its term falls to the share")
    slopes = (_jacobian(lambda state, t=t: term(state, t), x, 1e-2) for t in (1e-2, 1e-4))  # type: ignore[misc]
    at_most(_fall(*slopes), 1e-3, "from α = 0.01 to 0.0001 its term's Jacobian falls to the share")
    return fall


def _fall(before: Tensor, now: Tensor) -> float:
    size = float(now.abs().max())
    return size / float(before.abs().max()) if size > 1e-10 else 0.0


def _term(subject: Subject) -> tuple[Callable[[Tensor, float], Tensor], Tensor]:
    """What the guidance adds to the score of Gaussian data at a state and a time, flat, and a state.

    Raises:
        Skipped: If it acts on another prediction, and does not say that it adds a term of its own (layer 1).
    """
    guidance, shape = guidance_of(subject)
    if declared(guidance, "acts_on") != Prediction.SCORE and declared(guidance, "layer") != 1:
        raise Skipped("it does not act on the score")
    path, rows = PATHS["linear"], slice(0, 1)
    x, _, cond, _ = (value[rows] for value in inputs(shape))
    model = Conditional(path, shape=shape)
    model.laws = [GaussianMixture(model.laws[0].means, 0.8)] * (LABELS + 1)
    guidance = guidance.select(rows) if hasattr(guidance, "select") else guidance

    def term(state: Tensor, t: float) -> Tensor:
        time = torch.full((1,), t, dtype=torch.float64)
        with torch.no_grad():
            given, plain = (
                Field(model, path, around).predict(state, time, cond, Prediction.SCORE, until=time + 0.1)
                for around in ((guidance,), ())
            )
        added: Tensor = (given - plain).flatten()
        return added

    return term, x


def _jacobian(term: Callable[[Tensor], Tensor], x: Tensor, h: float) -> Tensor:
    units = torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *x.shape)
    return torch.stack([(term(x + h * e) - term(x - h * e)) / (2 * h) for e in units])
