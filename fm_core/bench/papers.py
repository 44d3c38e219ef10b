"""Published tables that the suite repeats: their data, methods, budget and figures.

[SF]²M, Table 2. What the paper and its runner say, and what had to be decided here:

| | here | why |
|---|---|---|
| 8gaussians | ring of radius 5, mode std 1, modes independent | the runner's `gaussians`; torchdyn: n/8 of each |
| moons | `make_moons(noise=.05)·2 − 1`, angles independent | the runner's, but for its second shift |
| scurve | `make_s_curve(noise=.05)`, dimensions [0, 2], ·1.5 | the runner's |
| moons → 8gaussians | moons (noise .1) of std 7 → radius 12, std 1.5 | the runner's `twodim` |
| training set | 10,000 fixed points of data and data-like source | the paper's; Gaussian noise is fresh |
| steps | 20,000 of batch 512, which are 1,000 epochs | the runner's `max_epochs` |
| optimizer | AdamW, 10⁻³, weight decay 10⁻⁵, constant | the runner's configuration |
| weights | averaged, decay .999, as `fit` does; `npe_last`: of the last step | see below |
| σ | .1: t·x1 + (1 − t)·x0 + .1·ε; σ_min of FM | scripts/two-dim-cfm.sh |
| RF | 10,000 steps, 100,000 pairs by 100 Euler steps, 10,000 on | the runner reflows within one training |
| W2 | 10,000 samples against 10,000 fresh data points | .303 is below what 1,000 can give (.56) |
| W2²(q0, q1) | between the same 10,000 source and data points | as the paper defines NPE |

The runner judges the weights of the last step. At a constant rate of 10⁻³ these swing: the scale of the learned field
by ±2 %, so the energy, and NPE, by ±.04 from seed to seed (measured on FM, N→8gaussians), all methods of a seed alike,
for they see the same batches last. The average has not that noise, and is what `fit` gives back.

The NPE of I-CFM and FM is a property of the data, which a network can but approach: `benchmarks/exact_path_energy.py`
computes it without one. On N→8gaussians, moons→8gaussians, N→moons, N→scurve it is .226, 2.82, .941, .883 (I-CFM) and
.216, –, .834, .799 (FM), ± .003 to .03, above every published figure: a network smooths its field. So a figure above
the published one may be the better.

References:
    Tong, Malkin, et al. 2024, [SF]²M, Table 2. https://arxiv.org/abs/2307.03672
    Its runner. https://github.com/atong01/conditional-flow-matching/tree/main/runner
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

__all__ = ["PAPERS", "SF2M", "Budget", "Method", "Paper", "Published", "Task"]


@frozen
class Task:
    """From a source to data.

    Args:
        data: Configuration of the data set.
        source: Configuration of the source; standard normal for None.
        oracle: Configuration of the problem that knows the velocity of the data's law in closed form on any Gaussian
            path, from standard normal noise; None where there is none.
    """

    data: Mapping[str, Any]
    source: Mapping[str, Any] | None = None
    oracle: Mapping[str, Any] | None = None


@frozen
class Method:
    """What is trained.

    Args:
        recipe: Name of the recipe.
        parts: What differs from it, as `compose` takes it.
        reflow: Rounds of reflow, among which, and the first, the steps are divided.
        any_source: Whether the source may be other than standard normal.
        precondition: Whether the network predicts the data behind EDM's scalings, as noise levels from .01 to 80 need.
    """

    recipe: str
    parts: Mapping[str, Any] = field(factory=dict)
    reflow: int = 0
    any_source: bool = True
    precondition: bool = False


@frozen(kw_only=True)
class Budget:
    """What every method is given, and how it is judged.

    Args:
        points: Size of the training set, and of the source's where that is data; None draws without end.
        steps: Training steps.
        batch_size: Samples in a step.
        lr, weight_decay: Of AdamW.
        ema: Decay of the average of the weights; None judges those of the last step.
        width, depth: Of the SELU network.
        euler: Euler steps of sampling, of the path's energy, and of reflow.
        pairs: Pairs that reflow makes.
        n: Samples that are compared with as many of the data.
    """

    points: int | None = 10_000
    steps: int = 20_000
    batch_size: int = 512
    lr: float = 1e-3
    weight_decay: float = 1e-5
    ema: float | None = None
    width: int = 64
    depth: int = 3
    euler: int = 100
    pairs: int = 100_000
    n: int = 10_000


@frozen
class Published:
    """A cell of a published table.

    Args:
        w2: Mean of W2.
        w2_std: Its standard deviation over seeds.
        npe: Mean of the normalized path energy.
    """

    w2: float
    w2_std: float
    npe: float


@frozen
class Paper:
    """A published table.

    Args:
        title: Which.
        url: Where.
        tasks: Its columns.
        methods: Its rows that are trained here.
        budget: Its protocol.
        seeds: How many it averages.
        published: Its figures by row and column, also of rows that are not trained here.
        remark: What else is to be known of the comparison, Markdown.
    """

    title: str
    url: str
    tasks: Mapping[str, Task]
    methods: Mapping[str, Method]
    budget: Budget
    seeds: int
    published: Mapping[str, Mapping[str, Published]]
    remark: str = ""


_COLUMNS = ("N→8gaussians", "moons→8gaussians", "N→moons", "N→scurve")
_ICFM = {"name": "icfm", "sigma": 0.1}


def _row(*cells: tuple[float, float, float] | None) -> dict[str, Published]:
    return {task: Published(*cell) for task, cell in zip(_COLUMNS, cells, strict=True) if cell}


SF2M = Paper(
    title="Tong, Malkin, et al. 2024, [SF]²M, Table 2",
    url="https://arxiv.org/abs/2307.03672",
    tasks={
        "N→8gaussians": Task(
            {"name": "eight_gaussians"}, oracle={"name": "eight_gaussians", "radius": 5.0, "std": 1.0}
        ),
        "moons→8gaussians": Task({"name": "wide_eight_gaussians"}, source={"name": "standardised_moons"}),
        "N→moons": Task({"name": "moons"}),
        "N→scurve": Task({"name": "scurve"}),
    },
    methods={
        "OT-CFM": Method("ot_cfm", {"path": _ICFM}),
        "I-CFM": Method("cfm", {"path": _ICFM}),
        "RF": Method("cfm", {"path": _ICFM}, reflow=1),
        "FM": Method("fm", {"path": {"name": "linear", "sigma_min": 0.1}}, any_source=False),
    },
    budget=Budget(ema=0.999),
    seeds=5,
    published={
        "OT-CFM": _row((0.303, 0.043, 0.031), (0.601, 0.027, 0.015), (0.130, 0.016, 0.083), (0.144, 0.028, 0.027)),
        "I-CFM": _row((0.373, 0.103, 0.202), (1.557, 0.407, 2.680), (0.178, 0.014, 0.891), (0.242, 0.141, 0.856)),
        "RF": _row((0.421, 0.071, 0.044), (1.525, 0.330, 0.203), (0.283, 0.045, 0.130), (0.345, 0.079, 0.099)),
        "FM": _row((0.343, 0.058, 0.190), None, (0.209, 0.055, 0.762), (0.198, 0.037, 0.743)),
        "[SF]²M exact": _row(
            (0.275, 0.058, 0.016), (0.726, 0.137, 0.045), (0.124, 0.023, 0.053), (0.128, 0.005, 0.034)
        ),
    },
    remark="The fields that I-CFM and FM would learn without error have an NPE above the published one, everywhere "
    "([exact_path_energy.md](exact_path_energy.md)); an NPE that is bold here lies between the two.",
)

PAPERS: Mapping[str, Paper] = {"sf2m": SF2M}
"""Published tables by the name that `fm bench methods --paper` takes."""
