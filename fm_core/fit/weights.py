"""A module's weights and buffers in a safetensors file, checked name by name before a module is touched.

Tensors that share memory (tied weights) are stored once and filled into all their places.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from fm_core.errors import SavedFileError

__all__ = ["fill", "write_weights"]


def write_weights(net: nn.Module, file: Path) -> None:
    """Writes all weights and buffers of a module.

    Raises:
        SavedFileError: If the module has none.
    """
    if not net.state_dict():
        raise SavedFileError(f"{type(net).__name__} has neither weights nor buffers to save")
    save_model(net, str(file))


def fill(net: nn.Module, file: Path, *, built: bool) -> None:
    """Fills a module with the weights of a file, in place.

    Args:
        net: A module of the architecture that was saved.
        file: What `write_weights` wrote.
        built: The module was built just now: it takes the dtype of the file. One that was given must have it.

    Raises:
        SavedFileError: If names, shapes or dtypes differ, before anything is changed.
    """
    stored = _stored(file)
    own = net.state_dict()
    shared = _shared(own)
    missing = sorted(name for name in own if name not in stored and not shared[name] & stored.keys())
    unexpected = sorted(stored.keys() - own.keys())
    shapes = [
        f"{name} {tuple(stored[name][0])} in the file, {tuple(tensor.shape)} in the network"
        for name, tensor in own.items()
        if name in stored and stored[name][0] != tensor.shape
    ]
    wrong = [
        *([f"missing in the file: {', '.join(missing)}"] if missing else []),
        *([f"not in the network: {', '.join(unexpected)}"] if unexpected else []),
        *([f"of another shape: {'; '.join(shapes)}"] if shapes else []),
    ]
    if wrong:
        raise SavedFileError(
            f"the weights of {file} do not fit {type(net).__name__}: {'; '.join(wrong)}. "
            "Give the network that was saved."
        )
    _match_dtypes(net, file, stored, built)
    load_model(net, str(file), strict=True)


def _stored(file: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    try:
        with safe_open(str(file), framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise SavedFileError(f"{file} is no safetensors file: {error}") from error
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _shared(own: dict[str, Tensor]) -> dict[str, set[str]]:
    """For every name the names that share its memory."""
    places: dict[tuple[int, torch.Size], set[str]] = {}
    for name, tensor in own.items():
        places.setdefault((tensor.data_ptr(), tensor.shape), set()).add(name)
    return {name: names for names in places.values() for name in names}


def _match_dtypes(net: nn.Module, file: Path, stored: dict[str, tuple[torch.Size, torch.dtype]], built: bool) -> None:
    own = net.state_dict()
    differing = {name: dtype for name, (_, dtype) in stored.items() if own[name].dtype != dtype}
    if not differing:
        return
    dtypes = {dtype for _, dtype in stored.values() if dtype.is_floating_point}
    if built and len(dtypes) == 1 and all(own[name].is_floating_point() for name in differing):
        net.to(dtypes.pop())
        return
    name, dtype = next(iter(differing.items()))
    raise SavedFileError(f"{file} holds {name} as {dtype}, the network has {own[name].dtype}: make it net.to({dtype})")
