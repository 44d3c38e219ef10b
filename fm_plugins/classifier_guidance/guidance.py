"""Classifier guidance, `score + s·∇ log p(y|x_t, t)`.

For every prediction the classifier is asked and differentiated once, the network is asked once and not differentiated.
At s = 1 the guided field is that of p(x|y), if the classifier is Bayes' for the noised data; at s = 0 that of p(x).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core import Field, Model, Prediction
from fm_core.building import OptionError
from fm_core.errors import ConditionError, ShapeError
from fm_core.evaluating import evaluating
from fm_core.guiding import Scale, expand_condition, is_scale, require_condition, scale_at
from fm_core.protocols import declared
from fm_core.shapes import map_tensors

__all__ = ["ClassifierGuidance"]


@frozen(eq=False)
class ClassifierGuidance:
    """Adds the gradient of a classifier's log-probability to the score.

    The condition is the class asked for: integers `(B,)`, alone or under the key `label` of a dict. The field inside is
    asked for p(x), so its network is given no condition: the model's `null` where it has one, else None. With
    `conditional`, or where a guidance inside extrapolates between answers with and without it (`cfg`), it is given the
    whole condition, as in the paper's conditional models; the sum is then the score of `p(x|y)·p(y|x)^s`, no longer of
    p(x|y).

    Args:
        classifier: `classifier(x_t, t) -> logits (B, K)` for states `(B, *D)` and times `(B,)`, trained on noised data
            of this path. A module is asked in evaluation mode.
        scale: s: a number, `(B,)`, or a function of the log-SNR. 1 samples p(x|y), 0 is off, more is sharper.
        label: Key of the classes in a condition that is a dict.
        conditional: Whether the network inside is given the condition too.

    Raises:
        OptionError: Without a classifier.

    References:
        Dhariwal & Nichol 2021. https://arxiv.org/abs/2105.05233
    """

    classifier: Callable[..., Tensor] | None = attribute(default=None)
    scale: Scale = attribute(default=1.0, validator=is_scale)
    label: str = attribute(default="class", kw_only=True)
    conditional: bool = attribute(default=False, kw_only=True)

    needs = frozenset({Prediction.SCORE})
    acts_on = Prediction.SCORE
    layer = 1

    @classifier.validator
    def _callable(self, _: object, classifier: object) -> None:
        if not callable(classifier) or isinstance(classifier, type):
            raise OptionError(
                f"classifier guidance needs a classifier, called as classifier(x_t, t) -> logits (B, K); got "
                f"{classifier!r}. Train one on noised data of this path and give it: "
                "fm.build('guidance', 'classifier', classifier=net)"
            )

    @property
    def off(self) -> bool:
        """Whether it changes nothing: at scale 0, unless it still keeps the condition from the network inside."""
        return self.conditional and isinstance(self.scale, int | float) and self.scale == 0

    def select(self, rows: slice | Tensor) -> ClassifierGuidance:
        """The guidance of these samples, where there is one scale for each."""
        per_sample = isinstance(self.scale, Tensor) and self.scale.ndim == 1
        return attrs.evolve(self, scale=self.scale[rows]) if per_sample else self  # type: ignore[index]

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """`score + s·∇ log p(y|x_t, t)`, shape `(B, *D)`.

        Raises:
            ConditionError: Without classes, or for classes that the classifier does not know.
            ShapeError: If the classifier returns something else than logits `(B, K)`.
        """
        scale = scale_at(self.scale, field.path, t, x_t)
        if isinstance(scale, int | float) and scale == 0:
            return self.plain(field, x_t, t, cond, until=until)
        labels = self._labels(cond, x_t)
        return self.plain(field, x_t, t, cond, until=until) + scale * self._gradient(field, x_t, t, labels)

    def plain(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """The score that the classifier's gradient is added to, shape `(B, *D)`."""
        score: Tensor = field.predict(x_t, t, self._inside(field, cond), Prediction.SCORE, until=until)
        return score

    def _inside(self, field: Field, cond: Any) -> Any:
        if self.conditional or any(declared(guidance, "layer") == 0 for guidance in field.guidances):
            return cond
        null = getattr(field.model, "null", None)
        return None if null is None or cond is None else expand_condition(null, cond)

    def _labels(self, cond: Any, x_t: Tensor) -> Tensor:
        require_condition(cond, "classifier guidance")
        labels = cond.get(self.label) if isinstance(cond, dict) else cond
        if not isinstance(labels, Tensor) or labels.shape != x_t.shape[:1] or labels.is_floating_point():
            where = f"cond[{self.label!r}]" if isinstance(cond, dict) else "cond"
            got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise ConditionError(
                f"classifier guidance takes the classes from {where}, integers of shape ({len(x_t)},); got {got}. "
                "Say label= where the condition is a dict and holds them under another key."
            )
        return labels

    def _gradient(self, field: Field, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """∇ log p(y|x_t, t) by x_t, of every sample for itself: the gradient of the sum."""
        keep = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad(), evaluating(_Asked(self.classifier)):
            t, index = map_tensors(lambda v: v.clone() if v.is_inference() else v, (t, labels))
            x = x_t if keep and x_t.requires_grad else x_t.detach().clone().requires_grad_()
            logits = self.classifier(x, t)  # type: ignore[misc]
            if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
                got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise ShapeError(f"a classifier returns logits ({len(x)}, K) for states {tuple(x.shape)}; got {got}")
            self._require_known(field, labels, logits.shape[1])
            chosen = logits.log_softmax(1).gather(1, index.to(x.device, torch.long)[:, None]).sum()
            return torch.autograd.grad(chosen, x, create_graph=keep)[0]

    def _require_known(self, field: Field, labels: Tensor, count: int) -> None:
        """Looks at the classes once in a run: on a GPU every look would wait for all work to be done."""
        if field.memory.get(self) is labels:
            return
        field.memory[self] = labels
        unknown = labels[(labels < 0) | (labels >= count)]
        if unknown.numel():
            raise ConditionError(
                f"the classifier knows the classes 0 … {count - 1}; got {int(unknown[0])}. Ask for one of these, or "
                "give a classifier that was trained on more."
            )


def _network(classifier: Any) -> Any:
    return classifier.net if isinstance(classifier, Model) else classifier


@frozen(eq=False)
class _Asked:
    """A classifier as `evaluating` takes it: what a model holds as its network."""

    net: Any = attribute(converter=_network)
    predicts = (Prediction.SCORE,)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return self.net(x_t, t)  # type: ignore[no-any-return]
