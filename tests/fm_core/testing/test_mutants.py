"""The conformance kit is proven: every check fails what is wrong in its way, and passes what is right."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import pytest

from fm_core.hookspecs import KINDS
from fm_core.testing import Result, check, checks
from fm_core.testing.explaining import page
from fm_core.testing.mutants import MUTANTS, RIGHT, Mutant, table

DOCS = Path(__file__).parents[3] / "docs"


@functools.cache
def results_of(index: int) -> list[Result]:
    """What the kit finds of a right component."""
    return check(RIGHT[index])


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.kind}-{m.check}-{m.defect}".replace("/", "÷"))
def test_planted_defect_is_caught_by_the_check_named_for_it(mutant: Mutant) -> None:
    (result,) = check(mutant.component, only=[mutant.check])
    assert result.status == "FAIL", f"{mutant.defect}: {result.status}, {result.figure}, {result.why}"


@pytest.mark.parametrize("index", range(len(RIGHT)), ids=[component.key for component in RIGHT])
def test_right_component_fails_nothing(index: int) -> None:
    assert not [f"{r.check}: {r.why}" for r in results_of(index) if r.status == "FAIL"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_passes_some_right_component_and_fails_two_wrong_ones(kind: str) -> None:
    of_kind = [index for index, component in enumerate(RIGHT) if component.kind == kind]
    passed = {result.check for index in of_kind for result in results_of(index) if result.status == "PASS"}
    planted = Counter(mutant.check for mutant in MUTANTS if mutant.kind == kind)
    assert [name for name in checks(kind) if name not in passed] == []
    assert [name for name in checks(kind) if planted[name] < 2] == []


def test_every_skip_says_why() -> None:
    for index in range(len(RIGHT)):
        for result in results_of(index):
            assert result.status != "SKIP" or len(result.why) > 15, result


@pytest.mark.parametrize(("name", "made"), [("mutations", table), ("conformance", page)])
def test_pages_are_what_their_commands_print(name: str, made: object) -> None:
    assert callable(made)
    assert (DOCS / f"{name}.md").read_text() == made(), f"docs/{name}.md is not current; see its first lines"


def test_every_check_says_what_it_promises_and_where_to_read() -> None:
    headings = {line.removeprefix("### ") for line in page().splitlines() if line.startswith("### ")}
    for kind in KINDS:
        for of in checks(kind).values():
            assert of.promise.endswith((".", "…)")), of
            assert f"{kind}: {of.name.replace('_', ' ')}" in headings
            assert of.read == f"docs/conformance.md#{kind}-{of.name.replace('_', '-')}"


TRAPS = (
    "DPM-Solver's own file",
    "sde-dpmsolver++",
    "azula, REABSampler",
    "azula, DPSSampler",
    "azula, MMPS",
    "hackable_diffusion, aDDIM",
    "flow_matching, converters",
    "flow_matching, Riemannian solver",
    "flow_matching, VP scheduler",
    "TorchCFM, exact OT",
    "TorchCFM, Schrödinger bridge",
    "TorchCFM, TargetConditionalFlowMatcher",
    "flow-match Euler (issue 13243)",
    "DPM-Solver multistep with flow sigmas",
    "DDIM (issues 9261, 11347)",
    "meanings of η",
    "schedulers (issues 1606",
    "torchdiffeq",
    "guidance scales",
    "SiT (issue 23)",
)
"""The traps of published libraries that concern a kind of component, as the planted defects name them."""


@pytest.mark.parametrize("trap", TRAPS)
def test_trap_of_a_published_library_is_planted(trap: str) -> None:
    assert [mutant.defect for mutant in MUTANTS if trap in mutant.found]
