"""Problems in closed form: a mixture of Gaussians as data, on any Gaussian path, with labels and guidance if wanted.

The network is the exact posterior mean, so a contender's error is all its own. For one Gaussian N(m, s²·I) the flow
itself is known,

    x(1) = α_1·m + √(c_1/c_0)·(x(0) − α_0·m),        c_t = α_t²·s² + σ_t²,

and for mixtures it is solved to 1e-9 (`angle.py`). A run starts at x(0) = σ_0·x0, as sampling does; on paths whose runs
are closed by the data prediction (`closing`), so is the reference.

With labels, the law given the label c is a mixture of its own; no label means the mixture of all. Guidance is
`u + s·(c − u)` of closed forms, a closed form again; the law that its flow ends in is none of the data, so
`truth` are ends of the flow.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, final

import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core import Field, GaussianPath, Model, Pipeline, Prediction, compose
from fm_core.mixture import GaussianMixture
from fm_core.protocols import declared
from fm_core.registry import build
from fm_plugins.problems.angle import angle_of, flow_ends, mixture_slope

__all__ = ["Oracle"]


@final
@frozen(eq=False, slots=False, kw_only=True)
class Oracle:
    """A benchmark problem in closed form.

    Args:
        title: One line for tables.
        classes: The law of the data given each label, equally likely; a single one is without labels.
        path: A Gaussian path.
        predicts: What the network predicts; None is velocity where the path has one to its end, else the noise.
        scale: Scale of classifier-free guidance, 1 for none.
    """

    title: str
    classes: tuple[GaussianMixture, ...]
    path: GaussianPath
    predicts: Prediction | None = None
    scale: float = attribute(default=1.0)

    exact = True
    reference_error = 1e-9

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one state."""
        return tuple(self.data.means.shape[1:])

    @cached_property
    def data(self) -> GaussianMixture:
        """The law of the data whatever the label: density, score and predictions in closed form."""
        if len(self.classes) == 1:
            return self.classes[0]
        means, stds, weights = (
            torch.cat([getattr(law, name) for law in self.classes]) for name in ("means", "stds", "weights")
        )
        return GaussianMixture(means, stds, weights)

    @cached_property
    def _owner(self) -> Tensor:
        """The label of each of the data's modes, `(K,)`."""
        return torch.cat([torch.full((len(law.means),), label) for label, law in enumerate(self.classes)])

    @cached_property
    def pipeline(self) -> Pipeline:
        """The exact network on the path, guided."""
        return compose(path=self.path, model=self._model(self.path, self._kind()), guidance=self._guidance())

    def condition(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Labels `(n,)`; None without."""
        if len(self.classes) == 1:
            return None
        return torch.randint(len(self.classes), (n,), generator=generator)

    def reference(self, x0: Tensor, cond: Any = None) -> Tensor:
        """Where the flow takes source samples `(n, *D)`, to 1e-9: `(n, *D)`, float64."""
        start, end = (torch.tensor(t, dtype=torch.float64) for t in (0.0, 1.0))
        x = x0.detach().to("cpu", torch.float64) * self.path.sigma(start)
        cond = None if cond is None else cond.cpu()
        x = self._closed_form(x, start, end) if self._is_gaussian() else self._solved(x, start, end, cond)
        if declared(self.path, "closing"):
            field = Field(self._model(self.path, Prediction.DATA), self.path, self._guidance())
            x = field.predict(x, 1.0, cond, Prediction.DATA)
        return x.to(x0.device)

    def truth(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of the law that samples shall have, `(n, *D)`, float64."""
        cond = self.condition(n, generator)
        if self.scale != 1.0:
            x0 = self.path.sample_source((n, *self.event_shape), generator=generator, dtype=torch.float64)
            return self.reference(x0, cond)
        if cond is None:
            return self.data(n, generator)
        draws = torch.stack([law(n, generator) for law in self.classes])
        return draws[cond, torch.arange(n)]

    def _is_gaussian(self) -> bool:
        return len(self.data.means) == 1

    def _closed_form(self, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        mean, variance = self.data.means[0], self.data.stds[0].square()
        (a0, s0), (a1, s1) = ((self.path.alpha(t), self.path.sigma(t)) for t in (start, end))
        spread = ((a1.square() * variance + s1.square()) / (a0.square() * variance + s0.square())).sqrt()
        return a1 * mean + spread * (x - a0 * mean)

    def _solved(self, x: Tensor, start: Tensor, end: Tensor, cond: Tensor | None) -> Tensor:
        (first, r0), (last, r1) = (angle_of(self.path.alpha(t), self.path.sigma(t)) for t in (start, end))
        weights = self.data.weights.log()
        given = weights if cond is None else torch.where(self._owner == cond[:, None], weights, -torch.inf)

        def slope(z: Tensor, theta: float, rows: slice) -> Tensor:
            own = mixture_slope(self.data, z, theta, given if cond is None else given[rows])
            if self.scale == 1.0:
                return own
            return self.scale * own + (1 - self.scale) * mixture_slope(self.data, z, theta, weights)

        return flow_ends(slope, x / r0, (first, last)) * r1

    def _kind(self) -> Prediction:
        if self.predicts is not None:
            return self.predicts
        velocity = Prediction.VELOCITY
        return velocity if self.path.span(velocity, (velocity,))[1] == 1.0 else Prediction.NOISE

    def _guidance(self) -> tuple[Any, ...]:
        return () if self.scale == 1.0 else (build("guidance", "cfg", scale=self.scale),)

    def _model(self, path: GaussianPath, kind: Prediction) -> Model:
        none = len(self.classes)

        def net(x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            if cond is None:
                return self.data.predict(path, kind, x_t, t)
            answer = torch.empty_like(x_t)
            for label in set(cond.tolist()):
                law = self.data if label == none else self.classes[label]
                rows = cond == label
                answer[rows] = law.predict(path, kind, x_t[rows], t[rows])
            return answer

        return Model(net, predicts=kind, null=none if none > 1 else None)
