"""torch's global generators, for what takes none (dropout, a DataLoader's shuffling): lent and given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["global_state", "own_randomness", "set_global_state"]


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators, seeded for this training and afterwards as they were."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def global_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's global generators, on the CPU and on this device."""
    state = {"cpu": torch.get_rng_state()}
    return {**state, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def set_global_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Puts torch's global generators into a state."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
