"""Samplers of other libraries on a field of ours: diffusers, azula, and torchdiffeq, which flow_matching samples by.

Each is a function of an `Oracle` field, source samples and a number of calls. States are in the precision that the
library keeps, and the network is asked at the very time that it means. What a library cannot do raises.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

import fm_core as fm
from fm_core import Prediction

__all__ = ["Counted", "Peer", "peers_of"]

TRAINED = 1000
"""Times of a discrete DDPM schedule."""


class Counted:
    """A pipeline's network, asked for any prediction, one time for the whole batch, and its calls."""

    def __init__(self, pipeline: fm.Pipeline, dtype: torch.dtype, cond: Tensor | None = None) -> None:
        self.path, self.model, self.cond, self.calls = pipeline.path, pipeline.model, cond, 0
        self.span = fm.Field(self.model, self.path).span({Prediction.DATA})
        self.dtype = dtype

    def __call__(self, kind: Prediction, x: Tensor, t: Tensor | float) -> Tensor:
        self.calls += 1
        t = torch.as_tensor(t, dtype=torch.float64)
        field = fm.Field(self.model, self.path)
        answer: Tensor = field.predict(x.to(self.dtype), t.clamp(*self.span), self.cond, kind)
        return answer.to(x)


class Peer(Protocol):
    """Carries source samples `(B, *D)` to t = 1 in about so many calls."""

    def __call__(self, net: Counted, x0: Tensor, nfe: int) -> Tensor: ...


def peers_of(path: Any) -> dict[str, Peer]:
    """The samplers that serve a path: on the linear one those of flows, on VP those of diffusions."""
    straight = bool((path.alpha(torch.tensor(0.5, dtype=torch.float64)) - 0.5).abs() < 1e-9)
    return {**(_flow() if straight else _diffusion(path)), **_azula()}


def _flow() -> dict[str, Peer]:
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    unipc = {  # with bh1 the step to σ = 0 multiplies infinity by 0
        f"diffusers UniPC-{p}": _on_sigmas("UniPCMultistepScheduler", solver_order=p, **flow) for p in (2, 3)
    }
    return {
        "diffusers Euler": _on_sigmas("FlowMatchEulerDiscreteScheduler"),
        "diffusers Heun": _on_sigmas("FlowMatchHeunDiscreteScheduler"),
        "diffusers DPM++2M": _on_sigmas("DPMSolverMultistepScheduler", solver_order=2, **flow),
        "diffusers DPM++3M": _on_sigmas("DPMSolverMultistepScheduler", solver_order=3, **flow),
        "diffusers DEIS-2": _on_sigmas("DEISMultistepScheduler", solver_order=2, **flow),
        "diffusers DEIS-3": _on_sigmas("DEISMultistepScheduler", solver_order=3, **flow),
        **unipc,
        **{f"torchdiffeq {name}": _torchdiffeq(name, cost) for name, cost in _BY_COST.items()},
    }


_BY_COST = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}


def _on_sigmas(name: str, **options: Any) -> Peer:
    """A scheduler of diffusers on flow sigmas, σ = 1 − t; its velocity has the opposite sign."""

    def run(net: Counted, x: Tensor, nfe: int) -> Tensor:
        import diffusers

        scheduler = getattr(diffusers, name)(**options)
        scheduler.set_timesteps((nfe + 1) // 2 if "Heun" in name else nfe)
        for i, k in enumerate(scheduler.timesteps):
            x = scheduler.step(-net(Prediction.VELOCITY, x, 1 - scheduler.sigmas[i].double()), k, x).prev_sample
        return x

    return run


def _torchdiffeq(method: str, cost: int) -> Peer:
    def run(net: Counted, x: Tensor, nfe: int) -> Tensor:
        from torchdiffeq import odeint

        times = torch.linspace(0, 1, nfe // cost + 1, dtype=torch.float64)
        ends: Tensor = odeint(lambda t, y: net(Prediction.VELOCITY, y, t), x, times, method=method)
        return ends[-1]

    return run


def _diffusion(path: Any) -> dict[str, Peer]:
    k = torch.arange(TRAINED, dtype=torch.float64)
    kept = path.alpha(1 - (k + 1) / TRAINED).square()
    betas = (1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])).numpy()
    made: dict[str, Peer] = {}
    for spacing, karras in (("linspace", False), ("trailing", False), ("linspace", True)):
        sigmas = {"use_karras_sigmas": karras, "timestep_spacing": spacing}
        tail = f"{spacing}{' karras' if karras else ''}"
        for name, title, orders in (
            ("DPMSolverMultistepScheduler", "DPM++{}M", (2, 3)),
            ("UniPCMultistepScheduler", "UniPC-{}", (2, 3)),
            ("DEISMultistepScheduler", "DEIS-{}", (2, 3)),
        ):
            for order in orders:
                label = f"diffusers {title.format(order)} {tail}"
                made[label] = _on_steps(name, solver_order=order, trained_betas=betas, **sigmas)
        made[f"diffusers Heun {tail}"] = _on_steps("HeunDiscreteScheduler", trained_betas=betas, **sigmas)
    made["diffusers DDIM"] = _on_steps(
        "DDIMScheduler", trained_betas=betas, timestep_spacing="trailing", clip_sample=False
    )
    return made


def _on_steps(name: str, **options: Any) -> Peer:
    """A scheduler of diffusers on the discrete times k of DDPM, t = 1 − (k + 1)/1000, noise predicted."""

    def run(net: Counted, x: Tensor, nfe: int) -> Tensor:
        import diffusers

        scheduler = getattr(diffusers, name)(num_train_timesteps=TRAINED, prediction_type="epsilon", **options)
        scheduler.set_timesteps((nfe + 1) // 2 if "Heun" in name else nfe)
        x = x * scheduler.init_noise_sigma
        for k in scheduler.timesteps:
            state = scheduler.scale_model_input(x, k)
            x = scheduler.step(net(Prediction.NOISE, state, 1 - (k.double() + 1) / TRAINED), k, x).prev_sample
        return x

    return run


def _azula() -> dict[str, Peer]:
    return {
        "azula DDIM": _azula_sampler("DDIMSampler"),
        "azula Heun": _azula_sampler("HeunSampler", 2),
        **{
            f"azula {kind}-{p}": _azula_sampler(f"{kind}Sampler", order=p)
            for kind in ("vAB", "xEAB", "zEAB")
            for p in (2, 3)
        },
        "azula zAB-3": _azula_sampler("zABSampler", order=3),
    }


LEAST = 1e-6
"""Least α and σ that azula is shown, which divides by both."""


def _azula_sampler(name: str, cost: int = 1, **options: Any) -> Peer:
    """A sampler of azula, whose time runs from 1 at the noise to 0."""

    def run(net: Counted, x: Tensor, nfe: int) -> Tensor:
        from azula import sample
        from azula.denoise import Denoiser, DiracPosterior
        from azula.noise import Schedule

        path: Any = net.path

        class OurSchedule(Schedule):  # type: ignore[misc]
            def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
                ours = (1 - t.double()).clamp(*net.span)
                return path.alpha(ours).clamp(min=LEAST), path.sigma(ours).clamp(min=LEAST)

        class Exact(Denoiser):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.schedule = OurSchedule()

            def forward(self, x_t: Tensor, t: Tensor) -> DiracPosterior:
                ours = (1 - t.double()).clamp(1e-6, 1 - 1e-6)
                return DiracPosterior(mean=net(Prediction.DATA, x_t.reshape(x.shape), ours).flatten(1))

        closing = net.span[1] < 1.0  # such a network stops at some noise, which its data prediction takes away
        steps = (nfe - closing) // cost
        sampler = getattr(sample, name)(Exact(), steps=steps, silent=True, dtype=torch.float64, **options)
        end: Tensor = sampler(x.flatten(1)).reshape(x.shape)
        return net(Prediction.DATA, end, net.span[1]) if closing else end

    return run
