"""Samplers of other libraries on the fields of `bench_oracles.py`, under the names of its cells: the plugin `peers`."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

import fm_core as fm
from fm_core.bench.contenders import contenders

__all__ = ["Counted", "Peer", "peers_of"]


class Counted:
    """A pipeline, the condition of its samples, and the network calls of the last run."""

    def __init__(self, pipeline: fm.Pipeline, dtype: torch.dtype, cond: Tensor | None = None) -> None:
        self.pipeline, self.dtype, self.cond, self.calls = pipeline, dtype, cond, 0


class Peer(Protocol):
    """Carries source samples `(B, *D)` to t = 1 in about so many calls."""

    def __call__(self, net: Counted, x0: Tensor, nfe: int) -> Tensor: ...


def peers_of(path: Any) -> dict[str, Peer]:
    """The samplers that serve a path: on the linear one those of flows, on VP those of diffusions."""
    straight = bool((path.alpha(torch.tensor(0.5, dtype=torch.float64)) - 0.5).abs() < 1e-9)
    named = {**(_flow() if straight else _diffusion()), **_azula()}
    return {title: partial(_carried, contender) for title, contender in named.items()}


def _carried(contender: str, net: Counted, x0: Tensor, nfe: int) -> Tensor:
    (one,) = contenders([contender])
    out = one.on(net.pipeline).sample(x0=x0.to(net.dtype), nfe=nfe, cond=net.cond, seed=0)
    net.calls = out.nfe
    end: Tensor = out.x
    return end


_ORDERS = {
    f"{title.format(p)}": f"diffusers_{name}(order={p}"
    for title, name in (("DPM++{}M", "dpmpp"), ("DEIS-{}", "deis"), ("UniPC-{}", "unipc"))
    for p in (2, 3)
}


def _flow() -> dict[str, str]:
    return {
        "diffusers Euler": "diffusers_flow_euler",
        "diffusers Heun": "diffusers_flow_heun",
        **{f"diffusers {title}": f"{start})" for title, start in _ORDERS.items()},
        **{f"torchdiffeq {name}": f"torchdiffeq_{name}" for name in ("euler", "midpoint", "heun2", "heun3", "rk4")},
    }


def _diffusion() -> dict[str, str]:
    spacings = {"linspace": "spacing=linspace)", "trailing": "spacing=trailing)", "linspace karras": "karras=true)"}
    return {
        **{
            f"diffusers {title} {spacing}": f"{start}{', ' if start[-1] != '(' else ''}{options}"
            for title, start in {**_ORDERS, "Heun": "diffusers_heun("}.items()
            for spacing, options in spacings.items()
        },
        "diffusers DDIM": "diffusers_ddim",
    }


def _azula() -> dict[str, str]:
    return {
        "azula DDIM": "azula_ddim",
        "azula Heun": "azula_heun",
        **{f"azula {kind}-{p}": f"azula_{kind.lower()}(order={p})" for kind in ("vAB", "xEAB", "zEAB") for p in (2, 3)},
        "azula zAB-3": "azula_zab(order=3)",
    }
