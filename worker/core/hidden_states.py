"""Hidden states of the sessions: wide ones in half of the memory, 16 bits per number and one scale per row.

A wide row is stored as round(h / scale) with scale = max|h| / 32,767, so no number is off by more than
max|h| / 65,534. What that does to a score falls with the square root of the width: with 128 numbers less than
1e-4. States of up to `EXACT_WIDTH` numbers would be off by more, and are small: they are kept as they are.
Whoever computes a state from a history must round it the same way after every click (`rounded`), or it would
not equal the one that was computed click by click.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EXACT_WIDTH = 64
"""Up to here a state in float32 takes no more memory than one of the usual 128 numbers in 16 bits."""

_LARGEST = np.float32(32_767)


class HiddenStates:
    """Rows of hidden states. N = `rows`, S = the width that the model needs, 0 until one serves.

    Rows are backed by memory only once they are written.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.resize(0)

    @property
    def width(self) -> int:
        """S, numbers in a state."""
        return int(self._values.shape[1])

    def bytes_per_row(self) -> int:
        """Memory of one state, with its scale."""
        return self.width * self._values.itemsize + self._scales.itemsize

    def resize(self, width: int) -> None:
        """Make room for states of this width; what was there is lost.

        Raises:
            MemoryError: there is not enough.
        """
        kind = np.float32 if width <= EXACT_WIDTH else np.int16
        values: NDArray[np.float32 | np.int16] = np.zeros((self._rows, width), kind)
        self._values, self._scales = values, np.zeros(self._rows, np.float32)

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """The states of these rows: float32 [n, S]."""
        values = self._values[rows]
        if self.width > EXACT_WIDTH:
            values = values * self._scales[rows, None]
        return torch.from_numpy(values)

    def store(self, rows: NDArray[np.int64], states: Tensor) -> None:
        """Keep these states, float32 [n, S], rounded."""
        if self.width > EXACT_WIDTH:
            self._values[rows], self._scales[rows] = _compress(states.numpy())
        else:
            self._values[rows] = states.numpy()

    def zero(self, rows: NDArray[np.int64]) -> None:
        """Set the states of these rows to zero."""
        self._values[rows] = 0


def rounded(states: Tensor) -> Tensor:
    """What `HiddenStates.load` gives after `store` of these states: float32 [n, S]."""
    if states.shape[1] <= EXACT_WIDTH:
        return states
    values, scales = _compress(states.numpy())
    return torch.from_numpy(values * scales[:, None])


def _compress(states: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    scales = np.abs(states).max(axis=1, initial=0.0) / _LARGEST
    safe = np.where(scales > 0, scales, np.float32(1))
    return np.rint(states / safe[:, None]).astype(np.int16), scales
