"""The page on which every check is explained: docs/conformance.md."""

from __future__ import annotations

import inspect

from fm_core.hookspecs import KINDS
from fm_core.testing.kit import Check
from fm_core.testing.running import checks

__all__ = ["page"]

_HEAD = """# The conformance kit

A check is a property that every right component of a kind has. It measures on closed forms: schedules, Gaussians and
their mixtures, polynomials; so a component that passes says by how much. Inputs that vary are drawn by hypothesis,
always the same ones, and a failure shows the simplest input that it found.

    fm check my_plugin                    every component of a plugin: one line a check, exit code 1 if one fails
    fm check flow-zoo:my_plugin           the same, where several distributions have a plugin of this name
    fm check solver/heun --json           one JSON object a line: component, plugin, check, status, figure, why
    fm check --all                        every component of every plugin

```python
from fm_core.testing import check

results = check("solver/heun", only=["local_order", "inversion"])
assert all(result.status == "PASS" for result in results)
```

In a plugin's own tests, once for every check of every component:

```python
from fm_core.testing import Result, parametrize_plugin


@parametrize_plugin("runge_kutta")
def test_conformance(result: Result) -> None:
    assert result.status != "FAIL", result.why
```

A check gives PASS, FAIL, or SKIP with the reason why it does not apply; one that raises is a FAIL. A component is built
with the options of its `example`. What is known to fail is declared where the component is, with the reason:

```python
from fm_core import Component

Component(
    "solver",
    "rough",
    "my_package.rough:Rough",
    expected_failures={"inversion": "it looks at the sign of the step and refuses to go back"},
)
```

It is then a SKIP, and a FAIL as soon as it passes. Some checks go by what options are called in the literature: `eta`,
`level`, `s_churn` or `tau` for a solver's noise, `scale` for a guidance's strength, `shift` for a grid's, `classifier`,
and `y`, `operator`, `noise` for a measurement. Networks and guidances say which states they take by `shape`; metrics
may say `symmetric = False` or `unbiased = True`, and those that are called with other things than two sets of samples
`of_samples = False`. What each check catches is proven by [planted defects](mutations.md).

This page is printed by `python -m fm_core.testing.explaining`.
"""


def page() -> str:
    """The page as Markdown: one heading for each check of each kind."""
    parts = [_HEAD]
    for kind in KINDS:
        parts.append(f"## {kind}\n")
        parts += [_entry(of) for of in checks(kind).values()]
    return "\n".join(parts)


def _entry(of: Check) -> str:
    rest = inspect.cleandoc(of.run.__doc__ or "").partition("\n\n")[2]
    body = f"{of.promise}\n" + (f"\n{rest}\n" if rest else "")
    return f"### {of.kind}: {of.name.replace('_', ' ')}\n\n{body}"


if __name__ == "__main__":
    print(page(), end="")
