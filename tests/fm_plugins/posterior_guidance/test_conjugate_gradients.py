"""Conjugate gradients, each sample by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fm_plugins.posterior_guidance.conjugate_gradients import conjugate_gradients


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def product(matrices: Tensor) -> object:
    return lambda v: torch.einsum("bij,bj->bi", matrices, v.flatten(1)).reshape(v.shape)


@pytest.mark.parametrize("shape", [(5,), (1, 5), (5, 1, 1)])
@pytest.mark.parametrize("extra", [0, 10])
def test_it_solves_in_as_many_iterations_as_there_are_eigenvalues(shape: tuple[int, ...], extra: int) -> None:
    """Further iterations change nothing: no division by a residual of 0."""
    root = drawn(3, 5, 5)
    basis = torch.linalg.qr(root)[0]
    matrices = torch.einsum("bij,j,bkj->bik", basis, torch.tensor([1.0, 1.0, 4.0, 4.0, 4.0]).double(), basis)
    b = drawn(3, *shape)
    v = conjugate_gradients(product(matrices), b, 2 + extra)
    expected = torch.linalg.solve(matrices, b.flatten(1)[..., None])[..., 0].reshape(b.shape)
    torch.testing.assert_close(v, expected, rtol=1e-12, atol=1e-12)


def test_samples_do_not_touch_each_other() -> None:
    """One of 1e8, one of 0, one whose matrix is not positive, and one alone."""
    matrices = drawn(4, 5, 5)
    matrices = matrices @ matrices.mT + torch.eye(5).double()
    matrices[2] *= -1
    b = drawn(4, 5) * torch.tensor([1e8, 0.0, 1.0, 1.0]).double()[:, None]
    v = conjugate_gradients(product(matrices), b, 4)
    assert v.isfinite().all()
    assert (v[1:3] == 0).all()
    for i in range(4):
        one = conjugate_gradients(product(matrices[i : i + 1]), b[i : i + 1], 4)
        torch.testing.assert_close(one[0], v[i], rtol=1e-12, atol=0)


def test_a_matrix_that_turns_out_not_to_be_positive_ends_the_sample_where_it_stands() -> None:
    """For good: what stood still once does not move again, in any of 64 indefinite matrices."""
    root = drawn(64, 5, 5)
    matrices, b = root + root.mT + 2 * torch.eye(5).double(), drawn(64, 5)
    iterates = torch.stack([conjugate_gradients(product(matrices), b, n) for n in range(12)])
    assert iterates.isfinite().all()
    still = (iterates.diff(dim=0) == 0).all(2)
    assert still.any(0).sum() > 30
    assert (still.int().diff(dim=0) >= 0).all()


def test_gradients_pass_a_residual_of_zero() -> None:
    """The solution is linear in b, also for b = 0, where the residual's ratio is 0/0."""
    matrices = drawn(2, 3, 3)
    matrices = matrices @ matrices.mT + torch.eye(3).double()
    b = torch.stack([drawn(3), torch.zeros(3).double()]).requires_grad_()
    (gradient,) = torch.autograd.grad(conjugate_gradients(product(matrices), b, 3).sum(), b)
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient[0], torch.linalg.solve(matrices[0], torch.ones(3).double()))
