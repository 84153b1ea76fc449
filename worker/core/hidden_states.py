"""Hidden states of the sessions: wide ones in half of the memory, 17 bits a number and one scale per vector.

A wide hidden vector is stored as round(h / scale) with scale = max|h| / 65,535, so no number is off by more
than max|h| / 131,070: 16 bits of it in one array, the last bits of eight numbers in a byte of another. What
that does to a score falls with the square root of the width: with 100 numbers about 5e-5. Vectors of up to
`EXACT_WIDTH` numbers would be off by more, and are small: they are kept as they are. So is what the cells of
an LSTM hold, whatever its width: it grows with the clicks instead of staying within ±1, is fed back without
passing a gate that forgets, and its rounding alone moved scores by up to 2e-4 at weights of trained size and
by 1e-2 where the forget gates stand open. Whoever computes a state from a history must round it the same way
after every click (`rounded`), or it would not equal the one that was computed click by click.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.core.compiled import compiled

EXACT_WIDTH = 64
"""Up to here a vector in float32 takes no more memory than one of the usual 128 numbers in 16 bits."""

_LARGEST = np.float32(65_535)


class StateLayout(NamedTuple):
    """What the numbers of a state are: first the hidden vectors of all layers, then the cells of an LSTM."""

    hidden_size: int
    layers: int = 1
    cells: int = 0  # numbers in all, the width less layers · hidden_size

    @property
    def width(self) -> int:
        """S, numbers in a state."""
        return self.layers * self.hidden_size + self.cells

    @property
    def rounded_width(self) -> int:
        """R, how many of them, from the first on, are rounded when they are stored."""
        return self.layers * self.hidden_size if self.hidden_size > EXACT_WIDTH else 0


class HiddenStates:
    """Rows of states. N = `rows`; S = the width that the model needs, 0 until one serves; R of them rounded.

    Rows are backed by memory only once they are written.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.resize(StateLayout(0))

    @property
    def width(self) -> int:
        """S, numbers in a state."""
        return self.layout.width

    def bytes_per_row(self) -> int:
        """Memory of one state, with its scales."""
        return sum(array[:1].nbytes for array in (*self._packed, self._exact))

    def resize(self, layout: StateLayout) -> None:
        """Make room for states of this layout; what was there is lost.

        Raises:
            MemoryError: there is not enough; what was there is there.
        """
        vectors = layout.layers if layout.rounded_width else 0
        packed = _Packed(
            np.zeros((self._rows, layout.rounded_width), np.int16),
            np.zeros((self._rows, vectors * _packed_bytes(layout.hidden_size)), np.uint8),
            np.zeros((self._rows, vectors), np.float32),
        )
        exact = np.zeros((self._rows, layout.width - layout.rounded_width), np.float32)
        self.layout, self._packed, self._exact = layout, packed, exact

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """The states of these rows: float32 [n, S]."""
        states = np.empty((len(rows), self.width), np.float32)
        _load(*self._packed, self._exact, rows, self.layout.hidden_size, states)
        return torch.from_numpy(states)

    def store(self, rows: NDArray[np.int64], states: Tensor) -> None:
        """Keep these states, float32 [n, S], rounded."""
        given = np.ascontiguousarray(states.numpy())
        _store(*self._packed, self._exact, rows, self.layout.hidden_size, given)

    def zero(self, rows: NDArray[np.int64]) -> None:
        """Set the states of these rows to zero."""
        self._packed.values[rows] = 0
        self._packed.last_bits[rows] = 0
        self._exact[rows] = 0


def rounded(states: Tensor, layout: StateLayout) -> Tensor:
    """What `HiddenStates.load` gives after `store` of these states: float32 [n, S]."""
    if not layout.rounded_width:
        return states
    rows = np.arange(len(states))
    kept = HiddenStates(len(states))
    kept.resize(layout)
    kept.store(rows, states)
    return kept.load(rows)


class _Packed(NamedTuple):
    """Hidden vectors of N states as integers, L of them each, b bytes for the last bits of one."""

    values: NDArray[np.int16]  # [N, R], numbers without their last bits
    last_bits: NDArray[np.uint8]  # [N, L·b], the first of eight in the highest place
    scales: NDArray[np.float32]  # [N, L]


def _packed_bytes(bits: int) -> int:
    return (bits + 7) // 8


@compiled
def _store(
    values: NDArray[np.int16],
    last_bits: NDArray[np.uint8],
    scales: NDArray[np.float32],
    exact: NDArray[np.float32],
    rows: NDArray[np.int64],
    size: int,
    states: NDArray[np.float32],
) -> None:
    packed, vectors = values.shape[1], scales.shape[1]
    for at in range(rows.shape[0]):
        row = rows[at]
        exact[row] = states[at, packed:]
        last_bits[row] = 0
        for vector in range(vectors):
            first = vector * size
            given, kept = states[at, first : first + size], values[row, first : first + size]
            bits = last_bits[row, vector * ((size + 7) // 8) :]
            largest = np.float32(0)
            for number in given:
                largest = max(largest, abs(number))
            scale = largest / _LARGEST
            scales[row, vector] = scale
            step = scale if scale > 0 else np.float32(1)
            for place in range(size):
                whole = np.int32(np.rint(given[place] / step))
                kept[place] = whole >> 1
                bits[place >> 3] |= (whole & 1) << (7 - (place & 7))


@compiled
def _load(
    values: NDArray[np.int16],
    last_bits: NDArray[np.uint8],
    scales: NDArray[np.float32],
    exact: NDArray[np.float32],
    rows: NDArray[np.int64],
    size: int,
    states: NDArray[np.float32],
) -> None:
    packed, vectors = values.shape[1], scales.shape[1]
    for at in range(rows.shape[0]):
        row = rows[at]
        states[at, packed:] = exact[row]
        for vector in range(vectors):
            first, scale = vector * size, scales[row, vector]
            kept, found = values[row, first : first + size], states[at, first : first + size]
            bits = last_bits[row, vector * ((size + 7) // 8) :]
            for place in range(size):
                bit = (bits[place >> 3] >> (7 - (place & 7))) & 1
                found[place] = np.float32((np.int32(kept[place]) << 1) | bit) * scale
