"""Pictures in a real browser: what is pointed at, by mouse or keys, comes forward and is told.

References:
    Listbox pattern of the ARIA authoring practices. https://www.w3.org/WAI/ARIA/apg/patterns/listbox/
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

CHART = "document.querySelector('svg.chart')"
DDIM = f"[...{CHART}.querySelectorAll('.series.quiet')].find(e => e.textContent.trim().startsWith('ddim: '))"
READOUT = f"{CHART}.closest('figure').querySelector('.readout').textContent"
FIRST = "auto"
"""The lowest at the right end of the front is met first."""
HINT = "Point at a line, or Tab here"
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "Escape": 27, "End": 35, "Home": 36, "ArrowUp": 38, "ArrowDown": 40}


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.press(key, KEYS[key], {"Enter": "\r", " ": " "}.get(key, ""))


def come(page: Any) -> None:
    """Into the first picture, by Tab from the region that holds it."""
    page.see(f"{CHART}.closest('figure').scrollIntoView({{block: 'center'}}); {CHART}.parentElement.focus()")
    press(page, "Tab")


def point(page: Any, x: float, y: float) -> None:
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)


def place(page: Any, name: str) -> list[float]:
    """A point of a contender's label."""
    label = f"[...{CHART}.querySelectorAll('.series .label')].find(e => e.textContent === '{name}')"
    return page.see(  # type: ignore[no-any-return]
        f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect(); "
        f"return [r.x + 5, r.y + r.height / 2]; }})({label})"
    )


def forward(page: Any) -> list[str]:
    """Names of the lines that are brought forward, in any picture."""
    told = page.see("[...document.querySelectorAll('svg.pointed .series.on > title')].map(t => t.textContent)")
    return [text.partition(": ")[0] for text in told]


def kept(page: Any) -> list[str]:
    told = page.see("[...document.querySelectorAll('[aria-selected=true] > title')].map(t => t.textContent)")
    return [text.partition(": ")[0] for text in told]


def test_pointing_at_a_line_brings_it_forward_and_tells_its_figures(page: Any) -> None:
    point(page, *place(page, "heun"))
    assert forward(page) == ["heun"]
    told = page.see(READOUT)
    assert told.startswith("heun: 0.1")
    assert told.count(" at NFE ") == 7
    point(page, 2, 2)
    assert page.see("document.querySelectorAll('.pointed, .on').length") == 0
    assert page.see(READOUT).startswith(HINT)


def test_a_thin_line_is_met_by_a_pointer_that_is_near(page: Any) -> None:
    page.see(f"{CHART}.scrollIntoView({{block: 'center'}})")
    x, y = page.see(
        f"(p => {{ const m = p.getScreenCTM(), q = p.getPointAtLength(p.getTotalLength() * .45).matrixTransform(m); "
        f"return [q.x, q.y - 3]; }})({DDIM}.querySelector('.line'))"
    )
    point(page, x, y)
    assert forward(page) == ["ddim"]
    point(page, 2, 2)


def test_coming_by_keys_shows_what_pointing_shows(page: Any) -> None:
    come(page)
    assert forward(page) == [FIRST]
    by_keys = page.see(f"{CHART}.outerHTML"), page.see(READOUT)
    page.see("document.activeElement.blur()")
    assert forward(page) == []
    point(page, *place(page, FIRST))
    assert (page.see(f"{CHART}.outerHTML"), page.see(READOUT)) == by_keys
    point(page, 2, 2)


def test_the_arrows_walk_through_all_lines_from_the_top(page: Any) -> None:
    come(page)
    press(page, "Home")
    met, heights = [], []
    for _ in range(12):
        (name,) = forward(page)
        assert page.see(READOUT).startswith(f"{name}: ")
        met.append(name)
        ends = "const b = document.activeElement.querySelectorAll('.mark'); return b[b.length - 1].getBBox()"
        heights.append(page.see(f"(() => {{ {ends}.y }})()"))
        press(page, "ArrowDown")
    count = page.see(f"{CHART}.querySelectorAll('.series').length")
    assert len(set(met)) == len(met) == count
    assert heights == pytest.approx(sorted(heights), abs=5), "within the size of a mark"
    assert forward(page) == met[-1:], "at the last one they stay"
    press(page, "ArrowUp")
    assert forward(page) == met[-2:-1]
    press(page, "Home", "End")
    assert forward(page) == met[-1:]
    press(page, "ArrowUp", "ArrowUp", "Tab")
    assert page.see("document.activeElement.textContent") == "SVG", "one stop for Tab"
    assert forward(page) == []
    page.press("Tab", 9, shift=True)
    assert forward(page) == met[-3:-2], "back to where one was"
    page.press("Tab", 9, shift=True)
    assert page.see(f"document.activeElement === {CHART}.parentElement")
    assert page.errors == []


def test_enter_space_and_a_click_keep_a_line_and_escape_lets_go(page: Any) -> None:
    come(page)
    for key in ("Enter", " "):
        press(page, key)
        assert kept(page) == [FIRST]
        press(page, "ArrowUp")
        (other,) = forward(page)
        assert other != FIRST
        press(page, "ArrowDown", "Tab")
        assert forward(page) == kept(page) == [FIRST], "kept when the focus has gone"
        page.see(f"{CHART}.querySelector('[tabindex=\"0\"]').focus()")
        press(page, key)
        assert kept(page) == []
    press(page, "Enter", "Escape")
    assert kept(page) == forward(page) == []
    assert page.see(READOUT).startswith(HINT)
    width = f"getComputedStyle({DDIM}.querySelector('.line')).strokeWidth"
    for state, thick in ((["ddim"], "3px"), ([], "1px")):
        x, y = place(page, "ddim")
        for kind in ("mousePressed", "mouseReleased"):
            page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        point(page, 2, 2)
        assert kept(page) == forward(page) == state
        point(page, *place(page, "heun"))
        assert forward(page) == ["heun"]
        assert page.see(width) == thick, "what is kept is held against another"
    assert page.errors == []


def test_a_picture_is_a_named_list_of_named_contenders(page: Any) -> None:
    come(page)
    press(page, "Enter")
    page.call("DOM.enable")
    page.call("Accessibility.enable")
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    chart = page.call("DOM.querySelector", nodeId=root, selector="svg.chart")["nodeId"]

    def of(role: str) -> list[dict[str, Any]]:
        found = page.call("Accessibility.queryAXTree", nodeId=chart, role=role)["nodes"]
        return [one for one in found if not one["ignored"]]

    (group,) = of("group")
    assert group["name"]["value"] == "8 gaussians, 2-D: median error against NFE"
    assert "On the Pareto front, the cheapest first: " in group["description"]["value"]
    (box,) = of("listbox")
    assert box["name"]["value"] == "Contenders, from the top"
    options = of("option")
    assert len(options) == 12
    assert all(option["name"]["value"].count(" at NFE ") == 7 for option in options)
    says = [{said["name"]: said["value"].get("value") for said in option["properties"]} for option in options]
    assert all(said["focusable"] for said in says)
    (chosen,) = (option for option, said in zip(options, says, strict=True) if said.get("selected"))
    assert chosen["name"]["value"].startswith(f"{FIRST}: ")
    assert [said.get("focused") for said in says].count(True) == 1
    assert of("image") == [], "the children of a picture would be hidden"
    page.call("Accessibility.disable")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_focus_is_seen(page: Any, scheme: str, labelled: bool) -> None:
    page.prefer(scheme)
    come(page)
    page.see("document.getAnimations().forEach(a => a.finish())")
    if not labelled:
        page.see("document.activeElement.querySelector('.label').remove()")
    ring = "document.activeElement" + (".querySelector('.label')" if labelled else "")
    box = page.see(f"(r => [r.x, r.y, r.width, r.height])({ring}.getBoundingClientRect())")
    colours = page.picture(box[0] - 6, box[1] - 6, box[2] + 12, box[3] + 12)
    wanted, paper = ((11, 92, 173), (255, 255, 255)) if scheme == "light" else ((138, 184, 255), (20, 23, 28))
    assert colours.get(wanted, 0) >= 1.5 * 2 * (box[2] + box[3]), "a frame of two pixels, less what is smoothed"
    page.see("document.activeElement.blur()")
    without = page.picture(box[0] - 6, box[1] - 6, box[2] + 12, box[3] + 12)
    assert without.get(wanted, 0) < colours[wanted] / 2
    assert max(without, key=without.__getitem__) == paper


def test_a_narrow_window_scrolls_to_the_name_that_has_the_focus(tab: Any, report: Path) -> None:
    tab.open(report, 360)
    come(tab)
    box = "e => (r => [r.left, r.right])(e.getBoundingClientRect())"
    left, right = tab.see(f"({box})(document.activeElement.querySelector('.label'))")
    start, end = tab.see(f"({box})({CHART}.parentElement)")
    assert start <= left < right <= end


def test_no_label_leaves_its_picture_or_covers_another(page: Any) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=2000, height=900, deviceScaleFactor=1, mobile=False)
    boxes = page.see(
        "[...document.querySelectorAll('svg.chart')].map(c => [...c.querySelectorAll('.label')].map(e => e.getBBox())"
        ".map(b => [b.x + b.width, b.y + b.height / 2]))"
    )
    assert len(boxes) == 5
    for labels in boxes:
        assert max(right for right, _ in labels) <= 710
        heights = sorted(middle for _, middle in labels)
        assert all(below - above >= 13 for above, below in itertools.pairwise(heights))
