"""Adam against torch's own."""

import torch

from training.optimiser import Adam


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
    for rows in ([0, 3], [3, 4, 6], [0], [1, 6]):
        index, gradient = torch.tensor(rows), torch.randn(len(rows), 3, generator=draw)
        theirs.grad = torch.sparse_coo_tensor(index[None], gradient, (8, 3), check_invariants=False)
        adam.step(gradient, 0.01, index)
        reference.step()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours, theirs.detach())
    assert torch.equal(ours[[2, 5, 7]], start[[2, 5, 7]])
