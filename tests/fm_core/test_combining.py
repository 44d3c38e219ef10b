"""Weighted sums by size: product, block by block, or term by term, they are the same sum."""

from __future__ import annotations

import pytest
import torch
from torch.overrides import TorchFunctionMode

import fm_core as fm
from fm_core import combining
from fm_core.combining import combine, multiplies, product
from fm_core.executing import execute
from fm_core.randomness import make_generator


def _terms(count: int, *shape: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return list(torch.randn((count, *shape), generator=make_generator(0), dtype=dtype))


@pytest.mark.parametrize("weights", [(1.0, -0.3), (0.4,), (1.0, 0.2, 0.3), (0.5, 0.1, -2.0, 1e-3)])
@pytest.mark.parametrize("shape", [(3, 2), (1, 1), (1, 4), (1, 2, 3), (3,), (2, 3, 5, 7)])
def test_every_way_of_adding_up_gives_the_sum(weights, shape, monkeypatch):
    terms = _terms(len(weights), *shape)
    expected = sum(weight * term for weight, term in zip(weights, terms, strict=True))
    torch.testing.assert_close(combine(weights, terms), expected)
    rows = torch.tensor([weights, [-2 * weight for weight in weights]], dtype=torch.float64).split(1)
    for total, factor in zip(product(rows, terms), (1, -2), strict=True):
        torch.testing.assert_close(total, factor * expected)
    monkeypatch.setattr(combining, "LARGE", 1)
    monkeypatch.setattr(combining, "BLOCK", 4)
    torch.testing.assert_close(combine(weights, terms), expected)


def test_products_take_pictures_with_channels_last():
    terms = [term.to(memory_format=torch.channels_last) for term in _terms(3, 2, 3, 4, 5)]
    weights = torch.tensor([[0.5, 2.0, -1.0], [1.0, 0.0, 3.0]], dtype=torch.float64)
    for row, total in zip(weights, product(weights.split(1), terms), strict=True):
        torch.testing.assert_close(total, sum(w * x for w, x in zip(row, terms, strict=True)), check_stride=False)


def test_large_states_and_their_terms_are_left_as_they_were():
    terms = _terms(3, 2, 2**17 + 3, dtype=torch.float32)
    kept = [term.clone() for term in terms]
    total = combine((0.5, 2.0, -1.0), terms)
    torch.testing.assert_close(total, 0.5 * kept[0] + 2 * kept[1] - kept[2])
    assert all(torch.equal(a, b) for a, b in zip(terms, kept, strict=True))
    assert total.data_ptr() not in {term.data_ptr() for term in terms}


def test_strided_terms_and_gradients_are_added_one_by_one(monkeypatch):
    monkeypatch.setattr(combining, "LARGE", 1)
    strided = [term.T for term in _terms(3, 4, 5)]
    torch.testing.assert_close(combine((1.0, 2.0, 3.0), strided), strided[0] + 2 * strided[1] + 3 * strided[2])
    terms = [term.requires_grad_() for term in _terms(3, 4, 5)]
    (grad,) = torch.autograd.grad(combine((1.0, 2.0, 3.0), terms).sum(), terms[2])
    assert torch.equal(grad, torch.full_like(grad, 3.0))


@pytest.mark.parametrize("weights", [(0.5, 2.0), (1.0, 2.0), (0.5, 2.0, -1.0), (0.5, 2.0, -1.0, 3.0, 0.1)], ids=len)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_large_states_are_combined_in_a_pass_less_than_they_have_operands(weights, dtype, monkeypatch):
    """Every kernel is a pass over a block: the first two operands share one, whatever their weights."""
    monkeypatch.setattr(combining, "LARGE", 1)
    monkeypatch.setattr(combining, "BLOCK", 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    terms = _terms(len(weights), 3, 10, dtype=dtype)
    with _Kernels() as kernels:
        total = combine(weights, terms)
    blocks = 1 if len(weights) == 2 else 3
    assert kernels.count == blocks * (len(weights) - 1)
    expected = sum(weight * term.double() for weight, term in zip(weights, terms, strict=True))
    torch.testing.assert_close(total.double(), expected, rtol=0, atol=8 * torch.finfo(dtype).eps * expected.abs().max())


class _Kernels(TorchFunctionMode):
    """Counts the operations that compute."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func.__name__ in {"add", "add_", "mul", "addr"}
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own
def test_forward_derivatives_follow_large_sums(monkeypatch):
    """Written into memory of their own they would be lost, and zero."""
    monkeypatch.setattr(combining, "LARGE", 1)
    terms = tuple(_terms(3, 4, 5))
    tangents = tuple(_terms(3, 4, 5)[::-1])
    made, moved = torch.func.jvp(lambda *x: combine((0.5, 2.0, 3.0), x), terms, tangents)
    torch.testing.assert_close(made, combine((0.5, 2.0, 3.0), terms))
    torch.testing.assert_close(moved, combine((0.5, 2.0, 3.0), tangents))


def test_low_precision_is_not_multiplied():
    """A product would round the weights to bfloat16."""
    assert multiplies(torch.zeros(2, 2))
    assert not multiplies(torch.zeros(2, 2, dtype=torch.bfloat16))
    assert not multiplies(torch.zeros(combining.SMALL + 1, 1))


@pytest.mark.parametrize("solver", [{"name": "unipc", "order": 3}, "adams_pc", "sa_solver"], ids=str)
def test_small_and_large_states_run_the_same_rows(solver, monkeypatch):
    """Fused groups of rows against the rows themselves, with gradients, at every grid point."""
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: x.sin() - t[:, None], "velocity"), solver=solver)
    plan = pipe.solver.prepare(fm.Field(pipe.model, pipe.path), torch.linspace(0.1, 0.9, 12, dtype=torch.float64))
    assert len(plan.products(torch.float64)[0]) < len(plan.rows) or solver == "sa_solver"
    runs = []
    for small in (combining.SMALL, 0):
        monkeypatch.setattr(combining, "SMALL", small)
        seen: list[torch.Tensor] = []
        x = _terms(1, 5, 2)[0].requires_grad_()
        field = fm.Field(pipe.model, pipe.path)
        end = execute(plan, field, x, generator=make_generator(1), on_step=lambda t, y, to=seen: to.append(y))
        assert field.calls == plan.nfe
        runs.append((torch.stack(seen), end, *torch.autograd.grad(end.sum(), x)))
    for a, b in zip(*runs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
