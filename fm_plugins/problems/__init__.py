"""Benchmark problems: flows whose ends are known, and trained networks whose ends a fine solver finds.

*Oracles* are mixtures of Gaussians on any Gaussian path. The network is the closed form, so all of a contender's error
is its own, and the reference is the flow's end to 1e-9:

    gaussian                one Gaussian: the flow itself is a closed form
    line                    3 modes on a line
    eight_gaussians         8 modes of std √.1 on a ring of radius 5
    modes_32d               64 modes of std .2 in 32 dimensions
    modes_512d              8 modes of std .3 in 512 dimensions
    image_modes             10 smooth pictures (3, 8, 8) of std .2
    labelled_gaussians      the ring, with a label for every pair of opposite modes as the condition
    guided_gaussians        the same under classifier-free guidance

*Trained* problems are networks, trained with a fixed seed when they are first solved, and kept. What their flow ends in
is known by their own fine solution alone: steps are doubled until two in turn agree, to 1e-6 of the ends' size, for the
digits to 1e-3, since their U-Net knows time by waves that finer steps go on to resolve, or until more steps do not
help. How far the last two differ stands beside every error as `reference_error`; errors below ten times that say
nothing:

    digits, labelled_digits                    a U-Net on 8 × 8 digits
    learned_eight_gaussians, learned_moons,    an MLP on the four 2-D tasks of [SF]²M's Table 2
    learned_scurve, learned_moons_to_gaussians

and `saved` is a pipeline that a user saved.

References:
    Tong, Malkin, et al. 2024, [SF]²M (the tasks). https://arxiv.org/abs/2307.03672
"""

from __future__ import annotations

from typing import Any

from fm_core import Component, hookimpl

_HERE = "fm_plugins.problems"
_SF2M = "https://arxiv.org/abs/2307.03672"


def _problem(name: str, target: str, summary: str, reference: str = "", **example: Any) -> Component:
    return Component("problem", name, f"{_HERE}.{target}", summary, reference, example)


@hookimpl
def fm_components() -> list[Component]:
    """The problems, by name."""
    return [
        _problem("gaussian", "oracles:gaussian", "One Gaussian, its flow in closed form"),
        _problem("line", "oracles:line", "Three modes on a line, exact"),
        _problem("eight_gaussians", "oracles:eight_gaussians", "Eight modes on a ring in 2-D, exact"),
        _problem("modes_32d", "oracles:modes_32d", "64 modes in 32-D, exact"),
        _problem("modes_512d", "oracles:modes_512d", "8 modes in 512-D, exact"),
        _problem("image_modes", "oracles:image_modes", "Ten smooth pictures (3, 8, 8), exact"),
        _problem("labelled_gaussians", "oracles:labelled_gaussians", "The ring under labels, exact"),
        _problem("guided_gaussians", "oracles:guided_gaussians", "The ring under classifier-free guidance, exact"),
        _problem("digits", "trained:digits", "A U-Net trained on 8 × 8 digits", steps=20),
        _problem("labelled_digits", "trained:labelled_digits", "The same under labels", steps=20),
        *(
            _problem(f"learned_{name}", f"trained:learned_{name}", f"An MLP trained on {data}", _SF2M, steps=200)
            for name, data in (
                ("eight_gaussians", "eight Gaussians"),
                ("moons", "two moons"),
                ("scurve", "an S"),
                ("moons_to_gaussians", "moons → eight Gaussians"),
            )
        ),
        Component(
            "problem",
            "saved",
            f"{_HERE}.trained:saved",
            "A saved pipeline of one's own",
            example={"folder": "out/demo/moons_cfm"},
            expected_failures={"builds": "it is a folder of one's own, which the kit has not"},
        ),
    ]
