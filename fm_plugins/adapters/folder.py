"""Reads what `save_pretrained` of diffusers wrote: a model's folder or a pipeline's, weights in safetensors only.

    model       config.json, diffusion_pytorch_model.safetensors (or shards with …safetensors.index.json), and the
                scheduler's configuration, given or in scheduler/scheduler_config.json
    pipeline    model_index.json, unet/ or transformer/ as above, scheduler/scheduler_config.json

Nothing is unpickled, nothing is fetched, and only classes of `ARCHITECTURES` are made. Of a pipeline the network and
the path are taken; if it has a VAE, states are its latents, and decoding them is the caller's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from fm_core import Model, SavedFileError
from fm_core.errors import did_you_mean
from fm_core.fit.global_rng import own_randomness
from fm_core.registry import Spec, remember
from fm_plugins.adapters.network import diffusers_model, known_arguments, network_class
from fm_plugins.adapters.scheduler import check_declared, read_scheduler

__all__ = ["read_folder"]

INDEX, CONFIG, SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SHARDS = WEIGHTS + ".index.json"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
NETWORKS = ("unet", "transformer")


def read_folder(
    directory: str | os.PathLike[str], *, scheduler: Mapping[str, Any] | None = None, predicts: str | None = None
) -> Model:
    """The network of a local `save_pretrained` folder, as a model.

    Args:
        directory: A model's folder or a pipeline's.
        scheduler: The scheduler's configuration, where the folder has none.
        predicts: Declares the prediction, to be checked against the configuration.

    Returns:
        A model that the registry knows by class name and configuration, not by the folder.

    Raises:
        SavedFileError: For a folder without network, scheduler or safetensors, damaged files, or weights that do not
            fit.
        UnknownNameError: For a class that is not on the list.
        PredictionError: If the declared prediction is not the configured one.
    """
    where = Path(directory)
    if not where.is_dir():
        raise SavedFileError(f"{where} is no folder; nothing is fetched: give a local folder of save_pretrained")
    home = _network_folder(where)
    config = _json(home / CONFIG)
    settings = dict(scheduler) if scheduler is not None else _scheduler(where, home)
    check_declared(read_scheduler(settings), predicts)
    architecture = _architecture(config)
    net = _filled(network_class(architecture), home, config)
    model = diffusers_model(net, scheduler=settings)
    options = {"architecture": architecture, "config": _plain(config), "scheduler": _plain(settings)}
    remember(model, Spec("model", "diffusers", options))
    return model


def _network_folder(where: Path) -> Path:
    if not (where / INDEX).is_file():
        if (where / CONFIG).is_file():
            return where
        raise SavedFileError(
            f"{where} is no folder of diffusers' save_pretrained: it has neither {INDEX} (a pipeline) nor {CONFIG} (a "
            "model)"
        )
    index = _json(where / INDEX)
    found = [name for name in NETWORKS if isinstance(index.get(name), list) and index[name][1:] not in ([], [None])]
    if len(found) != 1:
        raise SavedFileError(
            f"{where / INDEX} names {len(found) or 'no'} networks ({', '.join(found) or 'no unet, no transformer'}); a "
            "pipeline of one is read. Give the network's own folder and scheduler="
        )
    if not (where / found[0] / CONFIG).is_file():
        raise SavedFileError(f"{where / INDEX} names a {found[0]}, but there is no {found[0]}/{CONFIG}")
    return where / found[0]


def _scheduler(where: Path, home: Path) -> dict[str, Any]:
    for file in (where / "scheduler" / SCHEDULER, home / SCHEDULER):
        if file.is_file():
            return _json(file)
    raise SavedFileError(
        f"{where} has no scheduler/{SCHEDULER}, so it is not known what the network predicts, and on which schedule; "
        "give its configuration: scheduler={'_class_name': 'DDPMScheduler', 'prediction_type': 'epsilon', …}"
    )


def _architecture(config: Mapping[str, Any]) -> str:
    name = str(config.get("_class_name"))
    # What is DiTTransformer2DModel now was written under this name up to diffusers 0.28.
    if name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero":
        return "DiTTransformer2DModel"
    return name


def _filled(kind: Any, home: Path, config: Mapping[str, Any]) -> nn.Module:
    known_arguments(kind, config)
    dtype = _dtype(_weight_files(home))
    try:
        with own_randomness(0, torch.device("cpu")):
            net, report = kind.from_pretrained(
                str(home),
                torch_dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SavedFileError(f"{home} cannot be read as a {kind.__name__}: {error}") from error
    wrong = [
        f"{what}: {', '.join(sorted(map(str, report[key])))}"
        for key, what in (
            ("missing_keys", "missing in the file"),
            ("unexpected_keys", "not in the network"),
            ("mismatched_keys", "of another shape"),
            ("error_msgs", "wrong"),
        )
        if report.get(key)
    ]
    if wrong:
        raise SavedFileError(
            f"the weights of {home} do not fit its {CONFIG} ({kind.__name__}): {'; '.join(wrong)}. The folder holds "
            "the files of two networks, or was cut off"
        )
    module: nn.Module = net.eval()
    return module


def _weight_files(home: Path) -> list[Path]:
    if (home / SHARDS).is_file():
        names = _json(home / SHARDS).get("weight_map")
        shards = sorted(set(map(str, names.values()))) if isinstance(names, dict) else []
        for name in shards:
            if Path(name).name != name or not name.endswith(".safetensors") or not (home / name).is_file():
                raise SavedFileError(
                    f"{home / SHARDS} names the shard {name!r}, which is no safetensors file beside it"
                )
        if not shards:
            raise SavedFileError(f"{home / SHARDS} names no shards")
        return [home / name for name in shards]
    if (home / WEIGHTS).is_file():
        return [home / WEIGHTS]
    others = sorted(file.name for file in home.iterdir() if file.suffix in {*PICKLES, ".safetensors"})
    pickles = [name for name in others if name.endswith(PICKLES)]
    if pickles and len(pickles) == len(others):
        raise SavedFileError(
            f"{home} holds its weights as pickles only ({', '.join(pickles)}), and a pickle runs whatever code is in "
            f"it: it is not loaded. Convert it once, where you trust it, and load what that wrote:\n"
            f"    Class.from_pretrained({str(home)!r}, use_safetensors=False).save_pretrained('converted')"
        )
    raise SavedFileError(
        f"{home} holds no {WEIGHTS}; " + (did_you_mean(WEIGHTS, others) if others else "there are no weights at all")
    )


def _dtype(files: list[Path]) -> torch.dtype:
    """The floating dtype of the weights, the widest of several."""
    found: torch.dtype | None = None
    for file in files:
        try:
            with safe_open(str(file), framework="pt") as content:
                names = content.keys()
                for name in names:
                    dtype = content.get_tensor(name).dtype
                    if dtype.is_floating_point:
                        found = dtype if found is None else torch.promote_types(found, dtype)
        except SafetensorError as error:
            raise SavedFileError(f"{file} is no safetensors file: {error}") from error
    return torch.float32 if found is None else found


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SavedFileError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise SavedFileError(f"{file} holds a {type(content).__name__}, not a configuration")
    return content


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as JSON holds it, without what diffusers notes for itself but the class."""
    kept = {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=list))
    return plain
