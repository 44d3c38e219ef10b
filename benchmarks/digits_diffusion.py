"""One noise network on the digits, trained once by `ddpm`, sampled by every solver and under every guidance.

    .venv/bin/python benchmarks/digits_diffusion.py --out out/digits_diffusion

Three tables, each with a picture: the Fréchet distance of each solver at 10, 20, 50 and 100 network calls, in the
features of a classifier that was trained apart, beside the distance of real digits from real digits; DDIM's η at few
calls, where it matters, from more samples; and the share of samples that this classifier assigns to the class asked
for, with the diversity that guidance costs. The network is kept in `--out`, so a second run only samples.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import torch
from attrs import asdict, frozen
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import fm_core as fm
from fm_core.fit.files import replacing
from fm_core.floor import Floor
from fm_core.randomness import make_generator, spawn_seed
from fm_plugins.digits.digits import to_unit
from fm_plugins.networks.classifier_training import train_classifier

TRAINING_STEPS, CLASSIFIER_STEPS = 6_000, 1_500
DRAWS, N = 3, 500
"""Draws behind each figure, and samples in each, as many of every class: in a classifier's features classes are far
apart, and sets whose class counts differ by chance are at a distance that says nothing of the samples.
"""

BUDGETS = (10, 20, 50, 100)
FEW, FEW_DRAWS, FEW_N = (5, 10), 5, 2_000
"""Calls at which the kinds of noise are told apart, and the draws for it."""

PARTS = ("solvers", "etas", "guidance")

CONTROL = {"solver": "ddim", "steps": 50}
"""How guidances are compared."""

ETAS = (0.0, 0.2, 0.5, 1.0)
SOLVERS: dict[str, Any] = {
    **{f"ddim, η = {eta:g}": {"name": "ddim", "eta": eta} for eta in ETAS},
    "ddpm, β̃": "ddpm",
    "ddpm, β": {"name": "ddpm", "variance": "beta"},
    "Euler–Maruyama": "euler_maruyama",
    "stochastic Heun": "stochastic_heun",
    "EDM": "edm",
    "EDM, churn 10": {"name": "edm", "s_churn": 10.0},
    "euler": "euler",
    "heun": "heun",
    "rk4": "rk4",
    "dopri5": "dopri5",
}


@frozen
class Row:
    """One line of a table: what was run, what it cost, what it gave."""

    name: str
    nfe: int
    frechet: float
    std: float
    accuracy: float
    diversity: float


@frozen(eq=False)
class Judge:
    """A classifier of clean digits, and what it says of samples.

    Args:
        net: The classifier.
        real: Real digits `(N, 1, 8, 8)`, and their labels.
    """

    net: torch.nn.Module
    real: Tensor
    labels: Tensor

    def features(self, x: Tensor) -> Tensor:
        """Features `(n, F)`."""
        with torch.no_grad():
            return self.net.features(x.float(), torch.ones(len(x)))  # type: ignore[operator,no-any-return]

    def frechet(self, x: Tensor, y: Tensor) -> float:
        """Fréchet distance of two sets in the features."""
        return fm.build("metric", "frechet", features=self.features)(x, y)  # type: ignore[no-any-return]

    def drawn(self, seed: int) -> tuple[Tensor, Tensor]:
        """Two sets of N real digits, as many of every class in each, that share none."""
        generator = make_generator(seed)
        halves: tuple[list[Tensor], list[Tensor]] = ([], [])
        for k in range(10):
            rows = (self.labels == k).nonzero()[:, 0]
            rows = rows[torch.randperm(len(rows), generator=generator)]
            halves[0].append(rows[: N // 10])
            halves[1].append(rows[N // 10 : N // 5])
        first, second = (self.real[torch.cat(half)] for half in halves)
        return first, second

    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """Share of samples that are taken for the class asked for."""
        with torch.no_grad():
            return float((self.net(x.float(), torch.ones(len(x))).argmax(1) == labels).float().mean())

    def diversity(self, x: Tensor, labels: Tensor) -> float:
        """Spread of the features within a class, over that of real digits."""

        def spread(images: Tensor, classes: Tensor) -> float:
            features = self.features(images)
            return fmean(float(features[classes == k].var(0).sum().sqrt()) for k in classes.unique().tolist())

        return spread(x, labels) / spread(self.real, self.labels)


def trained(out: Path, seed: int, effort: float) -> fm.Pipeline:
    """The network, from its folder if it is there."""
    if (out / "network").is_dir():
        return fm.load(out / "network")
    digits = fm.build("dataset", "digits", split="train")
    net = fm.build("model", "unet_tiny", shape=[1, 8, 8], classes=10, seed=spawn_seed(seed, 0))
    pipe = fm.recipe("ddpm", model=fm.Model(net, predicts="noise", null=10))
    result = pipe.fit(
        (digits.x1, digits.labels),
        steps=round(TRAINING_STEPS * effort),
        batch_size=128,
        lr=2e-3,
        lr_schedule="cosine",
        warmup=100,
        cond_dropout=0.1,
        seed=seed,
    )
    result.pipeline.save(out / "network")
    return result.pipeline


def classifier(path: Any, seed: int, effort: float) -> torch.nn.Module:
    """A classifier of the digits, of noised ones on a path or of clean ones for None."""
    digits = fm.build("dataset", "digits", split="train")
    net: torch.nn.Module = fm.build("model", "noisy_classifier", shape=[1, 8, 8], classes=10, seed=seed)
    train_classifier(net, path, digits.x1, digits.labels, steps=round(CLASSIFIER_STEPS * effort), seed=seed)
    return net


def measured(
    name: str,
    pipe: fm.Pipeline,
    judge: Judge,
    seed: int,
    *,
    blind: bool = False,
    draws: int = DRAWS,
    n: int = N,
    **budget: Any,
) -> tuple[Row, Tensor]:
    """A row, and forty of its samples. `blind`: the network is not told the class."""
    labels = torch.arange(n) % 10
    cond = torch.full_like(labels, 10) if blind else labels
    distances, accuracies, diversities, kept, nfe = [], [], [], torch.empty(0), 0
    for draw in range(draws):
        samples = pipe.sample((n, 1, 8, 8), cond=cond, seed=spawn_seed(seed, 1, draw), chunk=N, **budget)
        distances.append(judge.frechet(samples.x, judge.drawn(spawn_seed(seed, 2, draw))[0]))
        accuracies.append(judge.accuracy(samples.x, labels))
        diversities.append(judge.diversity(samples.x, labels))
        kept, nfe = samples.x[:40], samples.nfe
    return Row(name, nfe, fmean(distances), stdev(distances), fmean(accuracies), fmean(diversities)), kept


def solvers(pipe: fm.Pipeline, judge: Judge, seed: int) -> tuple[list[Row], list[Tensor]]:
    """Every solver at every budget."""
    cells = [(name, solver, nfe) for name, solver in SOLVERS.items() for nfe in BUDGETS if solver != "dopri5"]
    found = []
    for name, solver, nfe in track(cells, "solvers", transient=True):
        found.append(measured(name, pipe.replace(solver=solver), judge, seed, nfe=nfe))
    found.append(measured("dopri5", pipe.replace(solver="dopri5"), judge, seed, rtol=1e-2, atol=1e-2))
    found.append(measured("ddpm, β̃", pipe.replace(solver="ddpm"), judge, seed, nfe=500))
    return [row for row, _ in found], [kept for _, kept in found]


def etas(pipe: fm.Pipeline, judge: Judge, seed: int) -> tuple[list[Row], list[Tensor]]:
    """DDIM's η at few calls, every η from the same noise."""
    cells = [(eta, nfe) for nfe in FEW for eta in ETAS]
    found = []
    for eta, nfe in track(cells, "DDIM's η", transient=True):
        solver = pipe.replace(solver={"name": "ddim", "eta": eta})
        found.append(measured(f"ddim, η = {eta:g}", solver, judge, seed, draws=FEW_DRAWS, n=FEW_N, nfe=nfe))
    return [row for row, _ in found], [kept for _, kept in found]


def guidances(pipe: fm.Pipeline, judge: Judge, guide: torch.nn.Module, seed: int) -> tuple[list[Row], list[Tensor]]:
    """Every guidance at several scales."""
    pipe, steps = pipe.replace(solver=CONTROL["solver"]), CONTROL["steps"]
    found = [
        measured("no class", pipe, judge, seed, blind=True, steps=steps),
        measured("class, unguided", pipe, judge, seed, steps=steps),
    ]
    for scale in track((1.0, 2.0, 4.0, 8.0), "classifier guidance", transient=True):
        guided = pipe.replace(guidance=fm.build("guidance", "classifier", classifier=guide, scale=scale))
        found.append(measured(f"classifier, s = {scale:g}", guided, judge, seed, steps=steps))
    for scale in track((1.5, 2.0, 3.0, 5.0), "classifier-free guidance", transient=True):
        guided = pipe.replace(guidance={"name": "cfg", "scale": scale})
        found.append(measured(f"cfg, s = {scale:g}", guided, judge, seed, steps=steps))
    return [row for row, _ in found], [kept for _, kept in found]


def picture(rows: list[Row], images: list[Tensor], path: Path, columns: int = 20) -> None:
    """A row of digits for every row of a table."""
    figure, panels = plt.subplots(len(rows), 1, figsize=(8.5, 0.5 * len(rows)), squeeze=False)
    for axes, row, kept in zip(panels[:, 0], rows, images, strict=True):
        strip = torch.nn.functional.pad(to_unit(kept[:columns, 0]), (1, 1, 1, 1)).permute(1, 0, 2).flatten(1)
        axes.imshow(strip, cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
        axes.text(-3, 5, f"{row.name}  {row.nfe}", ha="right", va="center", fontsize=7)
    figure.subplots_adjust(left=0.24, right=0.995, top=0.995, bottom=0.005, hspace=0.08)
    with replacing(path) as (temporary,):
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)


def table(title: str, rows: list[Row], caption: str) -> Table:
    """The rows as rich shows them."""
    shown = Table("", "NFE", "Fréchet", "±", "class", "diversity", title=title, caption=caption)
    for row in rows:
        cells = (f"{row.frechet:.4f}", f"{row.std:.4f}", f"{100 * row.accuracy:.1f} %", f"{row.diversity:.2f}")
        shown.add_row(row.name, str(row.nfe), *cells)
    return shown


def page(figures: dict[str, Any]) -> str:
    """All that was found, as Markdown beside the pictures."""
    least = Floor(**figures["floor"])
    lines = [
        "# One noise network on the digits, sampled in every way",
        "",
        f"`python {figures['command']}`, {figures['machine']}.",
        f"Fréchet distance from {N} real digits in an independent classifier's features; real against real: {least}.",
        "*class*: share of samples that this classifier assigns to the class asked for.",
        "*diversity*: spread within a class over that of real digits. ± is the standard deviation of a draw.",
    ]
    for name in PARTS:
        if name in figures:
            drawn = f"{FEW_DRAWS} draws of {FEW_N:,}" if name == "etas" else f"{DRAWS} draws of {N}"
            lines += [
                "",
                f"## {name}",
                "",
                f"{drawn}.",
                "",
                "| | NFE | Fréchet | class | diversity |",
                "|---|---|---|---|---|",
            ]
            for row in (Row(**row) for row in figures[name]):
                cells = (
                    row.name,
                    row.nfe,
                    f"{row.frechet:.4f} ± {row.std:.4f}",
                    f"{100 * row.accuracy:.1f} %",
                    f"{row.diversity:.2f}",
                )
                lines.append("| " + " | ".join(map(str, cells)) + " |")
            lines += ["", f"![{name}]({name}.png)"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/digits_diffusion"), help="folder for all that is written")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything")
    parser.add_argument("--effort", type=float, default=1.0, help="factor on the training steps")
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts alone; the others' figures stay")
    given = parser.parse_args()
    started, console = time.perf_counter(), Console(width=100)
    given.out.mkdir(parents=True, exist_ok=True)
    pipe = trained(given.out, given.seed, given.effort)
    everything, held = fm.build("dataset", "digits"), fm.build("dataset", "digits", split="test")
    judge = Judge(classifier(None, spawn_seed(given.seed, 3), given.effort), everything.x1, everything.labels)
    guide = classifier(pipe.path, spawn_seed(given.seed, 4), given.effort)
    pairs = [judge.drawn(spawn_seed(given.seed, 5, draw)) for draw in range(20)]
    least = Floor.of([judge.frechet(*pair) for pair in pairs], N)
    caption = (
        f"Fréchet distance from {N} real digits in the judge's features; real against real: {least}. "
        f"The judge is right on {100 * judge.accuracy(held.x1, held.labels):.1f} % of held-out digits."
    )
    kept = given.out / "figures.json"
    figures: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if given.only and kept.is_file() else {}
    figures |= {
        "command": f"benchmarks/digits_diffusion.py --seed {given.seed} --effort {given.effort}",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
        "floor": asdict(least),
    }
    parts = (
        lambda: solvers(pipe, judge, given.seed),
        lambda: etas(pipe, judge, given.seed),
        lambda: guidances(pipe, judge, guide, given.seed),
    )
    for name, run in zip(PARTS, parts, strict=True):
        if given.only and name not in given.only:
            continue
        rows, images = run()
        drawn = f"{FEW_DRAWS} draws of {FEW_N:,}" if name == "etas" else f"{DRAWS} draws of {N}"
        console.print(table(f"One network, {name}: {drawn}", rows, caption))
        picture(rows, images, given.out / f"{name}.png")
        figures[name] = [asdict(row) for row in rows]
        with replacing(kept, given.out / "README.md") as (temporary, readme):
            temporary.write_text(json.dumps(figures, indent=2), encoding="utf-8")
            readme.write_text(page(figures), encoding="utf-8")
    console.print(f"Done in {time.perf_counter() - started:.0f} s; all is in {given.out}.", highlight=False)


if __name__ == "__main__":
    main()
