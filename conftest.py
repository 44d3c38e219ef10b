"""What every test runs under: one thread, repeatable examples, and pages of documentation that are executed.

Every fenced block marked `python` in README.md and docs/ is a test. The blocks of a page share one namespace and run
in order, in a temporary directory of the page's own, so files that examples write vanish. Docstring examples are
pytest's own (`--doctest-modules`).
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import random
from collections.abc import Iterator

# Before torch is imported: a second thread makes tests' small networks slower, up to 20 times so beside another job.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

# CI repeats itself exactly; at home new examples are tried, and those that failed are kept in .hypothesis.
hypothesis.settings.register_profile(
    "ci", deadline=None, derandomize=True, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "home", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "home")

# A module of another library's solvers is imported, for its docstrings, where that library is.
collect_ignore = [
    f"fm_plugins/peers/{library}.py"
    for library in ("azula", "diffusers", "flow_matching", "torchcfm", "torchsde")
    if importlib.util.find_spec(library) is None
]

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"], fixtures=["page_directory"]).pytest()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for these tests alone: networks that were trained before would hide that they cannot be trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def page_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The working directory of one page's examples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        yield


@pytest.fixture
def global_rng_untouched() -> Iterator[None]:
    """Fails the test if it draws from, or seeds, a global generator of torch, numpy or Python."""
    import torch

    def states() -> dict[str, bytes]:
        return {
            "torch": torch.get_rng_state().numpy().tobytes(),
            "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002 - the global state is what is guarded
            "random": pickle.dumps(random.getstate()),
        }

    before = states()
    yield
    moved = [name for name, state in states().items() if state != before[name]]
    assert not moved, f"global generators moved: {', '.join(moved)}; draw from an explicit torch.Generator"
