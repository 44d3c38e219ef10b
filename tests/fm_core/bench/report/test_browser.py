"""The page in a real browser, headless Chromium: its tables, its dress, its widths, by mouse and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TABLE = "document.querySelector('#table-solvers table')"


def heading(label: str) -> str:
    return f"[...{TABLE}.querySelectorAll('th button')].find(b => b.textContent === '{label}')"


def column(page: Any, label: str, of: str = "dataset.sort") -> list[str]:
    """A column of the rows to be seen, from the top."""
    at = f"[...{TABLE}.querySelectorAll('thead th')].findIndex(h => h.textContent === '{label}')"
    rows = f"[...{TABLE}.tBodies[0].rows].filter(r => !r.hidden)"
    return page.see(f"{rows}.map(r => r.cells[{at}].{of})")  # type: ignore[no-any-return]


def sorted_by(page: Any, label: str) -> str | None:
    return page.see(f"{heading(label)}.closest('th').getAttribute('aria-sort')")  # type: ignore[no-any-return]


def test_a_click_on_a_heading_sorts_up_then_down_and_gaps_stay_last(page: Any) -> None:
    before = column(page, "median error")
    page.click(heading("median error"))
    up = column(page, "median error")
    numbers = [float(value) for value in up if value]
    assert up != before
    assert numbers == sorted(numbers)
    assert up.index("") == len(numbers) < len(up)
    assert sorted_by(page, "median error") == "ascending"
    page.click(heading("median error"))
    down = column(page, "median error")
    assert [float(value) for value in down if value] == numbers[::-1]
    assert down[len(numbers) :] == [""] * (len(down) - len(numbers))
    assert sorted_by(page, "median error") == "descending"
    page.click(heading("contender"))
    names = column(page, "contender")
    assert names[0].startswith("a_name_without")
    assert names[-1] == "rk4"
    assert sorted_by(page, "median error") is None
    assert page.errors == []


def test_the_keyboard_alone_filters_and_sorts(page: Any) -> None:
    page.see("document.querySelector('#table-solvers input').focus()")
    page.call("Input.insertText", text="diffusers UNIPC")
    assert set(column(page, "contender", "innerText")) == {"diffusers UniPC-3"}
    assert page.see("document.querySelector('#table-solvers output').textContent") == "7 of 87 rows"
    shown = column(page, "NFE asked")
    assert shown == ["5", "8", "10", "15", "20", "30", "50"]
    for _ in range(5):  # the region that scrolls, then the headings up to "NFE asked"
        page.press("Tab", 9)
    assert page.see(f"document.activeElement === {heading('NFE asked')}")
    page.press("Enter", 13, "\r")
    page.press(" ", 32, " ")
    assert column(page, "NFE asked") == shown[::-1]
    assert sorted_by(page, "NFE asked") == "descending"
    page.see("document.querySelector('#table-solvers input').select()")
    page.press("Backspace", 8)
    assert len(column(page, "contender")) == 87
    assert page.errors == []


def test_light_and_dark_follow_the_system_until_the_reader_chooses(page: Any) -> None:
    light = page.brightness()
    page.prefer("dark")
    dark = page.brightness()
    assert light > 0.85
    assert dark < 0.25
    page.click("document.getElementById('theme')")
    assert page.brightness() == pytest.approx(light, abs=0.02)
    page.prefer("light")
    page.click("document.getElementById('theme')")
    assert page.brightness() == pytest.approx(dark, abs=0.02)
    page.see("localStorage.clear()")
    assert page.errors == []


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_is_never_wider_than_the_window(tab: Any, report: Path, width: int) -> None:
    tab.open(report, width)
    assert tab.see("document.documentElement.scrollWidth") <= width


def test_without_scripts_the_tables_are_all_there(tab: Any, report: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(report)
        tab.call("DOM.enable")
        root = tab.call("DOM.getDocument")["root"]["nodeId"]

        def count(selector: str) -> int:
            return len(tab.call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"])

        assert count("#table-solvers tbody tr") == 87
        assert count("th button") == 0
        assert count("#theme[hidden], .filter[hidden]") == 5
        assert count("svg.chart[role=img]") == count(".readout[hidden]") == count("svg.chart") == 5
        assert count("svg [tabindex], svg [role]") == 0
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_nothing_but_the_file_is_asked_for(page: Any, report: Path) -> None:
    assert page.see("document.title") == "Benchmark report"
    assert {url for url in page.requests if not url.startswith("data:")} == {report.as_uri()}
    assert page.errors == []
