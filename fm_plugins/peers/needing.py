"""What is said where another library is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fm_core.errors import PluginError

__all__ = ["needing"]


@contextmanager
def needing(*packages: str, plain: bool = True) -> Iterator[None]:
    """Around the imports of a library.

    Args:
        packages: What pip calls what is imported.
        plain: Whether installing it in the plain way leaves torch alone.

    Raises:
        PluginError: If one of them cannot be imported, saying how to install them.
    """
    try:
        yield
    except ImportError as error:
        how = f"pip install {'' if plain else '--no-deps '}{' '.join(packages)}"
        why = "" if plain else ", since what it asks for besides would bring another torch"
        raise PluginError(f"{packages[0]} is not installed ({error}): {how}{why}") from error
