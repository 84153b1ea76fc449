"""Prequential quality: each click is judged against what was last recommended to its session, then learned.

Nothing is held out and nothing is waited for; in the long run the hit rate is recall@k as users lived it.
(Dawid 1984, "Present position and potential developments: the prequential approach".)
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.recommendation import Source
from worker.core.item_register import NUMBER_BYTES, UNREGISTERED

NOTHING_PUBLISHED = UNREGISTERED
"""Fills up answers of fewer than k items: the number of no item that is ever recommended."""


class Judgement(NamedTuple):
    """How the batch's clicks compare with the recommendations before them, by who made those."""

    judged: dict[Source, int]
    hits: dict[Source, int]
    reciprocal_ranks: dict[Source, float]


NOTHING_JUDGED = Judgement(
    {"model": 0, "popular": 0}, {"model": 0, "popular": 0}, {"model": 0.0, "popular": 0.0}
)


class PublishedTable:
    """What was last published to the session in each row. N = `max_sessions`, k = `top_k`.

    Items are item numbers, so a recommendation can be judged after the model that made it is gone.

    Args:
        items: uint8 [N, NUMBER_BYTES · k], zero everywhere at first, which is NOTHING_PUBLISHED; it is the
            session table's.
        by_model: uint8 [N], as well.
    """

    def __init__(self, items: NDArray[np.uint8], by_model: NDArray[np.uint8]) -> None:
        self._items = items
        self._by_model = by_model

    def judge(
        self,
        rows: NDArray[np.int64],
        fresh: NDArray[np.bool_],
        counts: NDArray[np.bool_],
        clicked: NDArray[np.int64],
        answers: NDArray[np.int32],
        by_model: NDArray[np.bool_],
    ) -> Judgement:
        """Judge the clicks of a batch and remember its answers for the next.

        Args:
            rows: int64[n], table row of each click, in order.
            fresh: bool[n], the session starts with this click: nothing was published to it.
            counts: bool[n], False for a click that was judged before.
            clicked: int64[n], item numbers.
            answers: int32[n, k], item numbers that answer each click, best first, NOTHING_PUBLISHED behind.
            by_model: bool[n], whether a model made the answer.
        """
        before, before_by_model = _unpacked(self._items[rows]), self._by_model[rows] != 0
        packed = _packed(answers)
        if len(set(rows.tolist())) == len(rows):
            self._items[rows], self._by_model[rows] = packed, by_model
        else:
            order = np.argsort(rows, kind="stable")
            follows = rows[order[1:]] == rows[order[:-1]]
            later, earlier = order[1:][follows], order[:-1][follows]
            before[later], before_by_model[later] = answers[earlier], by_model[earlier]
            last = order[np.append(~follows, True)]  # of its row in this batch
            self._items[rows[last]], self._by_model[rows[last]] = packed[last], by_model[last]
        judged = counts & ~fresh & (before[:, 0] != NOTHING_PUBLISHED)
        return _compare(before, before_by_model, judged, clicked)


def _packed(numbers: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Item numbers int32 [n, k] without their highest byte, which is zero: uint8 [n, NUMBER_BYTES · k]."""
    count, k = numbers.shape
    four = numbers.astype("<i4").view(np.uint8).reshape(count, k, 4)
    return four[:, :, :NUMBER_BYTES].reshape(count, k * NUMBER_BYTES)


def _unpacked(packed: NDArray[np.uint8]) -> NDArray[np.int32]:
    """What `_packed` packed."""
    count, k = len(packed), packed.shape[1] // NUMBER_BYTES
    four = np.zeros((count, k, 4), np.uint8)
    four[:, :, :NUMBER_BYTES] = packed.reshape(count, k, NUMBER_BYTES)
    return four.view("<i4")[:, :, 0]


def _compare(
    published: NDArray[np.int32],
    by_model: NDArray[np.bool_],
    judged: NDArray[np.bool_],
    clicked: NDArray[np.int64],
) -> Judgement:
    if not judged.any():
        return NOTHING_JUDGED
    matches = published == clicked[:, None]
    matches &= (judged & (clicked != UNREGISTERED))[:, None]
    where, places = matches.nonzero()  # of a click at most one: the items of an answer differ
    of_model = by_model[where]
    counts, hits = int(np.count_nonzero(judged)), len(where)
    counts_of_model, hits_of_model = int(np.count_nonzero(judged & by_model)), int(np.count_nonzero(of_model))
    reciprocal = of_model_reciprocal = 0.0
    if hits:
        each = 1.0 / (places + 1)
        reciprocal, of_model_reciprocal = float(each.sum()), float(each[of_model].sum())
    return Judgement(
        {"model": counts_of_model, "popular": counts - counts_of_model},
        {"model": hits_of_model, "popular": hits - hits_of_model},
        {"model": of_model_reciprocal, "popular": reciprocal - of_model_reciprocal},
    )
