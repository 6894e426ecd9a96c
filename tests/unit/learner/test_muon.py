"""Muon's update against the singular value decomposition and steps worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rl.learner.muon import MuonAdamW, orthogonalise


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_orthogonalise_keeps_the_singular_vectors_and_levels_the_values(shape: tuple[int, int]) -> None:
    u, _ = torch.linalg.qr(torch.randn(shape[0], 4, generator=torch.Generator().manual_seed(0)))
    v, _ = torch.linalg.qr(torch.randn(shape[1], 4, generator=torch.Generator().manual_seed(1)))
    matrix = u @ torch.diag(torch.tensor([5.0, 2.0, 1.0, 0.5])) @ v.T
    inside = u.T @ orthogonalise(matrix) @ v
    assert torch.diagonal(inside).min() > 0.65 and torch.diagonal(inside).max() < 1.25
    assert (inside - torch.diag(torch.diagonal(inside))).abs().max() < 1e-4


def test_zeros_stay_zeros() -> None:
    assert orthogonalise(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


def first_step(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix [1, 4] and a vector [1] of ones after one step with lr 0.1 and weight decay 0.5."""
    matrix, vector = torch.ones(1, 4, requires_grad=True), torch.ones(1, requires_grad=True)
    optimizer = MuonAdamW([matrix], [vector], 0.1, (0.9, 0.99), 1e-8, weight_decay=0.5, momentum=0.9)
    matrix.grad, vector.grad = torch.tensor([[3.0, 4.0, 0.0, 0.0]]) * scale, torch.tensor([-2.0]) * scale
    optimizer.step()
    return matrix.detach(), vector.detach()


def test_the_first_step_goes_along_the_gradient_by_a_length_that_does_not_depend_on_it() -> None:
    matrix, vector = first_step(1.0)
    # Weight decay leaves 0.95. A row's only singular value is its norm, so the update is s * (0.6, 0.8, 0, 0), where
    # five rounds of 3.4445 s - 4.775 s^3 + 2.0315 s^5 from s = 1 give s; it is scaled by lr * 0.2 * sqrt(4) = 0.04.
    s = 1.0
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    assert 0.6 < s < 1.3
    assert torch.allclose(matrix, torch.tensor([[0.95 - 0.04 * s * 0.6, 0.95 - 0.04 * s * 0.8, 0.95, 0.95]]), atol=1e-6)
    assert math.isclose(vector.item(), 0.95 + 0.1, abs_tol=1e-6)  # AdamW's first step is lr against the sign
    assert torch.allclose(first_step(100.0)[0], matrix, atol=1e-6)


def test_parameters_without_a_gradient_stay() -> None:
    matrix = torch.ones(2, 2, requires_grad=True)
    MuonAdamW([matrix], [], 0.1, (0.9, 0.99), 1e-8, weight_decay=0.5, momentum=0.9).step()
    assert matrix.tolist() == [[1.0, 1.0]] * 2
