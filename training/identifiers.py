"""Identifiers of a log in little memory: each kept once, in one polars column, and a number for each click.

A short identifier takes 16 bytes in a column, and 68 in a Python list.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import SupportsIndex, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Identifiers(Sequence[str]):
    """Distinct identifiers in the order of their code points, as `sorted` gives them."""

    def __init__(self, column: pl.Series) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __iter__(self) -> Iterator[str]:
        return iter(self._column)

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> str | list[str]:
        if isinstance(index, slice):
            part: list[str] = self._column[index].to_list()
            return part
        one: str = self._column[int(index)]  # NumPy's integers are none for polars
        return one

    def among(self, ids: Collection[str]) -> NDArray[np.bool_]:
        """Which of the identifiers are in `ids`: bool, one per identifier."""
        wanted = pl.Series(list(ids), dtype=pl.String)
        found: NDArray[np.bool_] = self._column.is_in(wanted.implode()).to_numpy()
        return found


class IdColumn:
    """The identifiers of all clicks, taken in block by block.

    polars numbers identifiers by a hash table that holds each once. What numbers it gives is its own affair:
    `build` puts the order of the identifiers themselves in their place.
    """

    def __init__(self) -> None:
        self._type = pl.Categorical(pl.Categories.random())
        self._kept = pl.Series(dtype=self._type)  # with its last column, polars forgets the numbering
        self._blocks: list[NDArray[np.uint32]] = []

    def add(self, ids: pl.Series) -> None:
        """Take the identifiers of the next clicks: text, no nulls."""
        self._blocks.append(ids.cast(self._type).to_physical().to_numpy())

    def build(self, good: list[NDArray[np.bool_]] | None = None) -> tuple[NDArray[np.int32], Identifiers]:
        """Return the clicks' indices into the identifiers, int32 [N], and those. To be called once.

        Args:
            good: per block, which clicks to keep: bool [clicks of the block]; None keeps all.
        """
        if good is not None:
            for at, mask in enumerate(good):
                self._blocks[at] = self._blocks[at][mask]
        used = np.zeros(1 + max((int(block.max()) for block in self._blocks if len(block)), default=-1), bool)
        for block in self._blocks:
            used[block] = True
        numbers = np.flatnonzero(used).astype(np.uint32)
        ids = pl.Series(numbers).cat.to(self._type).cast(pl.String)
        order = ids.arg_sort().to_numpy()
        index_of = np.empty(len(used), np.int32)
        index_of[numbers[order]] = np.arange(len(numbers), dtype=np.int32)
        codes = np.empty(sum(map(len, self._blocks)), np.int32)
        at = 0
        self._blocks.reverse()
        while self._blocks:  # each block goes as it is copied
            block = self._blocks.pop()
            codes[at : at + len(block)] = index_of[block]
            at += len(block)
        return codes, Identifiers(ids.gather(order))
