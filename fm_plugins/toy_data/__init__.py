"""Two-dimensional data sets whose laws are known in closed form: what methods are compared on before images.

Every data set is a value that is called with `(n, generator)` and returns `n` independent samples, `(n, 2)`, float32,
on the generator's device. They stream: any n, no finite population, so a draw of 64 and 64 draws of 1 have one law.
Numbers come from the generator alone (None: fresh entropy); torch's and numpy's global generators are neither read nor
written.

The four data sets of Table 2 of Tong et al. as the runner of its code defines them, and the pair:

    gaussian          N(0, I), any event shape
    eight_gaussians   ring of radius 5, mode std 1 (the name has five versions: see the class)
    moons             make_moons(noise=.05)·2 − 1
    scurve            make_s_curve(noise=.05), dimensions [0, 2], ·1.5
    standardised_moons → wide_eight_gaussians     the pair of moons → 8gaussians, on a scale of 7 and 12

and `checkerboard`, `rings`, `pinwheel` as FFJORD defines them.

References:
    Tong, Malkin, et al. 2024, [SF]²M, Table 2. https://arxiv.org/abs/2307.03672
    Its runner, src/datamodules. https://github.com/atong01/conditional-flow-matching/tree/main/runner
    Grathwohl et al. 2019, FFJORD, lib/toy_data.py. https://github.com/rtqichen/ffjord
"""

from __future__ import annotations

from fm_core import Component, hookimpl

_SF2M = "https://arxiv.org/abs/2307.03672"
_FFJORD = "https://arxiv.org/abs/1810.01367"


@hookimpl
def fm_components() -> list[Component]:
    """The toy data sets, by name."""
    here = "fm_plugins.toy_data"
    return [
        Component("dataset", "gaussian", f"{here}.gaussian:Gaussian", "Standard normal, any event shape", _SF2M),
        Component(
            "dataset",
            "eight_gaussians",
            f"{here}.eight_gaussians:EightGaussians",
            "Eight Gaussians on a ring: radius 5, mode std 1",
            _SF2M,
        ),
        Component("dataset", "moons", f"{here}.moons:Moons", "Two interleaved half circles", _SF2M),
        Component("dataset", "scurve", f"{here}.scurve:SCurve", "An S in the plane", _SF2M),
        Component(
            "dataset",
            "standardised_moons",
            f"{here}.moons_to_gaussians:standardised_moons",
            "Source of moons → 8gaussians: moons of standard deviation 7",
            _SF2M,
        ),
        Component(
            "dataset",
            "wide_eight_gaussians",
            f"{here}.moons_to_gaussians:wide_eight_gaussians",
            "Target of moons → 8gaussians: radius 12, mode std 1.5",
            _SF2M,
        ),
        Component("dataset", "checkerboard", f"{here}.checkerboard:Checkerboard", "Eight uniform squares", _FFJORD),
        Component("dataset", "rings", f"{here}.rings:Rings", "Four concentric circles", _FFJORD),
        Component(
            "dataset",
            "pinwheel",
            f"{here}.pinwheel:Pinwheel",
            "Five bent arms",
            "https://arxiv.org/abs/1603.06277",
        ),
    ]
