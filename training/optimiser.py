"""Adam (Kingma & Ba 2015) and Adagrad (Duchi et al. 2011) with momentum, which can update some rows only.

Rows that a step does not touch keep their moments as they are, as in `torch.optim.SparseAdam`: on a large
catalogue a step costs what it touches. torch's own wants sparse gradients, which cost more than the update.
Nothing decays unasked: no weight decay, no rate of their own, accumulators start at zero.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.kernels_rows import ADAGRAD, ADAM
from training.memory import zeros
from training.settings import TrainSettings

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Of the paper on Adam."""
ADAGRAD_EPSILON = 1e-6
"""Bounds the first step of an entry whose gradients are next to nothing, which else would be a whole one."""


class Optimiser(ABC):
    """Two moments and the step count of one parameter; the parameter itself is updated in place.

    Attributes:
        parameter: what is updated.
        first, second: like it, zero to start with.
        kind: which `training.kernels_rows.step_row` is the same in compiled form.
    """

    kind: ClassVar[int]
    names: ClassVar[tuple[str, str]]

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = parameter.detach()
        self.first, self.second = _zeros_like(self.parameter), _zeros_like(self.parameter)
        self.steps = 0

    def state(self) -> dict[str, NDArray[Any]]:
        """What a step changes beside the parameter, as views where it lies on the CPU."""
        first, second = self.names
        return {
            first: self.first.numpy(force=True),
            second: self.second.numpy(force=True),
            "steps": np.array([self.steps], np.int64),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave."""
        first, second = self.names
        self.first.copy_(torch.from_numpy(state[first]))
        self.second.copy_(torch.from_numpy(state[second]))
        self.steps = int(state["steps"][0])

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: float, rows: Tensor | None = None) -> None:
        """Take one step.

        Args:
            gradient: of the whole parameter, or of its `rows` alone, in that order.
            learning_rate: of this step.
            rows: int64, distinct; None for the whole parameter.
        """
        constants = self.begin_step(learning_rate)
        if rows is None:
            self.parameter.add_(self._change(self.first, self.second, gradient, constants))
            return
        first, second = self.first[rows], self.second[rows]
        self.parameter.index_add_(0, rows, self._change(first, second, gradient, constants))
        self.first[rows], self.second[rows] = first, second

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Parameter and moments as matrices [rows, width], for `training.kernels_rows`; on the CPU."""
        rows = len(self.parameter)
        first, second = self.first.view(rows, -1), self.second.view(rows, -1)
        return self.parameter.view(rows, -1).numpy(), first.numpy(), second.numpy()

    @abstractmethod
    def begin_step(self, learning_rate: float) -> NDArray[np.float32]:
        """Count a step; what it needs to know beside moments and gradient, float32 [5]."""

    @abstractmethod
    def _change(
        self, first: Tensor, second: Tensor, gradient: Tensor, constants: NDArray[np.float32]
    ) -> Tensor:
        """Update the moments in place; what to add to the parameter."""


class Adam(Optimiser):
    """m += (1 − β1)(g − m); v += (1 − β2)(g² − v); θ −= rate · m̂ / (√v̂ + ε), the hats for their start."""

    kind = ADAM
    names = ("mean", "square")

    def begin_step(self, learning_rate: float) -> NDArray[np.float32]:
        """1 − β1, 1 − β2, rate / (1 − β1^t), 1 / (1 − β2^t), ε."""
        self.steps += 1
        size, correction = learning_rate / (1 - BETA1**self.steps), 1 / (1 - BETA2**self.steps)
        return np.array([1 - BETA1, 1 - BETA2, size, correction, EPSILON], np.float32)

    def _change(
        self, first: Tensor, second: Tensor, gradient: Tensor, constants: NDArray[np.float32]
    ) -> Tensor:
        mean_share, square_share, size, correction, epsilon = constants.tolist()
        first.lerp_(gradient, mean_share)
        second.mul_(1 - square_share).addcmul_(gradient, gradient, value=square_share)
        scale = (second * correction).sqrt_().add_(epsilon)
        change: Tensor = first / scale * -size
        return change


class Adagrad(Optimiser):
    """Adagrad with momentum, as arXiv 1511.06939 trains with.

    For each entry that a step touches, with its gradient g and the learning rate η of the step:
        G ← G + g²        v ← momentum · v − η · g / (√G + ε)        θ ← θ + v
    G starts at 0, so that the first step has the full rate, and v at 0. Only the sum G makes steps smaller;
    any other decay is in the η that the caller gives. Rows that a step does not touch keep G, v and θ: a
    velocity moves its row no further until the row is touched again.
    """

    kind = ADAGRAD
    names = ("velocity", "accumulator")

    def __init__(self, parameter: Tensor, momentum: float = 0.0) -> None:
        super().__init__(parameter)
        self._momentum = momentum

    def begin_step(self, learning_rate: float) -> NDArray[np.float32]:
        """Momentum, rate, unused, unused, ε."""
        self.steps += 1
        return np.array([self._momentum, learning_rate, 0, 0, ADAGRAD_EPSILON], np.float32)

    def _change(
        self, first: Tensor, second: Tensor, gradient: Tensor, constants: NDArray[np.float32]
    ) -> Tensor:
        momentum, rate, _, _, epsilon = constants.tolist()
        second.addcmul_(gradient, gradient)
        first.mul_(momentum).addcdiv_(gradient, second.sqrt().add_(epsilon), value=-rate)
        return first


def _zeros_like(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.is_cuda else zeros(*parameter.shape)


def new_optimiser(settings: TrainSettings, parameter: Tensor) -> Optimiser:
    """The optimiser of these settings for one parameter."""
    if settings.optimiser == "adagrad":
        return Adagrad(parameter, settings.momentum)
    return Adam(parameter)
