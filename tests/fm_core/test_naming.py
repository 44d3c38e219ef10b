"""Parts as one types them."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as some

import fm_core as fm
from fm_core.errors import UnknownNameError
from fm_core.naming import label, parse, parse_pair
from fm_core.registry import OptionError, from_config, to_config


def test_parts_are_read_as_they_are_written() -> None:
    for text in ("heun", "unipc(order=3, shortcut=bh2)@shift(shift=0.5)", "single_step(nodes=[0.5])"):
        solver, grid = parse_pair(text)
        assert label(solver) + (f"@{label(grid)}" if grid else "") == text
    with pytest.raises(OptionError, match="option=value"):
        parse_pair("unipc(3)")
    with pytest.raises(OptionError, match="one grid"):
        parse_pair("heun@karras@uniform")
    for text in ("", "heun@", "@karras", " "):
        with pytest.raises(OptionError, match="solver@grid"):
            parse_pair(text)
    assert parse_pair("unipc(order=3,)")[0] == {"name": "unipc", "order": 3}


def test_what_is_typed_is_a_configuration_everywhere() -> None:
    built = from_config("solver", "unipc(order=2, shortcut=bh2)")
    assert to_config(built) == {"name": "unipc", "order": 2, "shortcut": "bh2"}
    pipe = fm.recipe("cfm", model="mlp(shape=2, width=8)", solver="dpm_solver_pp(order=3)", grid="karras(rho=5)")
    assert any(len(own) == 8 for own in pipe.model.net.parameters())
    assert label(pipe.solver) == "dpm_solver_pp(order=3)"
    assert pipe.sample((1, 2), nfe=4, seed=0).x.shape == (1, 2)


def test_what_is_mistyped_is_told_apart_from_what_nobody_provides() -> None:
    assert parse(" unipc (order=3) ") == {"name": "unipc", "order": 3}
    with pytest.raises(UnknownNameError, match="no such"):
        from_config("solver", "no such")
    with pytest.raises(UnknownNameError, match="did you mean 'unipc'"):
        from_config("solver", "unipq(order=3)")
    with pytest.raises(OptionError, match="a solver's grid is a part of its own"):
        from_config("solver", "heun@karras")
    with pytest.raises(OptionError, match="option=value"):
        from_config("solver", "unipc(3)")
    with pytest.raises(OptionError, match="a part is written"):
        from_config("solver", "unipc(order=3")


VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=6,
)


@given(some.dictionaries(some.sampled_from(["order", "at", "solver"]), VALUES))
def test_what_is_printed_reads_as_what_it_was(options: dict[str, object]) -> None:
    """Whatever the values: brackets, quotes, commas, and strings that look like numbers."""
    part = {"name": "zoo:x-1", **options}
    text = label(part)
    if "(…" not in text:
        assert parse(text) == part
        assert parse_pair(f"{text}@{text}") == (part, part)


@pytest.mark.parametrize(
    "text", ["x(name=y)", "x(kind=y)", "x(a=1, a=2)", "x(a=1)(b=2)", "x(a=1))", "x(a=(1)", "x(a=1) y"]
)
def test_what_reads_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        parse(text)


def test_options_are_given_once() -> None:
    assert to_config(fm.build("solver", "unipc(order=2)", shortcut="bh2")) == {
        "name": "unipc",
        "order": 2,
        "shortcut": "bh2",
    }
    with pytest.raises(OptionError, match="beside it: order"):
        fm.build("solver", "unipc(order=2)", order=3)
