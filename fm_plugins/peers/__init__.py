"""Other libraries' solvers and matchers, for benchmarks in the same run: same networks, noise and count of calls.

Each is the library as it comes, behind the protocols of this one: a file for each library, and a component's name
begins with it. Nothing of them is imported before one of their components is built; one that is not installed says how
to install it, and a suite skips its rows and says so.

    diffusers        schedulers: flow-match Euler and Heun, DDIM, Heun, DPM++ 2M/3M, UniPC 2/3, DEIS 2/3
    azula            samplers: DDIM, Heun, and Adams–Bashforth in v, z and x, exponential or not
    torchdiffeq      Euler, midpoint, Heun 2/3, rk4 on a grid, dopri5 by tolerances
    flow_matching    its `ODESolver` with Euler, midpoint and Heun 3; its straight path as an objective
    torchsde         Euler–Maruyama on the reverse SDE
    torchcfm         `ConditionalFlowMatcher` as an objective, its exact optimal transport as a coupling

A solver that has `run(field, x0, nfe)` places times of its own, from noise to the data, and benchmarks run that.

What a library does otherwise than the conformance kit asks is declared with its reason: `fm check peers`.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from fm_core import Component, hookimpl

_HOME = "fm_plugins.peers"

_REFERENCES = {
    "diffusers": "https://github.com/huggingface/diffusers",
    "azula": "https://github.com/probabilists/azula",
    "torchdiffeq": "https://github.com/rtqichen/torchdiffeq",
    "flow_matching": "https://github.com/facebookresearch/flow_matching",
    "torchsde": "https://github.com/google-research/torchsde",
    "torchcfm": "https://github.com/atong01/conditional-flow-matching",
}

_NO_GRAD = {"gradients_pass": "azula runs under no_grad"}
_SINGLE = {"gradients_pass": "diffusers computes its steps in float32, too coarse for the difference quotient"}
_LATE = "its second difference has half the weight that order 3 needs"
_REAB = "sqrt(α_s² + σ_t²) stands where σ_s is meant: its order is 1"
_ROOT = "backwards it takes the root of a negative variance; diffusers has a scheduler of its own for that"


_STRAIGHT = "it regresses on the straight line alone, and refuses other paths"
_ONE_SEED = "torchsde draws the noise of a whole batch from one seed"
_INSIDE = "asks_inside_and_at_its_own_times"
_BEYOND = "its last step goes beyond the interval, and is interpolated back"
_THIRD = {"order": 3}


@hookimpl
def fm_components() -> list[Component]:
    """The solvers and matchers, by library."""
    return [*_of_diffusers(), *_of_azula(), *_of_others(), *_matchers()]


def _of_diffusers() -> list[Component]:
    late = {**_SINGLE, "error_falls_with_the_steps": _LATE}
    return [
        _solver("diffusers", "flow_euler", "FlowMatchEulerDiscreteScheduler", failures=_SINGLE),
        _solver("diffusers", "flow_heun", "FlowMatchHeunDiscreteScheduler", failures=_SINGLE),
        _solver("diffusers", "ddim", "DDIMScheduler, trailing times", failures={"inversion": _ROOT}),
        _solver("diffusers", "heun", "HeunDiscreteScheduler"),
        _solver("diffusers", "dpmpp", "DPMSolverMultistepScheduler, 2M and 3M", _THIRD, late),
        _solver("diffusers", "unipc", "UniPCMultistepScheduler", _THIRD),
        _solver("diffusers", "deis", "DEISMultistepScheduler", _THIRD),
    ]


def _of_azula() -> list[Component]:
    wrong = {**_NO_GRAD, "error_falls_with_the_steps": _REAB, "inversion": _REAB}
    return [
        _solver("azula", "ddim", "EulerSampler, which is its DDIMSampler without noise", failures=_NO_GRAD),
        _solver("azula", "heun", "HeunSampler", failures=_NO_GRAD),
        _solver("azula", "vab", "vABSampler: Adams–Bashforth on x0 − x1", _THIRD, _NO_GRAD),
        _solver("azula", "zab", "zABSampler: Adams–Bashforth on the noise", _THIRD, _NO_GRAD),
        _solver("azula", "zeab", "zEABSampler: exponential, on the noise", _THIRD, _NO_GRAD),
        _solver("azula", "xeab", "xEABSampler: exponential, on the data", _THIRD, _NO_GRAD),
        _solver("azula", "reab", "REABSampler: exponential, Rosenbrock", failures=wrong),
    ]


def _of_others() -> list[Component]:
    grids, documented = ("euler", "midpoint", "heun2", "heun3", "rk4"), ("euler", "midpoint", "heun3")
    return [
        *(_solver("torchdiffeq", name, f"its {name} on the grid") for name in grids),
        _solver("torchdiffeq", "dopri5", "its dopri5, by tolerances", failures={_INSIDE: _BEYOND}),
        *(_solver("flow_matching", name, f"ODESolver by {name}") for name in documented),
        _solver("torchsde", "euler", "Euler–Maruyama on the reverse SDE", failures={"rows_are_independent": _ONE_SEED}),
    ]


def _matchers() -> list[Component]:
    checks = (
        "condition_reaches_the_network",
        "minimiser_is_the_exact_field",
        "gradient_is_the_marginals",
        "exact_field_is_better",
    )
    straight = dict.fromkeys(checks, _STRAIGHT)
    return [
        _component("objective", "flow_matching", "cond_ot", "CondOTProbPath: straight lines", failures=straight),
        _component("objective", "torchcfm", "cfm", "ConditionalFlowMatcher, σ = 0", failures=straight),
        _component("coupling", "torchcfm", "exact_ot", "exact plan of a batch, drawn from with replacement"),
    ]


def _component(
    kind: str,
    library: str,
    name: str,
    summary: str,
    example: Mapping[str, Any] = MappingProxyType({}),
    failures: Mapping[str, str] = MappingProxyType({}),
) -> Component:
    return Component(
        kind,
        f"{library}_{name}",
        f"{_HOME}.{library}:{name}",
        summary,
        _REFERENCES[library],
        example=example,
        expected_failures=failures,
    )


_solver = partial(_component, "solver")
