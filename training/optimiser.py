"""Adam (Kingma & Ba 2015) and Adagrad (Duchi et al. 2011) that can update some rows of a matrix only.

Rows that a step does not touch keep all they have, as in `torch.optim.SparseAdam`: on a large catalogue a
step costs what it touches. torch's own wants sparse gradients, which cost more than the update.
"""

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Of the paper."""


class Adam:
    """Moments and step count of one parameter; the parameter itself is updated in place."""

    def __init__(self, parameter: Tensor) -> None:
        self._parameter = parameter
        self._mean = torch.zeros_like(parameter)
        self._square = torch.zeros_like(parameter)
        self._steps = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: float, rows: Tensor | None = None) -> None:
        """Take one step.

        Args:
            gradient: of the whole parameter, or of its `rows` alone, in that order.
            learning_rate: of this step.
            rows: int64, distinct; None for the whole parameter.
        """
        self._steps += 1
        mean = self._mean if rows is None else self._mean[rows]
        square = self._square if rows is None else self._square[rows]
        mean.lerp_(gradient, 1 - BETA1)
        square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        scale = (square / (1 - BETA2**self._steps)).sqrt_().add_(EPSILON)
        size = learning_rate / (1 - BETA1**self._steps)
        if rows is None:
            self._parameter.addcdiv_(mean, scale, value=-size)
            return
        self._mean[rows], self._square[rows] = mean, square
        self._parameter.index_add_(0, rows, mean.div_(scale), alpha=-size)


ADAGRAD_EPSILON = 1e-6
"""Bounds the first step of an entry whose gradients are next to nothing, which else would be a whole one."""


class Adagrad:
    """Adagrad (Duchi et al. 2011) with momentum, as arXiv 1511.06939 trains with; by rows, as `Adam` here.

    For each entry that a step touches, with its gradient g and the learning rate η of the step:
        G ← G + g²        v ← momentum · v − η · g / (√G + ε)        θ ← θ + v
    G starts at 0, so that the first step has the full rate, and v at 0. Only the sum G makes steps smaller;
    any other decay is in the η that the caller gives. Rows that a step does not touch keep G, v and θ: a
    velocity moves its row no further until the row is touched again.
    """

    def __init__(self, parameter: Tensor, momentum: float = 0.0) -> None:
        self._parameter = parameter
        self._momentum = momentum
        self._squares = torch.zeros_like(parameter)
        self._velocity = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: float, rows: Tensor | None = None) -> None:
        """Take one step; the arguments are those of `Adam.step`."""
        squares = self._squares if rows is None else self._squares[rows]
        velocity = self._velocity if rows is None else self._velocity[rows]
        squares.addcmul_(gradient, gradient)
        velocity.mul_(self._momentum)
        velocity.addcdiv_(gradient, squares.sqrt().add_(ADAGRAD_EPSILON), value=-learning_rate)
        if rows is None:
            self._parameter.add_(velocity)
            return
        self._squares[rows], self._velocity[rows] = squares, velocity
        self._parameter.index_add_(0, rows, velocity)
