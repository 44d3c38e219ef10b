"""Guidance in a limited interval of noise levels.

At high noise guidance costs diversity, at low noise it does nothing: it is applied for `low ≤ log-SNR < high` and left
out elsewhere, where the field is asked as if there were none. The log-SNR `2·log(α/σ)` means the same on every path.
The paper gives noise levels σ of EDM's path (α = 1), guiding in (σ_lo, σ_hi]; its log-SNR is −2·log σ, so that

    low = −2·log σ_hi,    high = −2·log σ_lo.

    >>> import math
    >>> sigma_lo, sigma_hi = 0.28, 2.9  # an interval of noise levels
    >>> round(-2 * math.log(sigma_hi), 2), round(-2 * math.log(sigma_lo), 2)
    (-2.13, 2.55)

References:
    Kynkäänniemi et al. 2024. https://arxiv.org/abs/2404.07724
"""

from __future__ import annotations

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The guidance `interval`, around any other."""
    return [
        Component(
            "guidance",
            "interval",
            "fm_plugins.guidance_interval.interval:Interval",
            "applies a guidance in an interval of log-SNR only",
            "Kynkäänniemi et al. 2024, https://arxiv.org/abs/2404.07724",
            example={"guidance": {"kind": "guidance", "name": "cfg", "scale": 2.0}, "low": -3.0, "high": 3.0},
        )
    ]
