"""What a solver is asked to solve: a pipeline, source samples, and where the flow takes them.

A problem gives its *pipeline* (path, network, guidance; the contender's solver and grid are put in by `replace`) and
its *reference*: the ends of the flow from given source samples. The error of a contender on one trajectory is the root
mean square over the coordinates,

    e(x0) = ‖x̂ − x(1)‖ / √D,        x(1) = reference(x0, cond),

which needs no metric, no data and no trained judge. Distances between laws need draws of the law that the flow ends in,
`truth`, else ends from other source samples; they have a floor, and are all that a stochastic solver can be judged by.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from fm_core.errors import ArgumentError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fm_core.pipeline import Pipeline

__all__ = ["BenchProblem", "require_problem"]

_MEMBERS = ("title", "pipeline", "event_shape", "exact", "reference_error", "condition", "reference", "truth")


@runtime_checkable
class BenchProblem(Protocol):
    """A benchmark problem, a component of the kind `problem`.

    Attributes:
        title: One line for tables and reports.
        pipeline: Path, network and guidance, on which any solver and grid are put by `replace`.
        event_shape: Shape D of one state.
        exact: Whether the network is a closed form, and the reference therefore the truth to `reference_error`.
        reference_error: How far the reference may be from the flow's end, root mean square over the coordinates of the
            worst trajectory.

    It may have a `revision`, a string that tells it from others of its name, such as a digest of files: its rows are
    not taken for theirs.
    """

    @property
    def title(self) -> str: ...
    @property
    def pipeline(self) -> Pipeline: ...
    @property
    def event_shape(self) -> tuple[int, ...]: ...
    @property
    def exact(self) -> bool: ...
    @property
    def reference_error(self) -> float: ...

    def condition(self, n: int, generator: torch.Generator) -> Any:
        """Conditions of n samples, any pytree with the batch first; None where there are none."""
        ...

    def reference(self, x0: Tensor, cond: Any = None) -> Tensor:
        """Where the flow takes unscaled source samples x0 `(n, *D)`: its ends `(n, *D)`, float64."""
        ...

    def truth(self, n: int, generator: torch.Generator) -> Tensor | None:
        """n draws `(n, *D)` of the law that samples shall have; None where it is known as that of the ends alone."""
        ...


def require_problem(given: Any) -> BenchProblem:
    """The problem that is meant: what is misspelt in it is said before anything runs.

    Args:
        given: A problem, what one types of it, such as "modes_32d(path=vp)", or its configuration.

    Returns:
        The problem. One that trains a network builds at once, and trains when its pipeline is first asked for.

    Raises:
        UnknownNameError: For a problem, or a part in its options, that no plugin provides.
        OptionError: For options that it does not take.
        SavedFileError: For a folder without a pipeline.
        ArgumentError: For an object that is no problem.
    """
    from fm_core import registry

    problem: BenchProblem = registry.from_config("problem", given)
    lacking = [name for name in _MEMBERS if not _has(problem, name)]
    if lacking:
        raise ArgumentError(
            f"a problem is a name, such as 'modes_32d(path=vp)', or an object with {', '.join(_MEMBERS)}; "
            f"{type(problem).__name__} lacks {', '.join(lacking)}"
        )
    return problem


def _has(problem: object, name: str) -> bool:
    """Whether there is such an attribute, which is not computed for that: a pipeline may have to be trained."""
    try:
        inspect.getattr_static(problem, name)
    except AttributeError:
        return False
    return True
