"""Parts as one types them."""

from __future__ import annotations

import pytest

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
