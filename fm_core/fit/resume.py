"""The state of a training in one file, from which it goes on as if it had never stopped.

The file is private to `fit`: torch's format, read with `weights_only=True`, which runs no code (torch ≥ 2.10). Saved
pipelines are another thing, see `fm_core.fit.checkpoint`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fm_core.errors import SavedFileError
from fm_core.fit.files import replacing

__all__ = ["FILE", "read_state", "write_state"]

FILE = "resume.pt"
"""Name of the file in the checkpoint directory."""

FORMAT = 1


def write_state(directory: Path, state: dict[str, Any], settings: dict[str, Any]) -> None:
    """Writes a training's state, in place of the last one, whole or not at all.

    Args:
        directory: Where; it is made if needed.
        state: Tensors, numbers, strings and containers of them.
        settings: What must be the same when the training goes on.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / FILE) as (file,):
        torch.save({"format": FORMAT, "settings": settings, "state": state}, file)


def read_state(directory: Path, settings: dict[str, Any], device: torch.device) -> dict[str, Any] | None:
    """The state written last, or None if there is none.

    Args:
        directory: Where it was written.
        settings: Those of the training that wants to go on; a None for the seed takes the one it began with.
        device: Where the network is.

    Raises:
        SavedFileError: If the file cannot be read, or was written under other settings, each named.
    """
    file = directory / FILE
    if not file.exists():
        return None
    try:
        saved = torch.load(file, map_location=device, weights_only=True)
        found, then, state = saved["format"], saved["settings"], saved["state"]
    except Exception as error:
        raise SavedFileError(
            f"{file} is no state of a training: {type(error).__name__}: {error}. Delete it to begin anew."
        ) from error
    if found != FORMAT:
        raise SavedFileError(f"{file} has format {found}, this version reads {FORMAT}; delete it to begin anew")
    changed = [
        f"{key}: {then.get(key)!r} then, {value!r} now" for key, value in settings.items() if then.get(key) != value
    ]
    if changed:
        raise SavedFileError(
            f"{file} was written by a training with other settings, so going on would be neither "
            f"the one nor the other: {'; '.join(changed)}. "
            "Give the same settings, or another checkpoint directory."
        )
    return {**state, "seed": then["seed"]}
