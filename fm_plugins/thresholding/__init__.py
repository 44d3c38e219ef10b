"""Thresholding: the data prediction is kept in the range of the data.

    clip                 clamp(D, low, high)
    dynamic_threshold    clamp(D, −s, s)/s,    s = max(1, q-quantile of |D| over one sample)

Both act on `data` and change the noise with it, as the posterior mean of DDPM does, x_{t−1} being a sum of x_t and D.
DDIM's step puts a noise back, and there are two: with `keep_noise=False` it is the noise of the clipped data
(diffusers' DDIM with `use_clipped_model_output=True`; its DDPM), with `keep_noise=True` the network's own (diffusers'
DDIM as it comes). The latter is an ordinary step on

    D* = D + (clip(D) − D)/(1 − e^{−h}),    h = log(α_s/σ_s) − log(α_t/σ_t) for a step from t to s,

for DDIM with η = 0. Guidances stack, so clipping stands outside classifier-free guidance to bound its result, or inside
to bound both answers.

References:
    Ho et al. 2020, the reverse process in [−1, 1]. https://arxiv.org/abs/2006.11239
    Saharia et al. 2022, Imagen, section 2.3 (static and dynamic thresholding). https://arxiv.org/abs/2205.11487
    Song et al. 2021, DDIM, eq. 12. https://arxiv.org/abs/2010.02502
"""

from __future__ import annotations

from fm_core import Component, hookimpl

_IMAGEN = "Saharia et al. 2022, section 2.3, https://arxiv.org/abs/2205.11487"


@hookimpl
def fm_components() -> list[Component]:
    """The guidances `clip` and `dynamic_threshold`."""
    return [
        Component("guidance", "clip", "fm_plugins.thresholding.clip:clip", "data predictions in [low, high]", _IMAGEN),
        Component(
            "guidance",
            "dynamic_threshold",
            "fm_plugins.thresholding.dynamic:dynamic_threshold",
            "data predictions scaled back by a quantile of every sample",
            _IMAGEN,
        ),
    ]
