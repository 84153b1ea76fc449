"""Hidden states of the sessions: wide ones in half of the memory, 17 bits per number and one scale per row.

A wide row is stored as round(h / scale) with scale = max|h| / 65,535, so no number is off by more than
max|h| / 131,070: 16 bits of it in one array, the last bits of eight numbers in a byte of another. What that
does to a score falls with the square root of the width: with 100 numbers about 5e-5. States of up to
`EXACT_WIDTH` numbers would be off by more, and are small: they are kept as they are. Whoever computes a state
from a history must round it the same way after every click (`rounded`), or it would not equal the one that
was computed click by click.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EXACT_WIDTH = 64
"""Up to here a state in float32 takes no more memory than one of the usual 128 numbers in 16 bits."""

_LARGEST = np.float32(65_535)


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
        return self.width * self._values.itemsize + self._last_bits.shape[1] + self._scales.itemsize

    def resize(self, width: int) -> None:
        """Make room for states of this width; what was there is lost.

        Raises:
            MemoryError: there is not enough.
        """
        kind = np.float32 if width <= EXACT_WIDTH else np.int16
        values: NDArray[np.float32 | np.int16] = np.zeros((self._rows, width), kind)
        last_bits = np.zeros((self._rows, (width + 7) // 8 if width > EXACT_WIDTH else 0), np.uint8)
        self._values, self._last_bits = values, last_bits
        self._scales = np.zeros(self._rows, np.float32)

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """The states of these rows: float32 [n, S]."""
        values = self._values[rows]
        if self.width <= EXACT_WIDTH:
            return torch.from_numpy(values)
        return torch.from_numpy(_expand(values, self._last_bits[rows], self._scales[rows]))

    def store(self, rows: NDArray[np.int64], states: Tensor) -> None:
        """Keep these states, float32 [n, S], rounded."""
        if self.width > EXACT_WIDTH:
            self._values[rows], self._last_bits[rows], self._scales[rows] = _compress(states.numpy())
        else:
            self._values[rows] = states.numpy()

    def zero(self, rows: NDArray[np.int64]) -> None:
        """Set the states of these rows to zero."""
        self._values[rows] = 0
        self._last_bits[rows] = 0


def rounded(states: Tensor) -> Tensor:
    """What `HiddenStates.load` gives after `store` of these states: float32 [n, S]."""
    if states.shape[1] <= EXACT_WIDTH:
        return states
    return torch.from_numpy(_expand(*_compress(states.numpy())))


def _compress(
    states: NDArray[np.float32],
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float32]]:
    """Numbers without their last bits [n, S], the last bits packed [n, S/8], and scales [n]."""
    scales = np.abs(states).max(axis=1, initial=0.0) / _LARGEST
    safe = np.where(scales > 0, scales, np.float32(1))
    whole = np.rint(states / safe[:, None]).astype(np.int32)
    return (whole >> 1).astype(np.int16), np.packbits((whole & 1).astype(np.uint8), axis=1), scales


def _expand(
    values: NDArray[np.int16 | np.float32], last_bits: NDArray[np.uint8], scales: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The states [n, S] behind what `_compress` gives."""
    bits = np.unpackbits(last_bits, axis=1, count=values.shape[1])
    return ((values.astype(np.int32) << 1) | bits).astype(np.float32) * scales[:, None]
