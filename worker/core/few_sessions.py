"""The usual cell and query for a few sessions at once, each in one compiled pass.

A dozen calls of torch take longer to make than what a batch of two clicks has to compute, and such batches
are what low latency is made of. The meaning is that of `worker.core.step`; a test holds the two together.
Each row of the weights is read once for all sessions of the batch. B sessions, H hidden size, D width of an
item; float32.
"""

import math
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.model_manifest import Cell, Score
from worker.core.compiled import compiled
from worker.core.lanes import dot
from worker.core.step import TINY, CellWeights, QueryWeights

Floats = NDArray[np.float32]
Rows = NDArray[np.int32] | NDArray[np.int64]

FEW = 8
"""Up to here step and query together are quicker than torch's products; measured, 1 to 32 sessions."""

ONE = np.float32(1)


class FewSessions(NamedTuple):
    """Weights of a GRU of one layer and of its query, as compiled code reads them."""

    is_cosine: bool
    embedding: Floats  # [V, D]
    w_ih: Floats  # [3H, D]
    w_hh: Floats  # [3H, H]
    b_ih: Floats  # [3H]
    b_hh: Floats  # [3H]
    query_hidden: Floats  # [H, H]
    query_item: Floats  # [H, D]

    @classmethod
    def of(
        cls, cell: Cell, layers: tuple[CellWeights, ...], query: QueryWeights, embedding: Tensor, score: Score
    ) -> Self | None:
        """The same weights, where these passes know what to do with them; else None."""
        if cell != "gru" or len(layers) > 1 or layers[0].w_ih is None or query.query_item is None:
            return None
        tensors = embedding, *layers[0], *query
        arrays = (np.ascontiguousarray(tensor.numpy()) for tensor in tensors if tensor is not None)
        return cls(score == "cosine", *arrays)

    def step(self, clicked: Tensor, states: Tensor) -> Tensor:
        """States [B, H] after clicks on these rows of the embedding, int64 or int32 [B]."""
        after = torch.empty_like(states)
        _step(
            self.embedding,
            clicked.numpy(),
            np.ascontiguousarray(states.numpy()),
            self.w_ih,
            self.w_hh,
            self.b_ih,
            self.b_hh,
            after.numpy(),
        )
        return after

    def ask(self, states: Tensor, clicked: Tensor) -> Tensor:
        """Queries [B, H] of sessions with these states [B, H], whose last clicks were on these rows [B]."""
        asked = torch.empty_like(states)
        _ask(
            np.ascontiguousarray(states.numpy()),
            self.embedding,
            clicked.numpy(),
            self.query_hidden,
            self.query_item,
            self.is_cosine,
            asked.numpy(),
        )
        return asked


@compiled
def _sigmoid(number: np.float32) -> np.float32:
    return ONE / (ONE + np.float32(math.exp(-number)))


@compiled
def _step(
    embedding: Floats,
    clicked: Rows,
    states: Floats,
    w_ih: Floats,
    w_hh: Floats,
    b_ih: Floats,
    b_hh: Floats,
    after: Floats,
) -> None:
    sessions, size = states.shape
    for r in range(size):
        z, n = size + r, 2 * size + r  # rows of the gates: reset, update, new
        for at in range(sessions):
            x, h = embedding[clicked[at]], states[at]
            reset = _sigmoid(dot(w_ih[r], x) + b_ih[r] + dot(w_hh[r], h) + b_hh[r])
            update = _sigmoid(dot(w_ih[z], x) + b_ih[z] + dot(w_hh[z], h) + b_hh[z])
            new = np.float32(math.tanh(dot(w_ih[n], x) + b_ih[n] + reset * (dot(w_hh[n], h) + b_hh[n])))
            after[at, r] = new + update * (h[r] - new)


@compiled
def _ask(
    states: Floats,
    embedding: Floats,
    clicked: Rows,
    query_hidden: Floats,
    query_item: Floats,
    is_cosine: bool,
    asked: Floats,
) -> None:
    sessions, size = asked.shape
    for row in range(size):
        for at in range(sessions):
            x = embedding[clicked[at]]
            asked[at, row] = dot(query_hidden[row], states[at]) + dot(query_item[row], x)
    if is_cosine:
        for at in range(sessions):
            square = max(float(dot(asked[at], asked[at])), TINY)
            asked[at] *= np.float32(1 / math.sqrt(square))
