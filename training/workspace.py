"""Buffers that are used again at every step: fresh memory costs more than filling it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.memory import zeros


@dataclass(frozen=True, eq=False)
class Buffer:
    """The same memory twice: for numba and for torch."""

    array: NDArray[Any]
    tensor: Tensor


class Workspace:
    """Named buffers of a thread. They grow to the largest shape asked for, and start at zero.

    Of what is asked for next, the values are those left by the last user of that name.
    """

    def __init__(self, low: torch.dtype = torch.float32) -> None:
        """`low` is the kind of those buffers that go into products of that precision."""
        self._low = low
        self._flat: dict[str, Tensor] = {}
        self._last: dict[str, tuple[tuple[int, ...], Buffer]] = {}  # made anew only for another shape

    def floats(self, name: str, *shape: int) -> Buffer:
        """A float32 buffer."""
        return self._buffer(name, shape, torch.float32)

    def low(self, name: str, *shape: int) -> Buffer:
        """A buffer of the low precision; a bfloat16 is a uint16 to numpy."""
        return self._buffer(name, shape, self._low)

    def _buffer(self, name: str, shape: tuple[int, ...], kind: torch.dtype) -> Buffer:
        last = self._last.get(name)
        if last is None or last[0] != shape:
            last = self._last[name] = shape, self._view(name, shape, kind)
        return last[1]

    def _view(self, name: str, shape: tuple[int, ...], kind: torch.dtype) -> Buffer:
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or len(flat) < size:
            flat = zeros(size, dtype=torch.int16 if kind == torch.bfloat16 else kind)
            self._flat[name] = flat
        values = flat[:size].view(shape)
        if kind == torch.bfloat16:
            return Buffer(values.numpy().view(np.uint16), values.view(kind))
        return Buffer(values.numpy(), values)
