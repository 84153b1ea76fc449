"""Item ids as small integers: one numbering for all models, so that histories outlive each of them.

A number is given at first sight and never changes while the process lives. Histories, popularity and the
translation to the rows of a model all use it, which keeps a clicked item at four bytes.
"""

import numpy as np
from numpy.typing import NDArray

UNREGISTERED = 0
"""Stands for every item that came after the register was full: in no model, never recommended."""


NUMBER_BYTES = 3
"""In which a number is kept where there are many of them: what was last recommended to each session."""

MAX_ITEMS = 256**NUMBER_BYTES - 1


class ItemRegister:
    """Gives each item id a number from 1 on; bounded, by MAX_ITEMS at most.

    Attributes:
        refused: distinct look-ups that met a full register; where this grows, raise `max_items`.
    """

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._numbers: dict[str, int] = {}
        self._ids: list[str] = [""]
        self.refused = 0

    def __len__(self) -> int:
        """How many numbers are in use, with the one of `UNREGISTERED`."""
        return len(self._ids)

    def has_room_for(self, item_ids: list[str]) -> bool:
        """Whether all of these can be registered."""
        if len(self._ids) + len(item_ids) <= self._max_items + 1:
            return True
        new = sum(1 for item_id in item_ids if item_id not in self._numbers)
        return len(self._ids) + new <= self._max_items + 1

    def number(self, item_id: str) -> int:
        """The number of the item, given now if it is new and there is room, else `UNREGISTERED`."""
        found = self._numbers.get(item_id)
        if found is not None:
            return found
        if len(self._ids) > self._max_items:
            self.refused += 1
            return UNREGISTERED
        given = len(self._ids)
        self._numbers[item_id] = given
        self._ids.append(item_id)
        return given

    def numbers(self, item_ids: list[str]) -> NDArray[np.int64]:
        """Numbers of many items: int64[n], new ones registered in order."""
        try:
            return np.fromiter(map(self._numbers.__getitem__, item_ids), np.int64, len(item_ids))
        except KeyError:  # mostly none is new
            return np.fromiter(map(self.number, item_ids), np.int64, len(item_ids))

    def item_id(self, number: int) -> str:
        """The item id behind a number."""
        return self._ids[number]
