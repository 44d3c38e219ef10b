"""Networks of any convention as models, and those of TorchCFM, flow_matching and EDM by name.

    adapt(net, predicts="noise", convention={"clock": "index", "steps": 1000, "output": "sample"})

A convention given as a mapping is JSON, so a pipeline whose network the registry built can be saved with it.

TorchCFM's networks are `net(t, x)` or `net(t, x, y)`, flow_matching's `net(x, t, **extras)`; both tell t from the
noise (0) to the data (1), and predict dx_t/dt: the velocity of this library.

EDM's networks are denoisers D(x; σ) of data plus noise of level σ. Since `x_t/α = x1 + (σ/α)·x0`, such a network gives
the data prediction on every Gaussian path: `E[x1 | x_t] = D(x_t/α; σ/α)`.

References:
    Tong et al. 2024, TorchCFM. https://github.com/atong01/conditional-flow-matching
    Lipman et al. 2024, Flow Matching Guide and Code. https://arxiv.org/abs/2412.06264
    Karras et al. 2022, EDM. https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import fields

from fm_core import Model, PredictionError, ProbabilityPath, Training
from fm_core.errors import did_you_mean
from fm_core.field import schedule_fingerprint
from fm_core.prediction import Prediction, as_prediction
from fm_core.registry import OptionError, from_config, origin
from fm_plugins.adapters.convention import Convention

__all__ = ["adapt", "edm", "flow_matching", "torchcfm", "trained_on"]

Net = Callable[..., Any]


def adapt(
    net: Net | Mapping[str, Any] | str,
    *,
    predicts: str,
    convention: Convention | Mapping[str, Any] | None = None,
    null: Any = None,
) -> Model:
    """A network of another convention as a model.

    >>> import torch
    >>> model = adapt(lambda time, x: x * time, predicts="eps", convention={"order": "tx", "clock": "falling"})
    >>> model(torch.ones(1, 2), torch.tensor([0.75]))
    tensor([[0.2500, 0.2500]])

    Args:
        net: The network: a module, a callable, or the configuration of one that the registry builds.
        predicts: What it returns, once its sign is mended: data, noise, score, v, velocity.
        convention: How it is called: a `Convention`, or a mapping of its arguments.
        null: The condition that means none.

    Returns:
        A model whose `net` is the network itself, so that devices, dtypes and weights are those of the module.

    Raises:
        OptionError: For an argument that no convention has.
        PredictionError: If a rescaled network predicts what rescaling changes.
    """
    convention = _as_convention(convention)
    if convention.rescaled and as_prediction(predicts) not in {Prediction.DATA, Prediction.NOISE}:
        raise PredictionError(
            f"a network of the path rescaled to α = 1 predicts data or noise, which are those of every path; its "
            f"{predicts} is another one than this path's. Say predicts='data' if it is a denoiser"
        )
    trained = None if convention.path is None else trained_on(convention.path)
    return Model(from_config("model", net), predicts=(predicts,), null=null, call=convention, trained=trained)


def torchcfm(
    net: Net | Mapping[str, Any] | str,
    *,
    predicts: str = "velocity",
    cond: str = "y",
    one_time: bool = False,
    null: Any = None,
) -> Model:
    """A network of TorchCFM, `net(t, x)` or `net(t, x, y)`, as a model.

    Args:
        net: The network.
        predicts: What it returns.
        cond: Keyword of its condition.
        one_time: It takes one time `()` for the whole batch, as `torchcfm.utils.torch_wrapper` does.
        null: The condition that means none.
    """
    return adapt(net, predicts=predicts, convention=Convention(order="tx", cond=cond, one_time=one_time), null=null)


def flow_matching(
    net: Net | Mapping[str, Any] | str,
    *,
    predicts: str = "velocity",
    cond: str = "**",
    one_time: bool = False,
    null: Any = None,
) -> Model:
    """A network of flow_matching, a `ModelWrapper` called as `net(x, t, **extras)`, as a model.

    Args:
        net: The network.
        predicts: What it returns.
        cond: Keyword of a condition that is no dictionary; dictionaries are its extras.
        one_time: It takes one time `()` for the whole batch, as flow_matching's solvers give it.
        null: The condition that means none.
    """
    convention = Convention(x_name="x", t_name="t", cond=cond, one_time=one_time)
    return adapt(net, predicts=predicts, convention=convention, null=null)


def edm(
    net: Net | Mapping[str, Any] | str,
    *,
    path: ProbabilityPath | Mapping[str, Any] | str,
    predicts: str = "data",
    sigma_max: float = 80.0,
    cond: str | None = None,
    null: Any = None,
) -> Model:
    """An EDM-preconditioned network, a denoiser D(x; σ) or D(x; σ, cond), as a model on any Gaussian path.

    E[x1 | x_t] = D(x_t/α; σ/α)

    Many paths begin at σ/α = ∞, and the network does not. From `sigma_max` on it is asked at that level, of the state
    that holds noise of it: `D(x_t·sigma_max/σ; sigma_max)`, the same but for a share 1/sigma_max of the data.

    Args:
        net: The network, preconditioning and all.
        path: The path it shall be used on.
        sigma_max: The largest noise level it was trained at.
        predicts: "data", or "noise" of a network that returns the noise of level σ in units of it.
        cond: Keyword of its condition; behind σ for None.
        null: The condition that means none.
    """
    convention = Convention(clock="sigma", path=path, rescaled=True, sigma_max=sigma_max, cond=cond)
    return adapt(net, predicts=predicts, convention=convention, null=null)


def trained_on(path: ProbabilityPath) -> Training:
    """The record by which composing refuses another schedule than that of `path`."""
    spec = origin(path)
    return Training(path=spec.name if spec else None, schedule=schedule_fingerprint(path))


def _as_convention(convention: Convention | Mapping[str, Any] | None) -> Convention:
    if isinstance(convention, Convention):
        return convention
    given = dict(convention or {})
    known = [attribute.name for attribute in fields(Convention)]
    for name in given:
        if name not in known:
            raise OptionError(f"a convention has no {name!r}; {did_you_mean(name, known)}")
    return Convention(**given)
