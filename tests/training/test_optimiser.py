"""Adam against torch's own, Adagrad against torch's and against its formula, compiled rows against both."""

import numpy as np
import pytest
import torch

from training.kernels_rows import step_rows
from training.optimiser import ADAGRAD_EPSILON, Adagrad, Adam, Optimiser, new_optimiser
from training.settings import TrainSettings

STEPS = ([0, 3], [3, 4, 6], [0], [1, 6])


def gradients(steps: int, *shape: int) -> list[torch.Tensor]:
    """One a step."""
    draw = torch.Generator().manual_seed(4)
    return [torch.randn(*shape, generator=draw) for _ in range(steps)]


def parameter(*shape: int) -> torch.Tensor:
    """Where to start."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_adam_of_the_whole_parameter_equals_torch() -> None:
    ours, theirs = parameter(6, 3), parameter(6, 3).requires_grad_()
    reference, adam = torch.optim.Adam([theirs], lr=0.01), Adam(ours)
    for gradient in gradients(20, 6, 3):
        theirs.grad = gradient
        adam.step(gradient, 0.01)
        reference.step()
    torch.testing.assert_close(ours, theirs.detach())


def test_adam_of_rows_equals_sparse_adam_and_others_stay() -> None:
    ours, theirs = parameter(8, 3), parameter(8, 3).requires_grad_()
    start = ours.clone()
    reference, adam = torch.optim.SparseAdam([theirs], lr=0.01), Adam(ours)
    for rows in STEPS:
        index, gradient = torch.tensor(rows), torch.randn(len(rows), 3)
        theirs.grad = torch.sparse_coo_tensor(index[None], gradient, (8, 3), check_invariants=False)
        adam.step(gradient, 0.01, index)
        reference.step()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours, theirs.detach())
    assert torch.equal(ours[[2, 5, 7]], start[[2, 5, 7]])


def test_adagrad_starts_from_nothing_and_does_not_decay() -> None:
    """torch's with an initial accumulator of zero and no decay."""
    ours, theirs = parameter(6, 3), parameter(6, 3).requires_grad_()
    reference = torch.optim.Adagrad([theirs], lr=0.05, lr_decay=0, eps=ADAGRAD_EPSILON)
    adagrad = Adagrad(ours)
    for gradient in gradients(20, 6, 3):
        theirs.grad = gradient
        adagrad.step(gradient, 0.05)
        reference.step()
    torch.testing.assert_close(ours, theirs.detach())


def test_adagrad_with_momentum_is_the_formula_on_touched_rows() -> None:
    start = parameter(8, 3)
    ours = start.clone()
    adagrad = Adagrad(ours, momentum=0.3)
    theta = start.double().numpy()
    velocity, accumulator = np.zeros((8, 3)), np.zeros((8, 3))
    for rows in STEPS:
        gradient = torch.randn(len(rows), 3)
        adagrad.step(gradient, 0.05, torch.tensor(rows))
        for row, g in zip(rows, gradient.double().numpy(), strict=True):
            accumulator[row] += g**2
            velocity[row] = 0.3 * velocity[row] - 0.05 * g / (np.sqrt(accumulator[row]) + ADAGRAD_EPSILON)
            theta[row] += velocity[row]
    np.testing.assert_allclose(ours.numpy(), theta, rtol=1e-5, atol=1e-6)
    assert torch.equal(ours[[2, 5, 7]], start[[2, 5, 7]])


@pytest.mark.parametrize("settings", [TrainSettings(), TrainSettings(optimiser="adagrad", momentum=0.2)])
def test_compiled_rows_equal_the_plain_step(settings: TrainSettings) -> None:
    plain, compiled = (new_optimiser(settings, parameter(6, 3)) for _ in range(2))
    for gradient in gradients(20, 6, 3):
        plain.step(gradient, 0.01)
        constants = compiled.begin_step(0.01)
        step_rows(*compiled.arrays(), gradient.numpy(), compiled.kind, constants)
    for one, other in (
        (plain.parameter, compiled.parameter),
        (plain.first, compiled.first),
        (plain.second, compiled.second),
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", [Adam, Adagrad])
def test_goes_on_from_its_state(kind: type[Optimiser]) -> None:
    steps, through, restored = gradients(6, 4, 3), kind(parameter(4, 3)), kind(parameter(4, 3))
    for gradient in steps[:3]:
        through.step(gradient, 0.01)
    restored.parameter.copy_(through.parameter)
    restored.restore({name: array.copy() for name, array in through.state().items()})
    for gradient in steps[3:]:
        through.step(gradient, 0.01)
        restored.step(gradient, 0.01)
    assert torch.equal(through.parameter, restored.parameter)
