"""Whatever a suite writes in these tests, the report knows what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fm_core.bench import running
from fm_core.bench.records import Record, Run, append
from fm_core.bench.report.quantities import known

SUITES = {"solvers", "orders", "methods", "throughput"}
"""Those of the library; the micro-benchmarks note what they like."""


@pytest.fixture(autouse=True)
def the_report_knows_every_figure(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Collects the names of all figures that the suites write, each test's, and looks them up."""
    written: set[tuple[str, str]] = set()

    def noted(folder: Path, *lines: Run | Record) -> None:
        written.update((one.suite, name) for one in lines if isinstance(one, Record) for name in one.figures)
        append(folder, *lines)

    monkeypatch.setattr(running, "append", noted)
    yield
    assert {(suite, name) for suite, name in written if suite in SUITES and not known(name)} == set()
