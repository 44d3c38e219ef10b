"""Saved pipelines: `pipeline.json`, the parts by registry name and options, and `model.safetensors`, the weights.

Nothing is pickled and no import path is stored: a file names parts, and what a name means is the registry's business.
What
has no name (a module or a source made by hand) is noted as such and given again on loading.
"""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from attrs import asdict, evolve, field, frozen
from cattrs import Converter, transform_error
from cattrs.errors import BaseValidationError
from torch import nn

from fm_core.building import name_of
from fm_core.errors import SavedFileError
from fm_core.field import Model, Training
from fm_core.fit.files import replacing
from fm_core.fit.weights import fill, write_weights
from fm_core.holding import held_networks
from fm_core.registry import from_config, origin, remember, to_config
from fm_core.shapes import map_tensors

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["digest", "load", "save"]

FORMAT = 1
PIPELINE, WEIGHTS = "pipeline.json", "model.safetensors"
PARTS = ("path", "objective", "coupling", "solver", "grid", "codec")
TENSOR = "$tensor"

Config = dict[str, Any]


@frozen(kw_only=True)
class Saved:
    """What `pipeline.json` holds.

    Args:
        format: Version of the file's layout.
        fm_core: Version that wrote it.
        path, objective, coupling, solver, grid, codec, guidance: Names and options.
        source: The path's source of x0, None for the path's own.
        network: The network, None for one made by hand.
        predicts: What the network returns.
        null: The condition that means none.
        trained: What it was trained under.
        by_hand: What must be given again on loading: "model", "source".
        sha256: Of the weights' file, so that files of two savings are never taken for one.
    """

    format: int
    fm_core: str
    path: Config
    objective: Config | None
    coupling: Config | None
    solver: Config | None
    grid: Config | None
    codec: Config | None
    guidance: list[Config]
    source: Config | None
    network: Config | None
    predicts: list[str]
    null: Any
    trained: Training | None
    by_hand: list[str] = field(factory=list)
    sha256: str


def save(pipeline: Pipeline, directory: str | os.PathLike[str]) -> None:
    """Writes a pipeline into a directory, in place of one that is there, whole or not at all.

    Args:
        pipeline: Its parts were built by the registry; network and source may be made by hand.
        directory: Where; it is made if needed.

    Raises:
        SavedFileError: For a part without a registry name, or no module to save; nothing is written then.
    """
    net = getattr(pipeline.model, "net", pipeline.model)
    if not isinstance(net, nn.Module):
        raise SavedFileError(f"the model {type(net).__name__} is no torch module: there are no weights to save")
    saved = _describe(pipeline, net)
    where = Path(directory)
    where.mkdir(parents=True, exist_ok=True)
    with replacing(where / WEIGHTS, where / PIPELINE) as (weights, description):
        write_weights(net, weights)
        text = json.dumps(asdict(evolve(saved, sha256=_sha256(weights))), indent=2, allow_nan=False)
        description.write_text(text + "\n", encoding="utf-8")


def load(
    directory: str | os.PathLike[str],
    *,
    model: Model | nn.Module | None = None,
    source: Any = None,
    device: torch.device | str | None = None,
) -> Pipeline:
    """The pipeline that `save` wrote, composed and checked anew.

    Args:
        directory: Where it was saved.
        model: The network, where it was made by hand: a module of the same architecture, which is filled in place, or a
            `Model` of one.
        source: The source of x0, where it was made by hand.
        device: Where the network is put.

    Raises:
        SavedFileError: For files that are missing, damaged, of two savings or another format; for unknown keys; for
            weights that do not fit the network; or if something made by hand is not given.
        UnknownNameError, PluginError: For parts that no installed plugin provides.
        CompatError: For parts that do not compose any more.
    """
    from fm_core.pipeline import compose

    where = Path(directory)
    saved = _read(where)
    for part, given in (("model", model), ("source", source)):
        if part in saved.by_hand and given is None:
            raise SavedFileError(
                f"{where} was saved with a {part} made by hand, which has no name: give it again, fm.load(…, {part}=…)"
            )
    network = _network(saved, model)
    assert isinstance(network.net, nn.Module)
    fill(network.net, where / WEIGHTS, built=model is None)
    return compose(
        path=saved.path,
        model=network,
        objective=saved.objective,
        coupling=saved.coupling,
        solver=saved.solver,
        grid=saved.grid,
        guidance=saved.guidance,
        source=saved.source if source is None else source,
        codec=saved.codec,
        device=device,
    )


def digest(directory: str | os.PathLike[str]) -> str:
    """Eight letters that tell a saving from all others: of `pipeline.json`, which holds the digest of the weights."""
    return _sha256(Path(directory) / PIPELINE)[:8]


def _describe(pipeline: Pipeline, net: nn.Module) -> Saved:
    by_hand = []
    model, path = pipeline.model, pipeline.path
    network = _network_config(model, net)
    if network is None:
        by_hand.append("model")
    source = getattr(path, "source", None)
    path_config = _config("path", path)
    if source is not None and "source" not in path_config and origin(source) is None:
        by_hand.append("source")
    return Saved(
        format=FORMAT,
        fm_core=version("fm-core"),
        path=path_config,
        **{name: _optional(name, getattr(pipeline, name)) for name in PARTS[1:]},
        guidance=[_guidance_config(guidance) for guidance in pipeline.guidance],
        source=None if source is None or origin(source) is None else to_config(source),
        network=network,
        predicts=[str(kind) for kind in model.predicts],
        null=_plain(getattr(model, "null", None)),
        trained=getattr(model, "trained", None),
        by_hand=by_hand,
        sha256="",
    )


def _config(kind: str, part: object) -> Config:
    try:
        return to_config(part)
    except SavedFileError as error:
        raise SavedFileError(f"the {kind} cannot be saved: {error}") from error


def _optional(kind: str, part: object | None) -> Config | None:
    return None if part is None else _config(kind, part)


def _guidance_config(guidance: object) -> Config:
    config = _config("guidance", guidance)
    if held := held_networks(guidance):
        raise SavedFileError(
            f"the guidance {name_of(guidance)!r} holds a network, {type(held[0]).__name__}, whose weights a pipeline's "
            "folder has no place for: save pipe.replace(guidance=()), keep that network's state_dict, and give the "
            "guidance again after loading"
        )
    return config


def _network_config(model: object, net: nn.Module) -> Config | None:
    """Name and options of the model or of its network; None for one made by hand."""
    called_by_hand = getattr(model, "call", None) is not None  # how to call it is code, unless the registry made it so
    for built in (model,) if called_by_hand else (model, net):
        spec = origin(built)
        if spec is not None and spec.kind == "model":
            return _config("model", built)
    return None


def _network(saved: Saved, given: Model | nn.Module | None) -> Model:
    """The network with its meaning, its weights still to be filled in."""
    found = given if given is not None else from_config("model", saved.network)
    spec = origin(found)
    model = (
        found if isinstance(found, Model) else Model(found, predicts=tuple(saved.predicts), null=_tensors(saved.null))
    )
    if not isinstance(model.net, nn.Module):
        raise SavedFileError(f"weights are filled into a torch module; got {type(model.net).__name__}")
    if [str(kind) for kind in model.predicts] != saved.predicts:
        raise SavedFileError(
            f"the saved network predicts {saved.predicts}, the given model {[str(kind) for kind in model.predicts]}"
        )
    model = evolve(model, trained=saved.trained)
    if spec is not None and found is not model.net:
        remember(model, spec)
    return model


def _read(where: Path) -> Saved:
    description, weights = where / PIPELINE, where / WEIGHTS
    for file in (description, weights):
        if not file.is_file():
            raise SavedFileError(f"{where} holds no saved pipeline: there is no {file.name}")
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SavedFileError(f"{description} is not JSON: {error}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise SavedFileError(
            f"{description} has format {found!r}, this version of fm-core reads {FORMAT}; it says it was written by "
            f"fm-core {content.get('fm_core') if isinstance(content, dict) else None!r}"
        )
    try:
        saved = _CONVERTER.structure(content, Saved)
    except (BaseValidationError, TypeError, ValueError) as error:
        raise SavedFileError(
            f"{description} is not as fm-core writes it: {'; '.join(transform_error(error))}"
        ) from error
    if _sha256(weights) != saved.sha256:
        raise SavedFileError(
            f"{weights} is not the file that {description.name} was saved with: it is damaged, was replaced, or "
            "a saving was cut off between the two"
        )
    return saved


def _plain(null: Any) -> Any:
    """The null condition as JSON, its tensors as `{"$tensor": values, "dtype": …}`."""
    plain = map_tensors(lambda x: {TENSOR: x.tolist(), "dtype": str(x.dtype).removeprefix("torch.")}, null)
    try:
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SavedFileError(
            f"the model's null condition {null!r} cannot be saved: {error}; use numbers, strings and tensors"
        ) from error
    return plain


def _tensors(plain: Any) -> Any:
    if isinstance(plain, dict):
        if TENSOR in plain:
            return torch.tensor(plain[TENSOR], dtype=getattr(torch, plain["dtype"]))
        return {key: _tensors(value) for key, value in plain.items()}
    return [_tensors(value) for value in plain] if isinstance(plain, list) else plain


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_CONVERTER = Converter(forbid_extra_keys=True)
