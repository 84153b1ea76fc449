"""What a session model has to beat. Same targets, same rule for ties, ranks as in `training.evaluate`.

Each learns from the training part alone. What a baseline gives no score comes last in its list, all tied.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.baselines.item_knn import item_knn_ranks
from training.baselines.markov import markov_ranks
from training.baselines.popularity import popularity_ranks, recent_popularity_ranks
from training.baselines.session_index import index_sessions
from training.baselines.vs_knn import vs_knn_ranks
from training.evaluation import Metrics, metrics
from training.progress import Progress, Report
from training.sessions import Sessions


def compare(
    train: Sessions, test: Sessions, items: int, counted: NDArray[np.bool_], report: Report
) -> dict[str, Metrics]:
    """Score all baselines, simplest first.

    Args:
        train: the training part, oldest first.
        test: the test part.
        items: size of the vocabulary whose rows the item indices of both are; `test` may hold `UNKNOWN`.
        counted: which of the targets count, bool over all targets of `test`.
        report: called as each goes on.
    """
    index = index_sessions(train, items)

    def part(done_before: int) -> Callable[[int, int], None]:
        """Progress of the two slow ones, which count sessions as a thousand parts each."""
        return lambda done, total: report(
            Progress("baselines", done_before + 1_000 * done // max(1, total), 2_000)
        )

    found = {
        "popularity": popularity_ranks(train, test, items),
        "recent popularity": recent_popularity_ranks(train, test, items),
        "markov": markov_ranks(train, test, items),
        "item-kNN": item_knn_ranks(index, test, part(0)),
        "VS-kNN": vs_knn_ranks(index, test, part(1_000)),
    }
    report(Progress("baselines", 2_000, 2_000))
    return {name: metrics(ranks[counted]) for name, ranks in found.items()}
