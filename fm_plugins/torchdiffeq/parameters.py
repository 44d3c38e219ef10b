"""What an adjoint solve differentiates: it must know every parameter beforehand, and forgets the others in silence.

So they are found twice: as the parameters of all modules that the field is made of, and as the leaves of the graph of
one prediction, which also sees what none of these owns (a condition computed by an encoder, tensors in a closure).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import attrs
from torch import Tensor, nn

from fm_core.field import Field

__all__ = ["trainable"]


def trainable(field: Field, velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> tuple[Tensor, ...]:
    """All tensors besides x that a field's velocity may depend on and that require gradients, each once.

    Args:
        field: The field, whose model and guidances are searched for modules.
        velocity: `u(t, x)`, called once.
        x: States, shape `(B, *D)`.

    Raises:
        ValueError: If the field's model holds no module.
    """
    modules = list(_modules(field, set()))
    if not any(isinstance(part, nn.Module) for part in _modules(field.model, set())):
        raise ValueError(
            "adjoint=True needs the network's parameters, and this field's model holds no torch.nn.Module: "
            "give the network as a module, fm.Model(module, predicts=…), or use adjoint=False"
        )
    owned = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    seen = _leaves(velocity(x.new_zeros(()), x.detach()))
    return tuple({id(tensor): tensor for tensor in (*owned, *seen)}.values())


def _modules(part: Any, seen: set[int]) -> Iterator[nn.Module]:
    """The modules that an object is made of, through attributes, tuples, lists and dictionaries."""
    if id(part) in seen or isinstance(part, str | bytes | Tensor | type | ModuleType | FunctionType):
        return
    seen.add(id(part))
    if isinstance(part, nn.Module):
        yield part
        return
    inside = list(part) if isinstance(part, list | tuple) else list(part.values()) if isinstance(part, dict) else []
    inside += getattr(part, "__dict__", {}).values()
    if attrs.has(type(part)):
        inside += [getattr(part, attribute.name) for attribute in attrs.fields(type(part))]
    if hasattr(part, "__self__"):  # a bound method
        inside.append(part.__self__)
    for one in inside:
        yield from _modules(one, seen)


def _leaves(output: Tensor) -> list[Tensor]:
    """The leaf tensors that an output was computed from and that require gradients."""
    nodes, done, leaves = [output.grad_fn], set(), []
    while nodes:
        node = nodes.pop()
        if node is None or node in done:
            continue
        done.add(node)
        leaf = getattr(node, "variable", None)
        leaves += [leaf] if isinstance(leaf, Tensor) else []
        nodes += [parent for parent, _ in node.next_functions]
    return leaves
