"""Classifier guidance: the score of the data plus the gradient of a classifier that was trained on noised data.

By Bayes' rule `p_t(x|y) ∝ p_t(x)·p(y|x, t)` at every time, so

    ∇ log p_t(x|y) = ∇ log p_t(x) + ∇ log p(y|x, t),

and a scale s sharpens the classifier, `p_t(x)·p(y|x, t)^s` up to a factor. Dhariwal & Nichol move the mean of a DDPM
step by s·Σ·∇ log p (Algorithm 1) and, for DDIM, the noise prediction by −σ·s·∇ log p (Algorithm 2): the second is the
sum of scores, since score = −noise/σ, and the first is it too, for a DDPM step moves its mean by Σ times what the score
moves. Adding to the score therefore serves every path, network and solver: the path's own map turns the sum into the
velocity or the noise that is asked for.

References:
    Dhariwal & Nichol 2021, section 4, Algorithms 1 and 2. https://arxiv.org/abs/2105.05233
    Song et al. 2021, section 5 and appendix I. https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

from typing import Any

from fm_core import Component, hookimpl


def _ten_classes(x_t: Any, t: Any) -> Any:
    """Logits of ten classes, `(B, 10)`, from the first coordinate: a classifier to build the example with."""
    return x_t.reshape(x_t.shape[0], -1)[:, :1] * x_t.new_tensor([k / 4.5 - 1 for k in range(10)])


@hookimpl
def fm_components() -> list[Component]:
    """The guidance `classifier`."""
    return [
        Component(
            "guidance",
            "classifier",
            "fm_plugins.classifier_guidance.guidance:ClassifierGuidance",
            "score + s·∇ log p(y|x_t, t) of a noise-aware classifier",
            "Dhariwal & Nichol 2021, https://arxiv.org/abs/2105.05233",
            example={"classifier": _ten_classes, "conditional": True},
        )
    ]
