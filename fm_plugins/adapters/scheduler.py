"""What a diffusers scheduler's configuration says of the network: path, prediction and clock.

A scheduler mixes how the network was trained (betas, prediction type) with how it is sampled (spacing, order,
clipping). Only the former is read; the latter are solvers, grids and guidances here. With k ∈ 0 … N − 1 and
t = 1 − (k + 1)/N,

    diffusion   ᾱ_k = Π (1 − β_i), x = √ᾱ·data + √(1 − ᾱ)·noise: the path `ddpm`; the network is told k
                epsilon → noise, sample → data, v_prediction = √ᾱ·noise − √(1 − ᾱ)·data → v, all of the same sign
    flow        x = (1 − s)·data + s·noise, s = 1 − t: the path `linear`; the network is told 1000·s
                flow_prediction = dx/ds = noise − data → velocity, of the opposite sign

Schedulers in σ-space (Euler, Heun, LMS, KDPM2, …) hold the state of the path rescaled to α = 1, and divide it by
√(σ² + 1) before they ask the network: these networks are the same.

References:
    diffusers, schedulers/scheduling_ddim.py, scheduling_flow_match_euler_discrete.py. https://github.com/huggingface/diffusers
    Lin et al. 2023 (rescale_betas_zero_snr). https://arxiv.org/abs/2305.08891
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import field, frozen

from fm_core import PredictionError, ProbabilityPath, SavedFileError
from fm_core.errors import did_you_mean
from fm_core.prediction import Prediction, as_prediction
from fm_core.registry import build

__all__ = ["Scheduled", "diffusers_path", "read_scheduler"]

DIFFUSION = {
    "epsilon": Prediction.NOISE,
    "sample": Prediction.DATA,
    "v_prediction": Prediction.V,
}
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "squared_cosine"}
"""diffusers' names of beta schedules, and those of the path `ddpm`."""

NARROW = frozenset({"HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"})
"""Schedulers whose betas run from 0.00085 to 0.012 where the configuration does not say; the others': 1e-4 to 0.02."""

CLASSES = NARROW | {
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
}
FLOWS = frozenset({"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"})
UNLIKE = frozenset({"sigma_data", "timestep_scaling", "original_inference_steps", "scale_factors"})
"""Entries that schedulers of other kinds of networks have: EDM's, and those of consistency models."""


@frozen
class Scheduled:
    """What a scheduler's configuration says of the network.

    Args:
        path: "ddpm" or "linear".
        options: The path's options.
        steps: N, the number of training timesteps.
        predicts: What the network returns, once its sign is mended.
        sign: −1 where diffusers' prediction has the other sign.
        learned_variance: Whether the configuration says that the network returns variances too.
    """

    path: Literal["ddpm", "linear"]
    steps: int
    predicts: Prediction
    options: Mapping[str, Any] = field(factory=dict)
    sign: Literal[1, -1] = 1
    learned_variance: bool = False


def diffusers_path(scheduler: Mapping[str, Any]) -> ProbabilityPath:
    """The path on which a diffusers scheduler's network was trained.

    Args:
        scheduler: The scheduler's configuration: `scheduler.config`, or the content of `scheduler_config.json`.

    Raises:
        SavedFileError: For a scheduler, a beta schedule or a setting that no path here stands for.
        PredictionError: For an unknown prediction type.
    """
    scheduled = read_scheduler(scheduler)
    path: ProbabilityPath = build("path", scheduled.path, **scheduled.options)
    return path


def read_scheduler(scheduler: Mapping[str, Any]) -> Scheduled:
    """What a diffusers scheduler's configuration says of the network.

    >>> scheduled = read_scheduler({"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"})
    >>> scheduled.path, str(scheduled.predicts), scheduled.steps
    ('ddpm', 'v', 1000)

    Raises:
        SavedFileError, PredictionError: As `diffusers_path` does.
    """
    name = _class_name(scheduler)
    if _given(scheduler, "timestep_type", "discrete") != "discrete":
        raise SavedFileError("timestep_type='continuous' tells the network ¼·log σ: adapt it by clock='c_noise'")
    steps = scheduler.get("num_train_timesteps", 1000)
    kind = scheduler.get("prediction_type")
    if name in FLOWS or _given(scheduler, "use_flow_sigmas", False):
        return _flow(scheduler, steps, "flow_prediction" if kind is None else kind)
    if kind == "flow_prediction":
        raise PredictionError(
            "prediction_type='flow_prediction' with the betas of a diffusion: set use_flow_sigmas=True if it is a flow"
        )
    return Scheduled(
        path="ddpm",
        options=_betas(scheduler, steps, name),
        steps=steps,
        predicts=_kind("epsilon" if kind is None else kind, DIFFUSION),
        learned_variance=str(scheduler.get("variance_type", "")).startswith("learned"),
    )


def check_declared(scheduled: Scheduled, predicts: str | None) -> None:
    """Refuses a prediction declared other than configured.

    Raises:
        PredictionError: Naming both.
    """
    if predicts is not None and as_prediction(predicts) != scheduled.predicts:
        raise PredictionError(
            f"the scheduler's configuration says that the network predicts {str(scheduled.predicts)!r}, and "
            f"predicts={predicts!r} was declared: one is wrong, and samples would be noise. Leave predicts= out, or "
            "mend prediction_type in the configuration"
        )


def _class_name(scheduler: Mapping[str, Any]) -> str:
    """The scheduler's class. A configuration in memory does not name it, and is told by what it holds."""
    if not isinstance(scheduler, Mapping):
        raise SavedFileError(
            f"a scheduler is given by its configuration, a mapping such as scheduler.config; got "
            f"{type(scheduler).__name__}"
        )
    name = scheduler.get("_class_name")
    if name is None and not UNLIKE & scheduler.keys():
        if "shift" in scheduler and "beta_schedule" not in scheduler:
            return "FlowMatchEulerDiscreteScheduler"
        if "beta_schedule" in scheduler or scheduler.get("trained_betas") is not None:
            return "DDPMScheduler"
    if name not in CLASSES | FLOWS:
        hint = did_you_mean(str(name), CLASSES | FLOWS) if name else "say it: {'_class_name': 'DDIMScheduler', …}."
        raise SavedFileError(
            f"the scheduler's configuration names the class {name!r}, which is not among those whose networks are "
            "understood here (consistency models, EDM's own preconditioning and discrete diffusions are trained "
            f"otherwise); {hint}"
        )
    return str(name)


def _flow(scheduler: Mapping[str, Any], steps: int, kind: str) -> Scheduled:
    if _given(scheduler, "invert_sigmas", False):
        raise SavedFileError(
            "invert_sigmas=True tells the network t instead of 1 − t: adapt it by clock='rising', scale=1000"
        )
    predicts = _kind(kind, {**DIFFUSION, "flow_prediction": Prediction.VELOCITY})
    if predicts is Prediction.V:
        raise PredictionError(
            "prediction_type='v_prediction' of a flow is ambiguous: α·x_t − σ·v is the data where α² + σ² = 1, which a "
            "flow's are not. Adapt the network by hand, saying what it predicts"
        )
    return Scheduled("linear", steps, predicts, sign=-1 if predicts is Prediction.VELOCITY else 1)


def _betas(scheduler: Mapping[str, Any], steps: int, name: str) -> dict[str, Any]:
    betas: Sequence[float] | str
    options: dict[str, Any] = {}
    if scheduler.get("trained_betas") is not None:
        betas = [float(beta) for beta in scheduler["trained_betas"]]
        if len(betas) != steps:
            raise SavedFileError(f"there are {len(betas)} trained_betas for num_train_timesteps={steps}")
    else:
        schedule = scheduler.get("beta_schedule", "linear")
        if schedule not in SCHEDULES:
            raise SavedFileError(
                f"the beta_schedule {schedule!r} is not known here; {did_you_mean(str(schedule), SCHEDULES)} "
                "Any other is given by its numbers: trained_betas=scheduler.betas.tolist()"
            )
        betas = SCHEDULES[schedule]
        options["steps"] = steps
        if betas != "squared_cosine":
            low, high = (0.00085, 0.012) if name in NARROW else (1e-4, 0.02)
            options["beta_start"] = float(scheduler.get("beta_start", low))
            options["beta_end"] = float(scheduler.get("beta_end", high))
    if _given(scheduler, "rescale_betas_zero_snr", False):
        options["zero_terminal_snr"] = True
    return {"betas": betas, **options}


def _kind(name: str, known: Mapping[str, Prediction]) -> Prediction:
    if name not in known:
        raise PredictionError(f"unknown prediction_type {name!r}; {did_you_mean(str(name), known)}")
    return known[name]


def _given(scheduler: Mapping[str, Any], name: str, default: Any) -> Any:
    value = scheduler.get(name)
    return default if value is None else value
