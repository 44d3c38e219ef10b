"""The conformance kit of fm-core proves every component of this package; the package must be installed."""

from __future__ import annotations

from fm_core.testing import Result, parametrize_plugin


@parametrize_plugin("my_plugin")
def test_every_component_is_right(result: Result) -> None:
    assert result.status != "FAIL", f"{result.component}: {result.check}: {result.why} (see {result.read})"
