"""Pictures: everything is on the page, labels keep apart, floors and fronts are where they belong."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from fm_core.bench.report.cells import cells
from fm_core.bench.report.charts import Chart, against_cost, scaling
from fm_core.bench.report.drawing import LINE, Drawing, draw
from fm_core.bench.report.paper import write_figure
from fm_core.bench.report.scales import log_span, spread, ticks


@given(st.lists(st.floats(0, 300), min_size=1, max_size=30))
def test_labels_keep_apart_in_order_and_within(wanted: list[float]) -> None:
    low, high, gap = 0.0, 300.0, 10.0
    places = spread(wanted, gap, low, high)
    assert all(low - 1e-6 <= place <= high + 1e-6 for place in places)
    order = sorted(range(len(wanted)), key=lambda i: places[i])
    assert all(places[b] - places[a] >= min(gap, high / (len(wanted) - 1)) - 1e-6 for a, b in itertools.pairwise(order))
    assert all(wanted[a] <= wanted[b] for a, b in itertools.pairwise(order))
    if all(abs(a - b) >= gap for a, b in itertools.combinations(wanted, 2)):
        assert places == pytest.approx(wanted)


@given(st.floats(1e-12, 1e9), st.floats(1.0, 1e15))
def test_ticks_are_few_and_within(low: float, ratio: float) -> None:
    span = log_span([low, low * ratio])
    found = ticks(span)
    assert len(found) <= 10
    assert all(span[0] <= tick <= span[1] for tick in found)
    assert len(found) >= 1


@pytest.fixture(scope="module")
def chart(synthetic) -> Chart:  # type: ignore[no-untyped-def]
    made = cells(synthetic.solver(problems={"ring": 1.0}, seeds=3))
    found = against_cost("ring", made, "nfe", "error_median", {"calibrated": 1, "auto": 2})
    assert found is not None
    return found


def test_front_contenders_are_loud_and_dominated_ones_are_not(chart: Chart) -> None:
    loud = {one.name for one in chart.series if one.loud}
    assert {"calibrated", "auto"} <= loud
    assert not loud & {"euler", "heun", "ddim", "diffusers Euler"}
    said = chart.told.split("the cheapest first: ")[1]
    calls = [float(one.split(" at NFE ")[1].split(";")[0].rstrip(".")) for one in said.split("; ")]
    assert calls == sorted(calls)
    assert said.startswith("calibrated: ")
    assert {one.name for one in chart.series if one.peer} == {
        "diffusers Euler",
        "diffusers DPM++2M",
        "diffusers UniPC-3",
    }


def inside(drawing: Drawing) -> bool:
    left, top, right, bottom = drawing.plot
    places = [mark.at for line in drawing.lines for mark in line.marks] + list(drawing.front)
    return all(left <= x <= right and top <= y <= bottom for x, y in places)


def test_everything_drawn_is_on_the_page(chart: Chart) -> None:
    drawing = draw(chart)
    assert inside(drawing)
    ranked = sorted(drawing.lines, key=lambda line: line.rank)
    assert [line.rank for line in ranked] == list(range(1, 12))
    for told in ([line.marks[-1].at[1] for line in ranked], [line.label.at[1] for line in ranked if line.label]):
        assert told == sorted(told), "from the top"
    assert labels_keep_apart(drawing)
    assert drawing.unlabelled == 0
    assert [text for _, text in drawing.x_ticks] == ["5", "8", "10", "15", "20", "30", "50"]


def labels_keep_apart(drawing: Drawing) -> bool:
    labels = [*(line.label for line in drawing.lines), *(label for _, label in drawing.floors)]
    heights = sorted(label.at[1] for label in labels if label is not None)
    return all(b - a >= LINE - 0.11 for a, b in itertools.pairwise(heights))


@pytest.mark.parametrize("many", [24, 25])
def test_all_are_labelled_where_there_is_room_for_all_and_else_the_loud(synthetic, many: int) -> None:  # type: ignore[no-untyped-def]
    made = [synthetic.made(f"solver_{i}", 1 + i / 100, 1.0) for i in range(many)]
    found = against_cost("p", cells(synthetic.solver(made, {"p": 1.0}, seeds=1, nfes=(5, 20))), "nfe", "error_rms", {})
    assert found is not None
    drawing = draw(found)
    loud = sum(line.loud for line in drawing.lines)
    assert 0 < loud < 5
    assert drawing.unlabelled == (0 if many == 24 else many - loud)
    assert labels_keep_apart(drawing)


def test_hundreds_of_contenders_keep_the_front_labelled(synthetic) -> None:  # type: ignore[no-untyped-def]
    many = [synthetic.made(f"solver_{i}", 1 + i / 100, 1.0) for i in range(300)]
    made = cells(synthetic.solver(many, {"p": 1.0}, seeds=1, nfes=(5, 20)))
    found = against_cost("p", made, "nfe", "error_median", {})
    assert found is not None
    drawing = draw(found)
    assert inside(drawing)
    labelled = {line.name for line in drawing.lines if line.label}
    assert labelled == {one.name for one in found.series if one.loud} != set()
    assert drawing.unlabelled == 300 - len(labelled) > 250


def test_a_floor_stretches_the_axis_only_where_it_is_near(synthetic) -> None:  # type: ignore[no-untyped-def]
    made = cells(synthetic.solver(problems={"p": 1.0}, seeds=1))
    near = against_cost("p", made, "nfe", "distance", {})
    far = against_cost("p", made, "nfe", "error_median", {})
    assert near is not None
    assert far is not None
    assert near.floors == (("floor of the distance", 0.08),)
    assert far.floors == (("error of the reference", 1e-9),)
    drawn = draw(near)
    assert drawn.floors[0][1].text == "floor of the distance 0.08"
    assert drawn.floors[0][1].at[0] > drawn.plot[2], "beside the picture, where it covers no line"
    assert labels_keep_apart(drawn)
    assert drawn.floors[0][0] < drawn.plot[3]
    assert draw(far).floors == ()


def test_one_that_explodes_flattens_no_other(synthetic) -> None:  # type: ignore[no-untyped-def]
    bad = synthetic.made("explodes", 1, 1e9)
    made = cells(synthetic.solver((*synthetic.solvers, bad), {"p": 1.0}))
    chart = against_cost("p", made, "nfe", "error_median", {})
    assert chart is not None
    loud = max(point.y for one in chart.series if one.loud for point in one.points)
    drawing = draw(chart)
    assert drawing.beyond == 7
    top = {line.name: [mark.at[1] for mark in line.marks] for line in drawing.lines}
    assert set(top["explodes"]) == {drawing.plot[1]}, "drawn at the edge"
    heights = [y for name, places in top.items() if name != "explodes" for y in places]
    assert max(heights) - min(heights) > 0.6 * (drawing.plot[3] - drawing.plot[1])
    assert loud < 100


def test_one_that_matters_alone_does_not_push_the_others_out_of_the_picture(synthetic) -> None:  # type: ignore[no-untyped-def]
    """All but one are dominated, by one without error: the lower half of the points is drawn where it belongs."""
    best = synthetic.made("best", 0, 1e-12)
    made = [synthetic.made(f"solver_{k}", 1 + k / 10, 1.0) for k in range(20)]
    chart = against_cost("p", cells(synthetic.solver((best, *made), {"p": 1.0})), "nfe", "error_median", {})
    assert chart is not None
    assert [one.name for one in chart.series if one.loud] == ["best"]
    drawing = draw(chart)
    edge = [mark for line in drawing.lines for mark in line.marks if mark.at[1] <= drawing.plot[1]]
    assert 0 < len(edge) <= drawing.beyond + 1 < sum(len(line.marks) for line in drawing.lines) / 2 + 1


def test_throughput_is_drawn_against_what_varies(synthetic) -> None:  # type: ignore[no-untyped-def]
    made = [cell for cell in cells(synthetic.other()) if cell.problem == "mlp, 2-D"]
    found = {chart.name: chart for chart in scaling("throughput", "mlp, 2-D", made, {})}
    assert set(found) == {"throughput-mlp-2-D-samples_per_s-batch", "throughput-mlp-2-D-memory_mb-batch"}
    speed = found["throughput-mlp-2-D-samples_per_s-batch"]
    assert [one.name for one in speed.series] == ["heun", "diffusers Heun"]
    assert [point.x for point in speed.series[0].points] == [1, 16, 256, 4096]


def test_files_for_papers_are_written_and_repeat_to_the_byte(chart: Chart, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_figure(draw(chart), tmp_path / "a")]
    svg, png = first
    assert png.startswith(b"\x89PNG")
    assert b"calibrated" in svg  # text stays text
    assert [path.read_bytes() for path in write_figure(draw(chart), tmp_path / "b")] == first
