"""The page holds all of the results, needs nothing but itself, and lets no name become markup."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import fm_core.bench.report.page as page
from fm_core.bench.records import RESULTS, Record, append
from fm_core.bench.report import write
from fm_core.errors import DataError

VOID = {"meta", "input", "img", "br"}


class Outline(HTMLParser):
    """Tags with their attributes, text by tag, and whether what was opened was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == name]


def written(folder: Path, lines: Iterable[Any]) -> Outline:
    append(folder, *lines)
    return Outline(write(folder).read_text(encoding="utf-8"))


def plain(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def folder(synthetic, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    out = tmp_path_factory.mktemp("bench")
    problems = {"8 gaussians, 2-D": 1.0, "64 modes, 32-D": 1.4}
    append(out, synthetic.run, *synthetic.solver(problems=problems), *synthetic.other())
    (out / "pictures").mkdir()
    (out / "pictures" / "moons_cfm.png").write_bytes(b"\x89PNG not really")
    (out / "pictures" / "way.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (out / "pictures" / "way.txt").write_text("Trajectories from noise to moons")
    (out / "pictures" / "notes.md").write_text("no picture")
    write(out)
    return out


@pytest.fixture(scope="module")
def outline(folder: Path) -> Outline:
    return Outline((folder / page.REPORT).read_text(encoding="utf-8"))


def test_the_answer_comes_first(outline: Outline) -> None:
    text = plain(outline.text)
    answer = text.index("5 to 15 calls: take calibrated")
    assert answer < text.index("20 to 50 calls: take") < text.index("Least median error for at most")
    assert "fm.calibrate(pipe, shape, nfe=min(nfe, 15))" in text[answer:]
    assert "no difference to" in text
    assert "Our best beside the best of other libraries: less error in" in text
    assert "Errors are against a reference that is right to 1e-9." in text


def test_every_record_is_a_row_with_its_status_and_reason(outline: Outline) -> None:
    text = plain(outline.text)
    assert "failed ValueError: <b>no</b> budget" in text
    assert "diverged not finite at t = 0.93" in text
    assert "skipped azula is not installed" in text
    assert "published 0.303 ± 0.043" in text
    assert "all with steps 20000, batch_size 512" in text
    assert "bench_combine[256]" in text


def test_ids_are_unique_and_links_lead_somewhere(outline: Outline, folder: Path) -> None:
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [str(attrs["href"]) for attrs in outline.all("a")]
    assert {target[1:] for target in targets if target.startswith("#")} <= set(ids)
    files = {target for target in targets if not target.startswith("#")}
    assert len(files) >= 12
    assert all((folder / target).is_file() for target in files)
    assert [str(attrs["aria-labelledby"]).split()[0] in ids for attrs in outline.all("svg")] == [True] * len(
        outline.all("svg")
    )


def test_nothing_is_fetched(folder: Path, outline: Outline) -> None:
    html = (folder / page.REPORT).read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", html)
    sources = [attrs.get("src") or attrs.get("srcset") for _, attrs in outline.tags if {"src", "srcset"} & attrs.keys()]
    assert sources
    assert all(str(source).startswith("data:") for source in sources)
    assert outline.all("link") == []


def test_pictures_are_within_with_their_texts(outline: Outline) -> None:
    told = {str(image["alt"]): str(image["src"]) for image in outline.all("img")}
    assert set(told) == {"moons cfm", "Trajectories from noise to moons"}
    assert told["moons cfm"] == "data:image/png;base64," + base64.b64encode(b"\x89PNG not really").decode()


def test_each_figure_says_how_to_repeat_it(outline: Outline) -> None:
    text = plain(outline.text)
    for said in (
        "fm bench solvers --out out/bench",
        "2 min 10 s",
        "processor Xeon",
        "torch 2.13.0",
        "0123456789ab",
        "seeds 0–4",
    ):
        assert said in text
    assert "are mixed" not in text


def test_those_on_the_front_are_told_first(folder: Path) -> None:
    html = (folder / page.REPORT).read_text(encoding="utf-8")
    table = html.split("<caption>Contenders on 8 gaussians, 2-D</caption>")[1].split("</table>")[0]
    said = [
        re.search(r"on the front|level with the front|dominated by|<td class=\"none\">", row)
        for row in table.split("<tr>")
    ]
    places = [found[0] for found in said if found]
    assert len(places) == 14
    assert [place for place, _ in itertools.groupby(places)] == ["on the front", "dominated by", '<td class="none">']


def test_names_are_text_and_never_markup(synthetic, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    evil = "<script>alert(1)</script>\"'--></style>]]>{{ 7*7 }}$\\frac$"
    run = evolve(
        synthetic.run, run=evil, command=evil, machine={evil: evil}, versions={evil: evil}, git={"commit": evil}
    )
    made = [synthetic.made(evil, 1, 1.0), synthetic.made("b" * 300, 2, 1.0, group=evil)]
    lines = [evolve(one, notes={"order": evil}) for one in synthetic.solver(made, {evil: 1.0}, seeds=2, run=evil)]
    bad = Record(
        evil, evil, evil, {evil: evil, "batch": 1}, 0, evil, "failed", evil, {evil: 1.0}, {"published": evil}, evil
    )
    outline = written(tmp_path, [run, *lines, bad])
    assert len(outline.all("script")) == len(outline.all("style")) == 1
    assert evil in outline.text
    assert not [name for _, attrs in outline.tags for name in attrs if name.startswith("on")]


def test_an_empty_file_and_bad_lines_are_told(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text('{"suite": "solv\n[1]\n')
    outline = Outline(write(tmp_path).read_text(encoding="utf-8"))
    assert "No results yet" in outline.text
    assert "2 lines of results.jsonl could not be read" in outline.text
    with pytest.raises(DataError, match="holds no"):
        write(tmp_path / "nowhere")


def test_rows_without_figures_make_a_page(tmp_path: Path) -> None:
    rows = [
        Record("solvers", "p", "a", {"nfe": 5}, 0, figures={"nfe": 5, "error_median": None, "sample_s": 0.1}),  # type: ignore[dict-item]
        Record("solvers", "p", "b", {"nfe": 5}, 0, status="skipped", why="not installed"),
        Record("methods", "p", "c", {}, 0, status="skipped", notes={"published": {"w2": 0.275}}),
        Record("throughput", "p", "d", {}, 0, status="failed"),
    ]
    text = plain(written(tmp_path, rows).text)
    assert "take" not in text
    assert "skipped not installed" in text
    assert "Of one run the file says neither machine nor command: unnamed." in text


@pytest.mark.parametrize("errors", [(1e308, 1e-300, 1e-3), (1e308, 1e308, 1e308), (1e-300, 1e-320, 1e308)])
def test_figures_at_the_ends_of_what_a_float_holds_make_a_page(tmp_path: Path, errors: tuple[float, ...]) -> None:
    """Their interval ends beyond it, at infinity."""
    rows = [
        Record("solvers", "p", name, {"nfe": n}, seed, figures={"nfe": n, "error_median": x, "sample_s": x})
        for name, n, figures in (("a", 5, errors), ("b", 5, (0.1, 0.2, 0.3)), ("a", 10, errors[::-1]))
        for seed, x in enumerate(figures)
    ]
    text = written(tmp_path, rows).text
    assert len(set(errors)) == 1 or "∞]" in text


def test_a_budget_beyond_all_numbers_is_none(tmp_path: Path) -> None:
    append(tmp_path, Record("solvers", "p", "a", {"nfe": 5}, 0, figures={"nfe": 5, "error_median": 1}))
    path = tmp_path / RESULTS
    path.write_text(path.read_text() + path.read_text().replace('{"nfe": 5}', '{"nfe": 1e400}'))
    assert "take a" in plain(Outline(write(tmp_path).read_text(encoding="utf-8")).text)


def test_names_that_are_no_text_make_a_page(tmp_path: Path) -> None:
    assert "saved(folder=b\\udcff)" in written(tmp_path, [Record("solvers", "saved(folder=b\udcff)", "a", {}, 0)]).text


def test_an_exact_contender_is_taken_though_no_logarithm_shows_it(synthetic, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    exact = [
        Record("solvers", "p", "exact", {"nfe": 5}, seed, figures={"nfe": 5, "error_median": 0.0, "sample_s": 1e-3})
        for seed in range(2)
    ]
    text = plain(written(tmp_path, [*exact, *synthetic.solver(problems={"p": 1.0}, seeds=2)]).text)
    assert "5 to 50 calls: take exact" in text
    assert "Error of exactly 0, not drawn: exact" in text


def test_stochastic_contenders_are_judged_by_the_law(tmp_path: Path) -> None:
    def row(name: str, seed: int, distance: float, **figures: float) -> Record:
        said = {"nfe": 5, "distance": distance, "floor": 0.1, **figures}
        return Record("solvers", "p", name, {"nfe": 5}, seed, figures=said)

    rows = [row("ddpm", seed, 0.2 + 0.01 * seed) for seed in range(3)]
    alone = plain(written(tmp_path / "alone", rows).text)
    assert "5 calls: take ddpm least distance to the truth" in alone
    both = [*rows, *(row("euler", seed, 0.5, error_median=0.3) for seed in range(3))]
    text = plain(written(tmp_path / "both", both).text)
    assert "5 calls: take euler least median error" in text
    assert "p: distance to the truth against NFE" in text


def test_an_order_is_a_promise_of_at_least(tmp_path: Path) -> None:
    def row(name: str, declared: float, order: float) -> Record:
        figures = {"order": order, "declared_order": declared}
        return Record("orders", "inside the linear path", name, {}, 0, figures=figures)

    outline = written(tmp_path, [row("heun", 2, 1.97), row("auto", 2, 4.7), row("wrong", 3, 1.02)])
    text = plain(outline.text)
    assert "2 of 3 solvers show at least the order that they declare;" in text
    assert "more than declared: auto (4.7, declared 2); less than declared: wrong (1, declared 3)." in text
    assert "auto24.7more than declared" in text
    flagged = [attrs for attrs in outline.all("td") if "diverged" in str(attrs.get("class"))]
    assert len(flagged) == 1, "the broken promise alone"


def test_an_interval_that_rounding_closes_is_not_told(tmp_path: Path) -> None:
    rows = [
        Record("solvers", "p", "a", {"nfe": 5}, seed, figures={"nfe": 5.0, "error_median": 0.3 + 1e-9 * seed})
        for seed in range(3)
    ]
    text = plain(written(tmp_path, rows).text)
    assert "[5, 5]" not in text
    assert "[0.3, 0.3]" not in text


def test_methods_are_compared_with_those_that_were_given_the_same(tmp_path: Path) -> None:
    def row(name: str, steps: int, w2: float) -> list[Record]:
        given = {"steps": steps, "batch": 9}
        return [Record("methods", "moons", name, given, s, figures={"w2": w2 + s / 1e2}) for s in range(3)]

    text = plain(written(tmp_path, [*row("short", 10, 2.0), *row("other", 10, 3.0), *row("long", 99, 1.0)]).text)
    assert "moons (steps 10) short 2.01 [" in text
    assert "moons (steps 99) long 1.01 [" in text
    assert "all with batch 9" in text


def test_mixed_machines_versions_and_code_are_flagged(synthetic, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = evolve(
        synthetic.run,
        run="2",
        machine={"processor": "Epyc"},
        versions={**synthetic.run.versions, "torch": "2.14"},
        git={"commit": "fff", "dirty": True},
    )
    few = {"problems": {"p": 1.0}, "seeds": 1, "nfes": (5, 10)}
    rows = [*synthetic.solver(synthetic.solvers[:2], **few), *synthetic.solver(synthetic.solvers[2:4], **few, run="2")]
    text = plain(written(tmp_path, [synthetic.run, other, *rows]).text)
    assert "Records of 2 machines are mixed; do not compare their times" in text
    assert "Records of several versions of torch are mixed: 2.13.0, 2.14." in text
    assert "Records of several states of the code are mixed: 0123456789ab, fff + changes." in text
    assert "versions of python" not in text
    assert text.index(": take ") < text.index("Records of 2 machines"), "the answer comes before the warnings"


def test_problems_of_like_names_keep_their_files_apart(synthetic, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = synthetic.solver(synthetic.solvers[:1], {"a b": 1.0, "a-b": 2.0, "A B": 3.0}, seeds=1, nfes=(5, 10))
    outline = written(tmp_path, rows)
    files = [str(attrs["href"]).lower() for attrs in outline.all("a") if str(attrs["href"]).endswith("png")]
    assert len(files) == len(set(files)) == 9


def test_a_failure_leaves_the_report_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / RESULTS).write_text("")
    (tmp_path / page.REPORT).write_text("before")

    def full(path: Path, text: str, **_: Any) -> None:
        path.write_bytes(text.encode()[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DataError, match=r"No space left on device\. The rows are there.*fm bench report"):
        write(tmp_path)
    assert (tmp_path / page.REPORT).read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {RESULTS, page.REPORT}


def colours() -> dict[str, tuple[str, str]]:
    """Light and dark of each variable of the style sheet."""
    sheet = (Path(page.__file__).parent / "templates" / "report.css").read_text()
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", sheet)
    return {name: (light, dark) for name, light, dark in found}


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize("dress", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(dress: int) -> None:
    """4.5 : 1 for text, success criterion 1.4.3. https://www.w3.org/TR/WCAG22/#contrast-minimum"""
    found = {name: pair[dress] for name, pair in colours().items()}
    texts = ["ink", "soft", "link", *(f"c{n}" for n in range(9))]
    pairs = [*itertools.product(texts, ("paper", "raised")), *itertools.product(("ink", "soft"), ("good", "alarm"))]
    for text, ground in pairs:
        light, dark = sorted((luminance(found[text]), luminance(found[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {ground}"


def test_the_files_for_papers_have_the_colours_of_the_page() -> None:
    from fm_core.bench.report.paper import COLOURS

    assert tuple(colours()[f"c{n}"][0] for n in range(len(COLOURS))) == COLOURS
