"""Adam (Kingma & Ba 2015) that can update some rows of a matrix only.

Rows that a step does not touch keep their moments as they are, as in `torch.optim.SparseAdam`: on a large
catalogue a step costs what it touches. torch's own wants sparse gradients, which cost more than the update.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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

    def state(self) -> dict[str, NDArray[Any]]:
        """What a step changes beside the parameter, as views."""
        return {
            "mean": self._mean.numpy(),
            "square": self._square.numpy(),
            "steps": np.array([self._steps], np.int64),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave."""
        self._mean.copy_(torch.from_numpy(state["mean"]))
        self._square.copy_(torch.from_numpy(state["square"]))
        self._steps = int(state["steps"][0])

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
