"""TorchCFM's matchers as they come: `ConditionalFlowMatcher` as an objective, its exact transport as a coupling.

    loss = ‖v(x_t, t) − u_t‖²,   (t, x_t, u_t) = matcher.sample_location_and_conditional_flow(x0, x1, t)

`ExactOptimalTransportConditionalFlowMatcher` is the same on the pairs of its `OTPlanSampler`, which draws as many as
the batch holds from the plan *with* replacement: some samples come twice, others not at all. Both draw from the global
generators of torch and numpy; here these are seeded for the call and put back.

References:
    Tong et al. 2024, Improving and generalizing flow-based generative models. https://arxiv.org/abs/2302.00482
    TorchCFM. https://github.com/atong01/conditional-flow-matching
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core.field import Field
from fm_core.prediction import Prediction
from fm_core.protocols import PathSample, ProbabilityPath
from fm_core.randomness import make_generator
from fm_core.training_times import uniform
from fm_plugins.peers.linear import require_linear
from fm_plugins.peers.needing import needing

with needing("torchcfm", "POT", plain=False):
    from torchcfm.conditional_flow_matching import (
        ConditionalFlowMatcher,
        ExactOptimalTransportConditionalFlowMatcher,
    )

__all__ = ["CFM", "ExactOT"]


@final
@frozen
class CFM:
    """Regression on the flow of TorchCFM's `ConditionalFlowMatcher`, without noise around the straight line (σ = 0)."""

    needs = frozenset({Prediction.VELOCITY})
    matcher: Any = attribute(factory=lambda: ConditionalFlowMatcher(sigma=0.0), init=False, eq=False, repr=False)

    def sample_time(
        self,
        path: ProbabilityPath,
        batch: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Uniform times, shape `(B,)`."""
        return uniform(path, batch, (0.0, 1.0), generator, device)

    def draw(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Times, points and flows for a training step, as TorchCFM's own loop has them, by the global generator."""
        drawn: tuple[Tensor, Tensor, Tensor] = self.matcher.sample_location_and_conditional_flow(x0, x1)
        return drawn

    def loss(self, field: Field, sample: PathSample, cond: Any = None) -> Tensor:
        """Squared error of every sample, averaged over its event, shape `(B,)`.

        Raises:
            CompatError: On a path that is not straight.
        """
        require_linear(field.path)
        devices = [sample.x0.device] if sample.x0.is_cuda else []
        with torch.random.fork_rng(devices):  # it draws noise and multiplies it by σ = 0
            t, x_t, flow = self.matcher.sample_location_and_conditional_flow(sample.x0, sample.x1, sample.t)
        loss: Tensor = (field.predict(x_t, t, cond, Prediction.VELOCITY) - flow).square().flatten(1).mean(1)
        return loss


@final
@frozen
class ExactOT:
    """Pairs drawn from TorchCFM's exact plan of a batch, with replacement."""

    independent = False
    bijective = False
    matcher: Any = attribute(
        factory=lambda: ExactOptimalTransportConditionalFlowMatcher(sigma=0.0), init=False, eq=False, repr=False
    )

    def draw(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Times, points and flows for a training step, as TorchCFM's own loop has them, by the global generators."""
        drawn: tuple[Tensor, Tensor, Tensor] = self.matcher.sample_location_and_conditional_flow(x0, x1)
        return drawn

    def pair(
        self, x0: Tensor, x1: Tensor, cond: Any = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Indices of the pairs, each `(B,)`."""
        drawn = int(torch.randint(2**31 - 1, (), generator=generator or make_generator()))
        plan = self.matcher.ot_sampler.get_map(x0, x1)
        before = np.random.get_state()  # noqa: NPY002  # it draws from numpy's global generator
        try:
            np.random.seed(drawn)  # noqa: NPY002
            i, j = self.matcher.ot_sampler.sample_map(plan, len(x0))
        finally:
            np.random.set_state(before)  # noqa: NPY002
        return torch.from_numpy(i).to(x0.device), torch.from_numpy(j).to(x1.device)


def cfm() -> CFM:
    """The objective."""
    return CFM()


def exact_ot() -> ExactOT:
    """The coupling."""
    return ExactOT()
