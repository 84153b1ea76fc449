"""Hidden states of the sessions: wide ones in half of the memory, 17 bits per number and one scale per part.

A state is one or more parts of the hidden size: one for each layer, and for an LSTM as many again for what
its cells hold, which grows with every click while the rest stays within ±1. So each part has a scale of its
own. A wide part is stored as round(h / scale) with scale = max|h| / 65,535, so no number is off by more than
max|h| / 131,070: 16 bits of it in one array, the last bits of eight numbers in a byte of another. What that
does to a score falls with the square root of the width: with 100 numbers about 5e-5. Parts of up to
`EXACT_WIDTH` numbers would be off by more, and are small: they are kept as they are. Whoever computes a state
from a history must round it the same way after every click (`rounded`), or it would not equal the one that
was computed click by click.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EXACT_WIDTH = 64
"""Up to here a part in float32 takes no more memory than one of the usual 128 numbers in 16 bits."""

_LARGEST = np.float32(65_535)


class HiddenStates:
    """Rows of hidden states. N = `rows`, S = the width that the model needs, 0 until one serves; P its parts.

    Rows are backed by memory only once they are written.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.resize(0)

    @property
    def width(self) -> int:
        """S, numbers in a state."""
        return int(self._values.shape[1])

    @property
    def parts(self) -> int:
        """P, parts of a state, all of one width."""
        return int(self._scales.shape[1])

    def bytes_per_row(self) -> int:
        """Memory of one state, with its scales."""
        return self.width * self._values.itemsize + self._last_bits.shape[1] + 4 * self.parts

    def resize(self, width: int, parts: int = 1) -> None:
        """Make room for states of this width, in so many parts; what was there is lost.

        Raises:
            MemoryError: there is not enough.
        """
        of_part = width // parts
        exact = of_part <= EXACT_WIDTH
        values: NDArray[np.float32 | np.int16] = np.zeros(
            (self._rows, width), np.float32 if exact else np.int16
        )
        last_bits = np.zeros((self._rows, 0 if exact else parts * _packed_bytes(of_part)), np.uint8)
        self._scales = np.zeros((self._rows, parts), np.float32)
        self._values, self._last_bits, self._exact = values, last_bits, exact

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """The states of these rows: float32 [n, S]."""
        values = self._values[rows]
        if self._exact:
            return torch.from_numpy(values)
        found = _expand(_Compressed(values, self._last_bits[rows], self._scales[rows]))
        return torch.from_numpy(found)

    def store(self, rows: NDArray[np.int64], states: Tensor) -> None:
        """Keep these states, float32 [n, S], rounded."""
        if self._exact:
            self._values[rows] = states.numpy()
        else:
            found = _compress(states.numpy(), self.parts)
            self._values[rows], self._last_bits[rows], self._scales[rows] = found

    def zero(self, rows: NDArray[np.int64]) -> None:
        """Set the states of these rows to zero."""
        self._values[rows] = 0
        self._last_bits[rows] = 0


def rounded(states: Tensor, parts: int = 1) -> Tensor:
    """What `HiddenStates.load` gives after `store` of these states: float32 [n, S]."""
    if states.shape[1] <= parts * EXACT_WIDTH:
        return states
    return torch.from_numpy(_expand(_compress(states.numpy(), parts)))


class _Compressed(NamedTuple):
    """n states of P parts, b bytes for the last bits of one part."""

    values: NDArray[np.int16 | np.float32]  # [n, S], numbers without their last bits
    last_bits: NDArray[np.uint8]  # [n, P·b]
    scales: NDArray[np.float32]  # [n, P]


def _packed_bytes(bits: int) -> int:
    return (bits + 7) // 8


def _compress(states: NDArray[np.float32], parts: int) -> _Compressed:
    """States [n, S] as integers."""
    sessions, width = states.shape
    each = states.reshape(sessions * parts, width // parts)
    scales = np.abs(each).max(axis=1, initial=0.0) / _LARGEST
    safe = np.where(scales > 0, scales, np.float32(1))
    whole = np.rint(each / safe[:, None]).astype(np.int32)
    last_bits = np.packbits((whole & 1).astype(np.uint8), axis=1)
    return _Compressed(
        (whole >> 1).astype(np.int16).reshape(sessions, width),
        last_bits.reshape(sessions, parts * last_bits.shape[1]),
        scales.reshape(sessions, parts),
    )


def _expand(compressed: _Compressed) -> NDArray[np.float32]:
    """The states [n, S] behind what `_compress` gives."""
    sessions, width = compressed.values.shape
    parts = compressed.scales.shape[1]
    values = compressed.values.reshape(sessions * parts, width // parts)
    packed = compressed.last_bits.reshape(sessions * parts, _packed_bytes(width // parts))
    bits = np.unpackbits(packed, axis=1, count=width // parts)
    each = ((values.astype(np.int32) << 1) | bits).astype(np.float32) * compressed.scales.reshape(-1, 1)
    return each.reshape(sessions, width)
