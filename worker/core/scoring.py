"""Scores of the whole catalogue and the k best, exactly."""

import torch
from torch import Tensor

BUFFER_BYTES = 4 << 20
"""Scores of one block of queries: small enough to stay in cache between product and selection."""

MIN_BLOCK = 16
"""Queries in a block at least: below, the product reads the catalogue too often for each query."""


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

    def top_k(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The best items for each query [B, H]: scores float32 [B, k], descending, and items int64 [B, k]."""
        if len(queries) <= self._block:
            return self._top_k_of_block(queries)
        parts = [self._top_k_of_block(block) for block in torch.split(queries, self._block)]
        return torch.cat([scores for scores, _ in parts]), torch.cat([items for _, items in parts])

    def _top_k_of_block(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.mm(queries, self._columns, out=self._scores[: len(queries)])
        values, indices = torch.topk(scores, self._k, dim=1)
        return values, indices
