"""Pipelines of networks trained elsewhere. What is foreign about them is known to the plugin `adapters` alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fm_core import registry

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["load_diffusers"]


def load_diffusers(
    directory: str | os.PathLike[str],
    *,
    scheduler: Mapping[str, Any] | None = None,
    predicts: str | None = None,
    **parts: Any,
) -> Pipeline:
    """The pipeline of a network that diffusers' `save_pretrained` wrote, on the path of its scheduler.

    Weights are read from safetensors only, nothing is unpickled and nothing fetched. If the folder has a VAE, states
    are its latents. What a scheduler says of sampling (spacing, order, clipping) is not taken over: solvers, grids and
    guidances are parts.

    Args:
        directory: A local folder: a pipeline's (model_index.json), or a model's (config.json).
        scheduler: The scheduler's configuration, where the folder has none.
        predicts: Declares what the network predicts, to be checked against the configuration.
        parts: Other arguments of `compose`: `solver="ddim"`, `device="cuda"`, ….

    Raises:
        SavedFileError: For a folder that holds no such network, pickles only, or weights that do not fit.
        PredictionError: If the network predicts something else than declared.
        UnknownNameError: For a class of diffusers that is not loaded by name.
        CompatError: For parts that do not compose.
    """
    from fm_core.building import origin
    from fm_core.pipeline import compose

    model = registry.load("model", "diffusers_folder")(directory, scheduler=scheduler, predicts=predicts)
    spec = origin(model)
    assert spec is not None
    path = registry.build("path", "diffusers", scheduler=spec.options["scheduler"])
    return compose(**{"path": path, "model": model, **parts})
