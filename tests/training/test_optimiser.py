"""Adam against torch's own, Adagrad against torch's own and, with momentum, against its formula."""

import math

import pytest
import torch

from training.optimiser import ADAGRAD_EPSILON, Adagrad, Adam

ROWS = ([0, 3], [3, 4, 6], [0], [1, 6], [3, 0, 6])


def test_whole_parameter_equals_torch() -> None:
    draw = torch.Generator().manual_seed(0)
    ours = torch.randn(6, 3, generator=draw)
    theirs = ours.clone().requires_grad_()
    reference, adam = torch.optim.Adam([theirs], lr=0.01), Adam(ours)
    for _ in range(20):
        theirs.grad = torch.randn(6, 3, generator=draw)
        adam.step(theirs.grad, 0.01)
        reference.step()
    torch.testing.assert_close(ours, theirs.detach())


def test_rows_equal_sparse_adam_and_others_stay() -> None:
    draw = torch.Generator().manual_seed(0)
    ours = torch.randn(8, 3, generator=draw)
    start = ours.clone()
    theirs = ours.clone().requires_grad_()
    reference, adam = torch.optim.SparseAdam([theirs], lr=0.01), Adam(ours)
    for rows in ROWS:
        index, gradient = torch.tensor(rows), torch.randn(len(rows), 3, generator=draw)
        theirs.grad = torch.sparse_coo_tensor(index[None], gradient, (8, 3), check_invariants=False)
        adam.step(gradient, 0.01, index)
        reference.step()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours, theirs.detach())
    assert torch.equal(ours[[2, 5, 7]], start[[2, 5, 7]])


@pytest.mark.parametrize("by_rows", [False, True])
def test_adagrad_without_momentum_equals_torch(by_rows: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    ours = torch.randn(8, 3, generator=draw)
    theirs = ours.clone().requires_grad_()
    reference, adagrad = torch.optim.Adagrad([theirs], lr=0.1, eps=ADAGRAD_EPSILON), Adagrad(ours)
    for rows in ROWS:
        index, gradient = torch.tensor(rows), torch.randn(len(rows), 3, generator=draw)
        theirs.grad = torch.zeros(8, 3).index_copy_(0, index, gradient)
        if by_rows:
            adagrad.step(gradient, 0.1, index)
        else:
            adagrad.step(theirs.grad, 0.1)
        reference.step()
    torch.testing.assert_close(ours, theirs.detach())


@pytest.mark.parametrize("by_rows", [False, True])
def test_adagrad_with_momentum_is_the_formula(by_rows: bool) -> None:
    """Every touched entry on its own, in floats of 64 bits; the rate changes from step to step."""
    draw = torch.Generator().manual_seed(1)
    ours = torch.randn(8, 3, generator=draw)
    start = ours.clone()
    expected = ours.double().tolist()
    squares = [[0.0] * 3 for _ in range(8)]
    velocity = [[0.0] * 3 for _ in range(8)]
    adagrad = Adagrad(ours, momentum=0.3)
    for step, some in enumerate(ROWS):
        rows = some if by_rows else list(range(8))
        rate = 0.1 / (step + 1)
        gradient = torch.randn(len(rows), 3, generator=draw)
        adagrad.step(gradient, rate, torch.tensor(rows) if by_rows else None)
        for row, of_row in zip(rows, gradient.tolist(), strict=True):
            for column, g in enumerate(of_row):
                squares[row][column] += g * g
                scaled = g / (math.sqrt(squares[row][column]) + ADAGRAD_EPSILON)
                velocity[row][column] = 0.3 * velocity[row][column] - rate * scaled
                expected[row][column] += velocity[row][column]
    torch.testing.assert_close(ours, torch.tensor(expected), atol=1e-6, rtol=1e-5)
    if by_rows:
        assert torch.equal(ours[[2, 5, 7]], start[[2, 5, 7]])
