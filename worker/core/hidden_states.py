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
        exact = self._exact[rows]
        if not self.layout.rounded_width:
            return torch.from_numpy(exact)
        packed = self._packed
        found = _unpack(_Packed(packed.values[rows], packed.last_bits[rows], packed.scales[rows]))
        return torch.from_numpy(np.concatenate([found, exact], axis=1) if self.layout.cells else found)

    def store(self, rows: NDArray[np.int64], states: Tensor) -> None:
        """Keep these states, float32 [n, S], rounded."""
        given, first_exact = states.numpy(), self.layout.rounded_width
        if first_exact:
            packed = _pack(given[:, :first_exact], self.layout)
            self._packed.values[rows] = packed.values
            self._packed.last_bits[rows] = packed.last_bits
            self._packed.scales[rows] = packed.scales
        self._exact[rows] = given[:, first_exact:]

    def zero(self, rows: NDArray[np.int64]) -> None:
        """Set the states of these rows to zero."""
        self._packed.values[rows] = 0
        self._packed.last_bits[rows] = 0
        self._exact[rows] = 0


def rounded(states: Tensor, layout: StateLayout) -> Tensor:
    """What `HiddenStates.load` gives after `store` of these states: float32 [n, S]."""
    first_exact = layout.rounded_width
    if not first_exact:
        return states
    given = states.numpy()
    found = _unpack(_pack(given[:, :first_exact], layout))
    return torch.from_numpy(
        np.concatenate([found, given[:, first_exact:]], axis=1) if layout.cells else found
    )


class _Packed(NamedTuple):
    """Hidden vectors of n states as integers, L of them each, b bytes for the last bits of one."""

    values: NDArray[np.int16]  # [n, R], numbers without their last bits
    last_bits: NDArray[np.uint8]  # [n, L·b]
    scales: NDArray[np.float32]  # [n, L]


def _packed_bytes(bits: int) -> int:
    return (bits + 7) // 8


def _pack(hidden: NDArray[np.float32], layout: StateLayout) -> _Packed:
    """Hidden vectors [n, R] as integers."""
    states = len(hidden)
    each = hidden.reshape(states * layout.layers, layout.hidden_size)
    scales = np.abs(each).max(axis=1, initial=0.0) / _LARGEST
    safe = np.where(scales > 0, scales, np.float32(1))
    whole = np.rint(each / safe[:, None]).astype(np.int32)
    last_bits = np.packbits((whole & 1).astype(np.uint8), axis=1)
    return _Packed(
        (whole >> 1).astype(np.int16).reshape(hidden.shape),
        last_bits.reshape(states, layout.layers * last_bits.shape[1]),
        scales.reshape(states, layout.layers),
    )


def _unpack(packed: _Packed) -> NDArray[np.float32]:
    """The hidden vectors [n, R] behind what `_pack` gives."""
    (states, width), layers = packed.values.shape, packed.scales.shape[1]
    vectors, size = states * layers, width // layers
    bits = np.unpackbits(packed.last_bits.reshape(vectors, _packed_bytes(size)), axis=1, count=size)
    values = packed.values.reshape(vectors, size).astype(np.int32)
    each = ((values << 1) | bits).astype(np.float32) * packed.scales.reshape(vectors, 1)
    return each.reshape(states, width)
