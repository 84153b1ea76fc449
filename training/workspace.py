"""Buffers that are used again at every step: fresh memory costs more than filling it."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.memory import zeros


class Workspace:
    """Named buffers of a thread. They grow to the largest shape asked for, and start at zero.

    Of what is asked for next, the values are those left by the last user of that name.
    """

    def __init__(self, low: torch.dtype = torch.float32) -> None:
        """`low` is the kind of those buffers that go into products of that precision."""
        self._low = np.uint16 if low == torch.bfloat16 else np.float32
        self._flat: dict[str, NDArray[Any]] = {}

    def floats(self, name: str, *shape: int) -> NDArray[np.float32]:
        """A float32 buffer."""
        return self._buffer(name, shape, np.float32)

    def low(self, name: str, *shape: int) -> NDArray[Any]:
        """A buffer of the low precision; a bfloat16 is a uint16 to numpy."""
        return self._buffer(name, shape, self._low)

    def _buffer(self, name: str, shape: tuple[int, ...], kind: type[np.generic]) -> NDArray[Any]:
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or len(flat) < size:
            like = torch.int16 if kind is np.uint16 else torch.float32
            flat = self._flat[name] = zeros(size, dtype=like).numpy().view(kind)
        return flat[:size].reshape(shape)


def tensor_of(array: NDArray[Any]) -> Tensor:
    """The same memory for torch; uint16 is bfloat16."""
    if array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
