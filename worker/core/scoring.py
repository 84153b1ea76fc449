"""Scores of the whole catalogue and the k best, exactly."""

import torch
from torch import Tensor

BUFFER_BYTES = 4 << 20
"""Scores of one block of queries: small enough to stay in cache between product and selection."""

MIN_BLOCK = 16
"""Queries in a block at least: below, the product reads the catalogue too often for each query."""


GROUP = 16
"""Items of which only the best counts while the k best groups are sought; measured beside 8, 25 and 40."""

MIN_GROUPS_PER_RESULT = 4
MIN_GROUPED_SCORES = 40_000
"""Below either, in a block, one plain selection costs less than seeking the groups first; measured."""


class Scorer:
    """Exact top-k against one item matrix; owns its buffer, so one per thread.

    Args:
        item_matrix: float32 [V, H], best in column order.
        top_k: results per query; fewer where the catalogue is smaller.
    """

    def __init__(self, item_matrix: Tensor, top_k: int) -> None:
        items = item_matrix.shape[0]
        self._columns = item_matrix.t()
        self._k = min(top_k, items)
        self._block = max(MIN_BLOCK, BUFFER_BYTES // (4 * items))
        self._scores = torch.empty(self._block, items)
        self._groups = items // GROUP
        self._has_groups = self._groups >= MIN_GROUPS_PER_RESULT * self._k
        self._within_group = self._groups * torch.arange(GROUP).unsqueeze(1)
        self._rest = torch.arange(self._groups * GROUP, items)

    def top_k(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The best items for each query [B, H]: scores float32 [B, k], descending, and items int64 [B, k]."""
        if len(queries) <= self._block:
            return self._top_k_of_block(queries)
        parts = [self._top_k_of_block(block) for block in torch.split(queries, self._block)]
        return torch.cat([scores for scores, _ in parts]), torch.cat([items for _, items in parts])

    def _top_k_of_block(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.mm(queries, self._columns, out=self._scores[: len(queries)])
        if self._has_groups and scores.numel() >= MIN_GROUPED_SCORES:
            return self._top_k_by_groups(scores)
        values, indices = scores.topk(self._k)
        return values, indices

    def _top_k_by_groups(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The k best of each row [B, V], descending, and where they stand; V of k groups at least.

        A group's best is one pass at memory speed. What is among the k best lies in one of the k groups with
        the highest best: were its own not among them, each of these would hold one that is no worse. Groups
        are columns `groups` apart, so that neighbours are compared at once; the rest of V is looked at whole.
        """
        rows, groups = len(scores), self._groups
        grouped = scores[:, : groups * GROUP].view(rows, GROUP, groups)
        chosen = grouped.amax(1).topk(self._k, sorted=False).indices
        candidates = (chosen.unsqueeze(1) + self._within_group).flatten(1)
        if len(self._rest):
            candidates = torch.cat([candidates, self._rest.expand(rows, -1)], dim=1)
        best = scores.gather(1, candidates).topk(self._k)
        return best.values, candidates.gather(1, best.indices)
