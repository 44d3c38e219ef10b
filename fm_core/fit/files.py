"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Temporary files beside `paths`, which take their places, in this order, when all are written and on the disk.

    A failure on the way leaves what was there before, and no temporary file.
    """
    mark = secrets.token_hex(4)
    # The suffix stays: writers of pictures choose the format by it.
    temporary = tuple(path.with_name(f".{path.stem}.{mark}.tmp{path.suffix}") for path in paths)
    try:
        yield temporary
        for file in temporary:
            _sync(file)
        for file, path in zip(temporary, paths):
            os.replace(file, path)
        for directory in {path.parent for path in paths}:
            _sync(directory)
    finally:
        for file in temporary:
            file.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    if os.name != "posix" and path.is_dir():
        return  # only POSIX opens directories
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
