"""Adapters: networks trained elsewhere as models. Foreign conventions live here and nowhere else.

A network is a function of a state and a time that returns a prediction; what differs from library to library is the
order of the two, how time is told, which prediction, in which part of the output, and its sign. A `Convention` says so
as a value:

    library                          called as                  told                      predicts
    TorchCFM                         net(t, x, y=…)             t                         velocity
    flow_matching                    net(x=…, t=…, **extras)    t                         velocity
    diffusers, DDPM and its kin      net(x, k, …).sample        k = N·(1 − t) − 1         noise, data or v
    diffusers, flows                 net(x, s, …).sample        s = 1000·(1 − t)          −velocity
    EDM                              D(x/α, σ/α)                σ/α                       data

Networks with learned variances return 2C channels, of which the first C are the prediction. A network that was adapted
with its path is on record as trained on it, so that composing it with another schedule is refused.

References:
    Ho et al. 2020. https://arxiv.org/abs/2006.11239
    Nichol & Dhariwal 2021 (learned variances). https://arxiv.org/abs/2102.09672
    Karras et al. 2022. https://arxiv.org/abs/2206.00364
    diffusers. https://github.com/huggingface/diffusers
"""

from __future__ import annotations

from typing import Any

from fm_core import Component, hookimpl

_DIFFUSERS = "https://github.com/huggingface/diffusers"
_MLP = {"kind": "model", "name": "mlp", "shape": 2}
_SCHEDULER = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"}
_UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def _time_first(t: Any, x: Any) -> Any:
    return -x


def _by_keywords(*, x: Any, t: Any) -> Any:
    return -x


@hookimpl
def fm_components() -> list[Component]:
    """Models `adapted`, `torchcfm`, `flow_matching`, `edm_denoiser`, `diffusers`, `diffusers_folder`, and the path
    `diffusers`.
    """
    return [
        Component(
            "model",
            "adapted",
            "fm_plugins.adapters.adapt:adapt",
            "a network of any convention: argument order, clock, output, sign",
            example={"net": _MLP, "predicts": "noise", "convention": {"clock": "index", "steps": 1000}},
        ),
        Component(
            "model",
            "torchcfm",
            "fm_plugins.adapters.adapt:torchcfm",
            "a network of TorchCFM, net(t, x)",
            "https://github.com/atong01/conditional-flow-matching",
            example={"net": _time_first},
        ),
        Component(
            "model",
            "flow_matching",
            "fm_plugins.adapters.adapt:flow_matching",
            "a network of flow_matching, net(x=…, t=…, **extras)",
            "Lipman et al. 2024, https://arxiv.org/abs/2412.06264",
            example={"net": _by_keywords},
        ),
        Component(
            "model",
            "edm_denoiser",
            "fm_plugins.adapters.adapt:edm",
            "an EDM-preconditioned network D(x; σ) on any Gaussian path",
            "Karras et al. 2022, https://arxiv.org/abs/2206.00364",
            example={"net": _MLP, "path": "linear"},
        ),
        Component(
            "model",
            "diffusers",
            "fm_plugins.adapters.network:diffusers_network",
            "a network of diffusers by class name and configuration",
            _DIFFUSERS,
            example={"architecture": "UNet2DModel", "config": _UNET, "scheduler": _SCHEDULER},
        ),
        Component(
            "model",
            "diffusers_folder",
            "fm_plugins.adapters.folder:read_folder",
            "the network of a local save_pretrained folder, safetensors only; fm.load_diffusers gives the pipeline",
            _DIFFUSERS,
            expected_failures={"builds": "it reads a folder of the user's, which no example can name"},
        ),
        Component(
            "path",
            "diffusers",
            "fm_plugins.adapters.scheduler:diffusers_path",
            "the path of a diffusers scheduler's configuration",
            _DIFFUSERS,
            example={"scheduler": _SCHEDULER},
        ),
    ]
