"""Networks in evaluation mode while they are asked, and back in their own when the last run is done with them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from torch import nn

from fm_core.protocols import VectorFieldModel

__all__ = ["evaluating"]

_USERS: dict[int, tuple[int, list[nn.Module]]] = {}
"""By network: the runs that have it in evaluation mode, and its modules that were not."""

_USERS_LOCK = threading.Lock()


@contextlib.contextmanager
def evaluating(model: VectorFieldModel) -> Iterator[None]:
    """The network in evaluation mode, and back when the last of several threads is done with it."""
    net = getattr(model, "net", model)
    if not isinstance(net, nn.Module):
        yield
        return
    with _USERS_LOCK:
        users, modules = _USERS.get(id(net), (0, []))
        found = [m for m in net.modules() if m.training]
        for module in found:
            object.__setattr__(module, "training", False)  # Module's own first looks whether it is a parameter
        _USERS[id(net)] = (users + 1, modules + found)
    try:
        yield
    finally:
        with _USERS_LOCK:
            users, modules = _USERS.pop(id(net))
            if users > 1:
                _USERS[id(net)] = (users - 1, modules)
            else:
                for module in modules:
                    object.__setattr__(module, "training", True)
