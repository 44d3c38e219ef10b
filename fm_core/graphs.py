"""Functions given as text, each compiled as one graph.

There is no silent way back: a graph that breaks is an error, and so is one that is compiled again and again.

Where there is a GPU a graph is captured as a CUDA graph (`mode="reduce-overhead"`), on the main thread (before torch
2.13 others cannot) and without gradients. The memory of a capture is used again by the next one, so each call begins a
new iteration and its results are copied out. This part has not run on a GPU yet.

References:
    CUDA graph trees. https://docs.pytorch.org/docs/stable/torch.compiler_cudagraph_trees.html
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from attrs import field as attribute, frozen

from fm_core.errors import CompatError
from fm_core.shapes import map_tensors

__all__ = ["BACKEND", "Graph", "compiled", "refusal"]

BACKEND: str | Callable[..., Any] = "inductor"
"""What compiles."""

_WAYS = (
    "compile='network' compiles the network alone, compile=False nothing. What looks at the value of a tensor cannot "
    "be compiled (`if x.max() > 1`, `.item()`), nor what is another program at every call: a guidance that is told "
    "which samples of the batch it has (take chunk=None)"
)


@frozen(eq=False)
class Graph:
    """One compiled function. Its first call compiles, one thread at a time."""

    run: Callable[..., Any]
    captured: bool
    title: str
    _called: threading.Event = attribute(factory=threading.Event, init=False)
    _lock: threading.RLock = attribute(factory=threading.RLock, init=False)

    def __call__(self, *inputs: Any) -> Any:
        if self._called.is_set():
            return self._run(*inputs)
        with self._lock:
            outputs = self._run(*inputs)
        self._called.set()
        return outputs

    def _run(self, *inputs: Any) -> Any:
        if self.captured:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            outputs = self.run(*inputs)
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            why = " ".join(str(error).split("\n\n")[0].split())
            raise refusal(f"compile with {self.title}", f"it cannot be compiled as one graph: {why}", _WAYS) from error
        return map_tensors(torch.clone, outputs) if self.captured else outputs


def compiled(text: str, *, captured: bool, differentiated: bool) -> Callable[..., Any]:
    """The function of this text, compiled on its first call.

    It has a code object of its own: the compiler counts recompilations by code object, and gives up after eight.

    Args:
        text: One function.
        captured: Whether as a CUDA graph.
        differentiated: Whether derivatives may be asked of it. Such a graph is not kept on disk, where torch (2.13)
            does not tell a backward pass that overwrites what it reads from one that may run again: guidance that asks
            for several derivatives was given wrong ones, without an error.
    """
    scope: dict[str, Any] = {}
    exec(text, scope)  # text of this library's own, made of names and numbers
    function = next(value for name, value in scope.items() if name != "__builtins__")
    mode = "reduce-overhead" if captured else None
    options: dict[str, Any] | None = {"fx_graph_cache": False} if differentiated and BACKEND == "inductor" else None
    return torch.compile(function, fullgraph=True, dynamic=False, backend=BACKEND, mode=mode, options=options)


def refusal(what: str, why: str, fix: str) -> CompatError:
    """The error of what cannot be compiled."""
    from fm_core.compat import Problem

    return CompatError([Problem(what, why, fix)])
