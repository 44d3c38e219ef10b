"""What every network keeps: shapes, times and conditions that belong to their samples, and no trace of the batch.

A network is built with its example's options. Which states and conditions it takes is read off it: `shape`, the event
shape D; `classes`, for labels; `cond_dim`, for vectors. Without a `shape` some are tried, of which it must take
one. One that returns something else than a prediction (a classifier's logits) says so by `returns`, the shape of one
answer. Of networks of more than 20 M weights the shapes alone are examined, on PyTorch's meta device.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from fm_core.discovery import brief
from fm_core.field import Model
from fm_core.randomness import make_generator
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.traces import global_randomness

__all__: list[str] = []

LARGE = 20_000_000
TRIED = ((2,), (1, 8, 8), (3, 32, 32))
"""Event shapes that are tried with a network that names none."""


@frozen
class Network:
    """A network under examination.

    Args:
        call: What is asked: the module, or the model around it.
        module: What has the weights; None for a plain function.
        event: Event shape of its states.
        returns: Shape of one answer, which may have other leading channels where it is the event's.
        classes, cond_dim: What conditions it takes, 0 for none.
    """

    call: Any
    module: nn.Module | None
    event: tuple[int, ...]
    returns: tuple[int, ...]
    classes: int
    cond_dim: int

    def inputs(self, n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Any, ...]:
        """States, times and, where it takes one, a condition."""
        generator = make_generator(4)
        x = torch.randn(n, *self.event, generator=generator).to(device, dtype)
        t = torch.rand(n, generator=generator).to(device, dtype)
        if self.classes:
            return x, t, torch.randint(self.classes, (n,), generator=generator).to(device)
        return (x, t, torch.randn(n, self.cond_dim, generator=generator).to(device, dtype)) if self.cond_dim else (x, t)

    def ask(self, *inputs: Any) -> Tensor:
        """Its answer, the first of several, without gradients."""
        with torch.no_grad():
            return _first(self.call(*inputs))


def _first(output: Any) -> Tensor:
    first: Tensor = output[0] if isinstance(output, tuple | list) else output
    return first


def _network(subject: Subject, device: str = "cpu") -> Network:
    """The network, its silent outputs woken: networks begin at zero, where nothing could be seen."""
    if device == "cpu" and (size := _size(subject)) > LARGE:
        raise Skipped(f"it has {size / 1e6:.0f} M weights, too many to compute with here: its shapes alone are checked")
    with torch.device(device):
        call: Any = subject.build()
    inner = call.net if isinstance(call, Model) else call
    module = inner if isinstance(inner, nn.Module) else None
    if module is not None:
        module.eval()
        _wake(module)
    answer = getattr(inner, "returns", None)
    conditions = [0 if answer else int(getattr(inner, name, None) or 0) for name in ("classes", "cond_dim")]
    shape = getattr(inner, "shape", None)
    if shape is not None:
        event = (shape,) if isinstance(shape, int) else tuple(shape)
        return Network(call, module, event, tuple(answer or event), *conditions)
    return _taking(
        *(Network(call, module, event, tuple(answer or event), *conditions) for event in TRIED), device=device
    )


def _taking(*networks: Network, device: str) -> Network:
    """The first of them that answers."""
    why = ""
    for network in networks:
        try:
            network.ask(*network.inputs(2, device=device))
        except Exception as error:
            why = brief(error)
        else:
            return network
    raise Failed(
        f"it takes no states of {', '.join(str(network.event) for network in networks)}; the last error: {why}. If "
        "it is right, declare `shape`, the event shape of its states, and `classes` or `cond_dim` for a condition"
    )


def _wake(module: nn.Module) -> None:
    generator = make_generator(9)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.device.type != "meta":
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * 0.05)


def _size(subject: Subject) -> int:
    """How many weights it has, found without making them; 0 where it cannot be built so."""
    try:
        with torch.device("meta"):
            built: Any = subject.build()
    except Exception:
        return 0
    inner = built.net if isinstance(built, Model) else built
    return sum(parameter.numel() for parameter in inner.parameters()) if isinstance(inner, nn.Module) else 0


def _double(subject: Subject) -> Network:
    network = _network(subject)
    if network.module is not None:
        network.module.double()
    return network


@check_of("model")
def shapes(subject: Subject) -> None:
    """`(B, *D)` states and `(B,)` times give `(B, *D)`, also for B = 1, finite and of the state's dtype."""
    device = "meta" if _size(subject) > LARGE else "cpu"
    network = _network(subject, device)
    for n in (1, 2, 5):
        inputs = network.inputs(n, device=device)
        output, expected = network.ask(*inputs), (n, *network.returns)
        learned_variance = len(network.event) == 3 and output.shape[2:] == torch.Size(expected[2:])
        if tuple(output.shape) != expected and not learned_variance:
            raise Failed(f"states {tuple(inputs[0].shape)} gave {tuple(output.shape)}; expected {expected}")
        if output.dtype != inputs[0].dtype:
            raise Failed(f"the output is of {output.dtype} for states of {inputs[0].dtype}")
        if device == "cpu" and not bool(output.isfinite().all()):
            raise Failed("the output is not finite")


@check_of("model")
def samples_are_independent(subject: Subject) -> float:
    """A sample alone gives what it gives in its batch: nothing leaks across the batch (no batch norm in evaluation)."""
    network = _double(subject)
    inputs = network.inputs(5, torch.float64)
    whole = network.ask(*inputs)
    alone = torch.cat([network.ask(*(value[i : i + 1] for value in inputs)) for i in range(5)])
    return at_most(float((alone - whole).abs().max() / (1 + whole.abs().max())), 1e-9, "alone, a sample differs by")


@check_of("model")
def time_belongs_to_the_sample(subject: Subject) -> float:
    """Every sample is answered at its own time: changing one time changes that sample and no other."""
    network = _double(subject)
    if network.module is None:
        raise Skipped("it is a plain function, with no weights by which the time could matter")
    x, t, *cond = network.inputs(4, torch.float64)
    other = t.clone()
    other[1] = (other[1] + 0.4) % 1
    change = (network.ask(x, t, *cond) - network.ask(x, other, *cond)).abs().flatten(1).amax(1)
    if float(change[1]) == 0:
        raise Failed("the time of a sample does not matter to it", 0.0)
    return at_most(float(change[[0, 2, 3]].max()), 1e-9, "the time of one sample moves another by")


@check_of("model")
def condition_belongs_to_the_sample(subject: Subject) -> float:
    """Changing the condition of one sample changes that sample and no other."""
    network = _double(subject)
    inputs = network.inputs(4, torch.float64)
    if len(inputs) < 3:
        raise Skipped("its example takes no condition")
    x, t, cond = inputs
    other = cond.clone()
    other[1] = other[1] + 1 if cond.is_floating_point() else (other[1] + 1) % network.classes
    change = (network.ask(x, t, cond) - network.ask(x, t, other)).abs().flatten(1).amax(1)
    if float(change[1]) == 0:
        raise Failed("the condition of a sample does not matter to it", 0.0)
    return at_most(float(change[[0, 2, 3]].max()), 1e-9, "the condition of one sample moves another by")


@check_of("model")
def deterministic_in_evaluation(subject: Subject) -> None:
    """In evaluation mode equal inputs give equal outputs, and no global random state is touched."""
    network = _network(subject)
    inputs = network.inputs(3)
    global_randomness(lambda: network.ask(*inputs))
    if not torch.equal(network.ask(*inputs), network.ask(*inputs)):
        raise Failed("two calls in evaluation mode differ")


@check_of("model")
def gradients_reach_every_weight(subject: Subject) -> None:
    """Every parameter that requires a gradient gets one, and it is finite."""
    network = _network(subject)
    if network.module is None:
        raise Skipped("it is a plain function, without weights")
    network.module.train()
    _first(network.call(*network.inputs(4))).square().sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.module.named_parameters():
        if parameter.requires_grad and (parameter.grad is None or not bool(parameter.grad.isfinite().all())):
            raise Failed(f"the parameter {name} gets {'no' if parameter.grad is None else 'an infinite'} gradient")


@check_of("model")
def weights_come_from_the_seed(subject: Subject) -> None:
    """With an option `seed`, equal seeds give equal weights, and building touches no global random state."""
    if not subject.takes("seed"):
        raise Skipped("it is not built with an option seed")
    _network(subject)
    one, other = (_weights(subject.build(seed=3)) for _ in range(2))
    if not torch.equal(one, other):
        raise Failed("two networks of one seed have other weights")
    global_randomness(lambda: _weights(subject.build(seed=1)))


def _weights(built: Any) -> Tensor:
    inner: Any = built.net if isinstance(built, Model) else built
    return torch.cat([parameter.detach().flatten() for parameter in inner.parameters()])


@check_of("model")
def state_dict_restores_it(subject: Subject) -> float:
    """Its state dict, loaded into a new one, gives the same outputs: nothing it knows is left out."""
    network, other = _network(subject), _network(subject)
    if network.module is None or other.module is None:
        raise Skipped("it is a plain function, without weights")
    generator = make_generator(1)
    with torch.no_grad():
        for value in network.module.parameters():
            value.mul_(1 + 0.1 * torch.rand(value.shape, generator=generator).to(value))
    other.module.load_state_dict(network.module.state_dict())
    inputs = network.inputs(3)
    return at_most(float((network.ask(*inputs) - other.ask(*inputs)).abs().max()), 0.0, "restored, it differs by")
