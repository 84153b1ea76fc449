"""Passes over a vector in the lanes of the processor, for compiled code.

In each the numbers are always taken in the same order, which is not that in which they lie.
"""

import numpy as np
from numpy.typing import NDArray

from worker.core.compiled import compiled_with


def _dot(a: NDArray[np.float32], b: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for at in range(a.shape[0]):
        total += a[at] * b[at]
    return total


def _highest(numbers: NDArray[np.float32]) -> np.float32:
    highest = np.float32(-np.inf)
    for number in numbers:
        if number > highest:  # noqa: PLR1730 - max() is not turned into vector code
            highest = number
    return highest


dot = compiled_with(_dot, fastmath={"reassoc", "contract"})
"""a · b."""

highest = compiled_with(_highest, fastmath={"reassoc", "nnan", "nsz"})
"""The highest of some numbers, of which none may be NaN."""
