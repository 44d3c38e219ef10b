"""diffusers' networks as models: a module, or a class name with its configuration, and the scheduler's configuration.

diffusers is imported on first use, and only for the class named in `ARCHITECTURES`; a generic callable that returns
`.sample` needs none of it. Networks are told the continuous index N·(1 − t) − 1 (diffusers embeds floats as well as
integers), or 1000·(1 − t) by flows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from attrs import frozen
from torch import nn

from fm_core import Model, SavedFileError, ShapeError, UnknownNameError
from fm_core.errors import PluginError, did_you_mean
from fm_core.fit.global_rng import own_randomness
from fm_plugins.adapters.adapt import adapt
from fm_plugins.adapters.convention import Convention
from fm_plugins.adapters.scheduler import Scheduled, check_declared, diffusers_path, read_scheduler

__all__ = ["ARCHITECTURES", "diffusers_model", "diffusers_network", "network_class"]


@frozen
class Signature:
    """Keywords of a network's forward pass.

    Args:
        x_name, cond: State, and a condition that is no dictionary.
        conditional: It cannot do without a condition.
        null: Entry of the configuration that is the label of no class.
    """

    x_name: str = "sample"
    cond: str | None = None
    conditional: bool = False
    null: str | None = None


ARCHITECTURES: dict[str, Signature] = {
    "DiTTransformer2DModel": Signature("hidden_states", "class_labels", conditional=True, null="num_embeds_ada_norm"),
    "PixArtTransformer2DModel": Signature("hidden_states", "encoder_hidden_states", conditional=True),
    "SD3Transformer2DModel": Signature("hidden_states", "encoder_hidden_states", conditional=True),
    "UNet2DConditionModel": Signature("sample", "encoder_hidden_states", conditional=True),
    "UNet2DModel": Signature("sample", "class_labels"),
}
"""The classes that saved files and folders may name."""

UNNAMED = Signature()


def diffusers_model(
    net: Callable[..., Any],
    *,
    scheduler: Mapping[str, Any],
    predicts: str | None = None,
    cond: str | None = None,
    learned_variance: bool | None = None,
    null: Any = None,
) -> Model:
    """A diffusers network as a model.

    Args:
        net: A module of diffusers, or any callable of its conventions: `net(x, timestep, **conditions).sample`.
        scheduler: Configuration of the scheduler it was trained with: `scheduler.config`, or `scheduler_config.json`.
        predicts: Declares the prediction, to be checked against the configuration.
        cond: Keyword of a condition that is no dictionary; the architecture's own for None. Dictionaries are spread.
        learned_variance: The network returns 2C channels; read off its configuration for None.
        null: The condition that means none; DiT's own for None.

    Returns:
        A model whose `net` is the module, on record as trained on the scheduler's path.

    Raises:
        PredictionError: If the declared prediction is not the configured one.
        SavedFileError: For a scheduler whose networks are not understood.
        ShapeError: For a network that takes other channels than a state's.
    """
    scheduled = read_scheduler(scheduler)
    check_declared(scheduled, predicts)
    config = getattr(net, "config", None)
    config = config if isinstance(config, Mapping) else {}
    name = type(net).__name__
    signature = ARCHITECTURES.get(name, UNNAMED)
    if learned_variance is None:
        learned_variance = _learned_variance(config, scheduled, name)
    flow = scheduled.path == "linear"
    convention = Convention(
        clock="falling" if flow else "index",
        scale=scheduled.steps if flow else 1,
        steps=scheduled.steps,
        x_name=signature.x_name if name in ARCHITECTURES else None,
        t_name="timestep" if name in ARCHITECTURES else None,
        cond=signature.cond or "**" if cond is None else cond,
        conditional=signature.conditional,
        output="sample",
        learned_variance=learned_variance,
        sign=scheduled.sign,
        path=diffusers_path(scheduler),
    )
    if null is None and signature.null is not None:
        null = config.get(signature.null)
    return adapt(net, predicts=scheduled.predicts, convention=convention, null=null)


def diffusers_network(
    architecture: str,
    config: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    *,
    predicts: str | None = None,
    seed: int = 0,
) -> Model:
    """An untrained network of diffusers by class name and configuration, as a model: what saved pipelines name.

    Args:
        architecture: One of `ARCHITECTURES`.
        config: Arguments of the class, as in `config.json`.
        scheduler: Configuration of the scheduler, as in `scheduler_config.json`.
        predicts: Declares the prediction, to be checked against the configuration.
        seed: Seed of the initial weights.

    Raises:
        UnknownNameError: For a class that is not on the list.
        SavedFileError: For arguments that the installed diffusers does not know.
        PluginError: If diffusers is not installed.
        PredictionError, ShapeError: As `diffusers_model` does.
    """
    check_declared(read_scheduler(scheduler), predicts)
    kind = network_class(architecture)
    arguments = known_arguments(kind, config)
    with own_randomness(seed, torch.device("cpu")):
        net: nn.Module = kind(**arguments)
    return diffusers_model(net.eval(), scheduler=scheduler)


def network_class(architecture: str) -> Any:
    """The class of diffusers of this name, if it is on the list.

    Raises:
        UnknownNameError: If it is not.
        PluginError: If diffusers is not installed, or too old to have it.
    """
    if architecture not in ARCHITECTURES:
        raise UnknownNameError(
            f"{architecture!r} is not among the diffusers networks that are loaded by name; "
            f"{did_you_mean(str(architecture), ARCHITECTURES)} Any other is made in Python and given to "
            "fm_plugins.adapters.network.diffusers_model"
        )
    try:
        import diffusers

        return getattr(diffusers, architecture)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"{architecture} is a network of diffusers, which is not installed or too old: {error}. "
            "Install it: pip install 'fm-core[diffusers]'"
        ) from error


def known_arguments(kind: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a configuration that its class takes; private ones and unknown ones that are off are left out.

    Raises:
        SavedFileError: For an unknown entry that is on: it would change the network.
    """
    known = inspect.signature(kind.__init__).parameters
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    for key, value in public.items():
        if key not in known and value is not None and value is not False:
            raise SavedFileError(
                f"{kind.__name__} of the installed diffusers has no {key!r}, which the configuration sets to {value!r} "
                f"(written by diffusers {config.get('_diffusers_version', '?')}); {did_you_mean(key, known)}"
            )
    return {key: value for key, value in public.items() if key in known}


def _learned_variance(config: Mapping[str, Any], scheduled: Scheduled, name: str) -> bool:
    channels, returned = config.get("in_channels"), config.get("out_channels")
    if not isinstance(channels, int) or not isinstance(returned, int):
        return scheduled.learned_variance
    if returned not in (channels, 2 * channels):
        raise ShapeError(
            f"this {name} takes {channels} channels and returns {returned}: besides the state it takes an image (a "
            "mask, a low resolution), which must be joined to the state. Adapt it by call=, joining them there"
        )
    return returned == 2 * channels
