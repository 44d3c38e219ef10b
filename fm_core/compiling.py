"""Compiled runs: whole blocks of steps, network included, each as one graph.

A small network costs less than calling it: a step of a 3 × 64 MLP at B = 1 is some twenty kernels, and Python, dispatch
and allocation around each. Compiling one step leaves the call of that step; a block of 32 shares one. Times, weights
and noise are arguments of the block, so a block is compiled once for its structure (`fm_core.blocks`), shape, dtype,
device, condition, and whether gradients are kept. The graphs stay with the pipeline.

What is drawn is drawn outside, by the same generators in the same order, so a compiled run gives the samples of an
eager one up to rounding. Gradient guidance differentiates while it samples, which a graph cannot: there, and with
`compile="network"`, the network alone is compiled, and the rows run as ever.

References:
    Ansel et al. 2024, PyTorch 2. https://doi.org/10.1145/3620665.3640366
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
import torch._functorch.config as functorch
from attrs import field as attribute, frozen
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from fm_core.blocks import Block, blocks
from fm_core.building import name_of
from fm_core.executing import OnNoise
from fm_core.field import Field
from fm_core.graphs import Graph, compiled, refusal
from fm_core.plan import Plan
from fm_core.protocols import OnStep, VectorFieldModel, declared
from fm_core.randomness import normal
from fm_core.shapes import tensors_of, time_dtype

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["Compiler", "compiler_of"]

MOST_STEPS = 32
"""Steps of a block: twice as many save less than a hundredth of a run, and cost twice the compiling."""

MOST_OPERATIONS = 640
"""Operations of a block: compiling takes longer than in proportion, and a large network gains nothing from more."""


@frozen(eq=False)
class Compiler:
    """The compiled blocks of one pipeline, and of one network.

    Args:
        whole: Whether blocks of steps are compiled, rather than the network alone.
        title: The network as messages name it.
    """

    whole: bool
    title: str
    _graphs: dict[Hashable, Graph] = attribute(factory=dict, init=False, repr=False)
    _tables: WeakIdKeyDictionary = attribute(factory=WeakIdKeyDictionary, init=False, repr=False)
    _lock: threading.RLock = attribute(factory=threading.RLock, init=False, repr=False)

    def network(self, model: VectorFieldModel) -> VectorFieldModel:
        """The model, its network compiled for itself."""
        return model if self.whole else _Compiled(model, self)

    def running(self) -> contextlib.AbstractContextManager[object]:
        """What runs are made in: guidance asks for several derivatives of one call of a network compiled for itself,
        so its backward pass must leave what it reads as it is.
        """
        return contextlib.nullcontext() if self.whole else functorch.patch(donated_buffer=False)

    def execute(
        self,
        plan: Plan,
        field: Field,
        x: Tensor,
        *,
        cond: Any = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
        on_noise: OnNoise | None = None,
    ) -> Tensor:
        """Runs a plan block by block; see `fm_core.executing.execute`.

        Raises:
            CompatError: If the network, the path or a guidance cannot be compiled.
        """
        kind = _kind(x, cond)
        table = self._table(plan, field, x, cond, kind, watched=on_step is not None or on_noise is not None)
        held, shape, dtype, device = {0: x}, x.shape, x.dtype, x.device
        if on_step:
            on_step(plan.t0, x)
        del x
        for block, clock, weights in table:
            noises = [normal(shape, generator=generator, dtype=dtype, device=device) for _ in block.noisy]
            graph = self.graph(block.text, kind, device)
            given = [held[index] for index in block.given]
            made = dict(zip(block.made, _counted(field, graph, cond, (plan.space,), clock, weights, noises, *given)))
            if on_step or on_noise:
                _tell(plan, block, made, noises, on_step, on_noise)
            held = {index: made[index] if index in made else held[index] for index in block.kept}
        return held[len(plan.rows)]

    def _table(
        self, plan: Plan, field: Field, x: Tensor, cond: Any, kind: Hashable, *, watched: bool
    ) -> list[tuple[Block, Tensor, Tensor]]:
        """The blocks of a plan, with their times and weights as tensors."""
        with self._lock:
            tables = self._tables.setdefault(plan, {})  # type: ignore[no-untyped-call]
            if (kind, watched) not in tables:
                cut = blocks(plan, _most_steps(plan, field, x, cond), watched=watched)
                dtype, device = time_dtype(x.dtype), x.device
                with torch.inference_mode(False):  # they outlive this run, and may meet gradients in another
                    clocks = [torch.tensor(block.clock, dtype=dtype, device=device) for block in cut]
                    weights = [torch.tensor(block.weights, dtype=dtype, device=device) for block in cut]
                tables[kind, watched] = list(zip(cut, clocks, weights))
            return tables[kind, watched]  # type: ignore[no-any-return]

    def graph(self, text: str, kind: Hashable, device: torch.device) -> Graph:
        """The compiled function of this text, for inputs of one kind."""
        main = threading.current_thread() is threading.main_thread()
        differentiated = torch.is_grad_enabled()
        captured = device.type == "cuda" and main and not differentiated
        with self._lock:
            key = (text, kind, captured)
            if key not in self._graphs:
                run = compiled(text, captured=captured, differentiated=differentiated)
                self._graphs[key] = Graph(run, captured, self.title)
            return self._graphs[key]


def compiler_of(pipeline: Pipeline, field: Field, plan: Plan | None, compile: bool | str, *, grad: bool) -> Compiler:
    """The compiler of a pipeline, with all that it has compiled before.

    Args:
        pipeline: Pipeline whose graphs are kept.
        field: Its field, with its guidances.
        plan: The table that is to be run, or None for a solver that is no table.
        compile: True for blocks of steps, "network" for the network alone.
        grad: Whether the run keeps gradients.

    Raises:
        CompatError: For blocks without a table, or gradients of what is itself made of gradients.
    """
    if plan is None and compile is True:
        raise refusal(
            f"compile=True with the solver {name_of(pipeline.solver)!r}",
            "it is no table: its steps are not known before the network is asked, so there is no block to compile",
            "compile='network' compiles the network alone; a table is one of solver='heun', 'adams_pc', …",
        )
    differentiates = any(declared(guidance, "layer") == 1 for guidance in field.guidances)
    if differentiates and grad:
        raise refusal(
            "compile and grad=True with guidance that differentiates",
            "its gradients would be differentiated again, and compiled graphs have first derivatives only",
            "leave out one of the three",
        )
    whole = compile is True and not differentiates
    with _LOCK:
        kept = _COMPILERS.setdefault(pipeline, {})
        if whole not in kept:
            kept[whole] = Compiler(whole, name_of(getattr(pipeline.model, "net", pipeline.model)))
        return kept[whole]


_COMPILERS: WeakKeyDictionary[Pipeline, dict[bool, Compiler]] = WeakKeyDictionary()
_LOCK = threading.Lock()


@frozen(eq=False)
class _Compiled:
    """A model whose network is compiled for itself."""

    model: VectorFieldModel
    compiler: Compiler

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Any:
        kind = (x_t.requires_grad, *_kind(x_t, cond))
        return self.compiler.graph(_NETWORK, kind, x_t.device)(self.model, x_t, t, cond)


_NETWORK = "def network(model, x_t, t, cond):\n    return model(x_t, t, cond)\n"


def _kind(x: Tensor, cond: Any) -> tuple[Hashable, ...]:
    """What a graph is specialised to, so that none is ever compiled for another kind."""
    form = tuple((tensor.shape, tensor.dtype, tensor.requires_grad) for tensor in tensors_of(cond))
    modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    return x.shape, x.dtype, x.device, form, *modes


def _counted(field: Field, graph: Graph, *inputs: Any) -> Any:
    """What a graph gives, its network calls added to those of the field.

    The count starts from zero at every call: it is a number of the traced program, which is compiled for one value.
    """
    counter = field.beside(field.model)._calls
    before, counter[0] = counter[0], 0
    try:
        return graph(field, *inputs)
    finally:
        counter[0] += before


def _tell(
    plan: Plan,
    block: Block,
    made: dict[int, Tensor],
    noises: Sequence[Tensor],
    on_step: OnStep | None,
    on_noise: OnNoise | None,
) -> None:
    """Tells of a block's states what the executor would have told as it made them."""
    drawn = dict(zip(block.noisy, noises))
    for index in block.seen:
        row, state = plan.rows[index - 1], made[index]
        if on_noise and row.noise:
            on_noise(index - 1, state, drawn[index - 1])
        if on_step and row.accepted:
            on_step(row.t, state)


def _most_steps(plan: Plan, field: Field, x: Tensor, cond: Any) -> int:
    """Steps of a block, from the operations of one prediction, which is asked for here and thrown away."""
    trial = Field(field.model, field.path, field.guidances)
    t = x.new_full((len(x),), plan.t0, dtype=time_dtype(x.dtype))
    operations = _Counting()
    with operations:
        trial.ask(x, t, cond, (plan.space,), t)
    calls = -(-plan.nfe // (len(plan.times) - 1))
    return max(1, min(MOST_STEPS, MOST_OPERATIONS // (calls * max(1, operations.count))))


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that reach the kernels."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))
