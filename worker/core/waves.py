"""Splits a batch into waves: at most one click per table row in each, order within a row kept.

A wave can be advanced with one matrix product; the waves of a batch run one after the other.
"""

import numpy as np
from numpy.typing import NDArray


def split_into_waves(rows: list[int]) -> list[NDArray[np.int64]]:
    """Positions of the batch, wave by wave.

    Args:
        rows: table row of each click, in the order of the clicks.

    Returns:
        int64 arrays of positions, ascending within a wave; wave i holds the i-th click of each row. Together
        they hold every position once.
    """
    if len(set(rows)) == len(rows):
        return [np.arange(len(rows))]
    seen: dict[int, int] = {}
    waves: list[list[int]] = []
    for position, row in enumerate(rows):
        wave = seen.get(row, 0)
        seen[row] = wave + 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(position)
    return [np.array(wave) for wave in waves]
