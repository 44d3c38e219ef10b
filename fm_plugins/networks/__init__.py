"""Networks: what a `Model` gives a meaning to.

A network is any module called as `net(x_t, t)`, or `net(x_t, t, cond)` with a condition, that returns `(B, *D)` for x_t
`(B, *D)` and t `(B,)`. It does not know what it predicts.

    mlp              f(x, t, c) = W_{n+1}·a(W_n ⋯ a(W_1·[x, τ(t), c])),   τ(t) = t, or a linear map of sines and cosines
    unet             residual stages down and up through the resolutions of an image; `unet_tiny`, `unet_small`,
                     `unet_cifar10` are sizes of it
    dit              a transformer on patches, every block modulated by time and condition; `dit_s`, `dit_b`, `dit_l`,
                     `dit_xl` are its published sizes
    edm_precond      D(x; σ) = c_skip·x + c_out·F(c_in·x, c_noise) around another network: it predicts the data

One is no such network: it gives logits `(B, K)`, for classifier guidance, and features of clean states.

    noisy_classifier log p(c | x_t);   `classifier_training.train_classifier` trains it

Images may be conditioned on classes (row K of K + 1 is "no class"), on vectors ("global": added to the embedding of
time) and on sequences ("local": cross-attention). All draw their weights from a generator of their own, `seed`. Inside,
the time is t·1000 in DDPM's sinusoids; t rises to the data.

References:
    Tong, Malkin, et al. 2024, TorchCFM (3 × 64, SELU, time concatenated). https://arxiv.org/abs/2302.00482
    Vaswani et al. 2017, section 3.5; Ho et al. 2020, appendix B (sinusoids, U-Net). https://arxiv.org/abs/2006.11239
    Dhariwal & Nichol 2021, ADM (U-Net, classifier). https://arxiv.org/abs/2105.05233
    Rombach et al. 2022 (cross-attention). https://arxiv.org/abs/2112.10752
    Peebles & Xie 2023, DiT. https://arxiv.org/abs/2212.09748
    Karras et al. 2022, EDM (preconditioning). https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

from typing import Any

from fm_core import Component, hookimpl

_DDPM = "Ho et al. 2020, appendix B, https://arxiv.org/abs/2006.11239"
_ADM = "Dhariwal & Nichol 2021, https://arxiv.org/abs/2105.05233"
_DIT = "Peebles & Xie 2023, https://arxiv.org/abs/2212.09748"
_EDM = "Karras et al. 2022, table 1, https://arxiv.org/abs/2206.00364"

_IMAGE = [1, 8, 8]


def _model(name: str, target: str, summary: str, reference: str, **example: Any) -> Component:
    return Component("model", name, f"fm_plugins.networks.{target}", summary, reference, example)


@hookimpl
def fm_components() -> list[Component]:
    """The networks, by name."""
    tiny = {"width": 16, "multipliers": [1, 2], "blocks": 1}
    return [
        _model(
            "mlp",
            "mlp:MLP",
            "Time-embedded MLP for states of any shape; 3 × 64 SELU by default",
            "https://arxiv.org/abs/2302.00482",
            shape=2,
        ),
        _model("unet", "unet:UNet", "U-Net with attention and conditions, of any size", _ADM, shape=_IMAGE, **tiny),
        _model("unet_tiny", "unet_sizes:unet_tiny", "U-Net for 8 × 8 digits", _ADM, shape=_IMAGE),
        _model("unet_small", "unet_sizes:unet_small", "U-Net for 28 to 32 pixels", _ADM, shape=_IMAGE),
        _model("unet_cifar10", "unet_sizes:unet_cifar10", "DDPM's U-Net for CIFAR-10, 35.7 M", _DDPM, shape=[3, 8, 8]),
        _model(
            "dit", "dit:DiT", "Diffusion transformer with adaLN-Zero", _DIT, shape=_IMAGE, width=32, depth=2, heads=4
        ),
        _model("dit_s", "dit_sizes:dit_s", "DiT-S, 384 wide, 12 blocks", _DIT, shape=_IMAGE, patch=4),
        _model("dit_b", "dit_sizes:dit_b", "DiT-B, 768 wide, 12 blocks", _DIT, shape=_IMAGE, patch=4),
        _model("dit_l", "dit_sizes:dit_l", "DiT-L, 1,024 wide, 24 blocks", _DIT, shape=_IMAGE, patch=4),
        _model("dit_xl", "dit_sizes:dit_xl", "DiT-XL, 1,152 wide, 28 blocks", _DIT, shape=_IMAGE, patch=4),
        _model(
            "noisy_classifier",
            "noisy_classifier:NoisyClassifier",
            "Logits (B, K) of noisy states, for classifier guidance; no vector field",
            _ADM,
            shape=_IMAGE,
            classes=10,
        ),
        _model(
            "edm_precond",
            "edm_precond:EDMPrecond",
            "EDM's preconditioning around another network: it predicts the data",
            _EDM,
            net={"name": "mlp", "shape": 2, "time": "fourier"},
            path="linear",
        ),
    ]
