"""Prequential quality: each click is judged against what was last recommended to its session, then learned.

Nothing is held out and nothing is waited for; in the long run the hit rate is recall@k as users lived it.
(Dawid 1984, "Present position and potential developments: the prequential approach".)
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.recommendation import Source
from worker.core.compiled import compiled
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
        tally = np.zeros((2, 3))
        _judge(self._items, self._by_model, rows, fresh, counts, clicked, answers, by_model, tally)
        (popular_judged, popular_hits, popular_ranks), (judged, hits, ranks) = tally.tolist()
        return Judgement(
            {"model": int(judged), "popular": int(popular_judged)},
            {"model": int(hits), "popular": int(popular_hits)},
            {"model": ranks, "popular": popular_ranks},
        )


@compiled
def _judge(
    published: NDArray[np.uint8],
    published_by_model: NDArray[np.uint8],
    rows: NDArray[np.int64],
    fresh: NDArray[np.bool_],
    counts: NDArray[np.bool_],
    clicked: NDArray[np.int64],
    answers: NDArray[np.int32],
    by_model: NDArray[np.bool_],
    tally: NDArray[np.float64],
) -> None:
    """Click by click, as one session may have several. Adds clicks judged, hits and reciprocal ranks to
    `tally` [2, 3], those of popular items first.
    """
    places = answers.shape[1]
    for at in range(rows.shape[0]):
        row = rows[at]
        shown = published[row]
        if counts[at] and not fresh[at] and places and _number(shown, 0) != NOTHING_PUBLISHED:
            source = 1 if published_by_model[row] else 0
            tally[source, 0] += 1
            for place in range(places):
                if clicked[at] == _number(shown, place) and clicked[at] != UNREGISTERED:
                    tally[source, 1] += 1
                    tally[source, 2] += 1 / (place + 1)
        for place in range(places):
            for byte in range(NUMBER_BYTES):
                shown[NUMBER_BYTES * place + byte] = (answers[at, place] >> (8 * byte)) & 255
        published_by_model[row] = by_model[at]


@compiled
def _number(shown: NDArray[np.uint8], place: int) -> int:
    """The item number at this place of an answer: its bytes without the highest, which is zero."""
    number = 0
    for byte in range(NUMBER_BYTES):
        number += int(shown[NUMBER_BYTES * place + byte]) << (8 * byte)
    return number
