"""Compiles what is not compiled yet, so that no click waits for it."""

import torch

from schemas.session_history import EVENT_HASH_BYTES
from worker.core.advance import Batch, Recommender
from worker.core.item_register import ItemRegister
from worker.core.popularity import PopularItems
from worker.core.session_model import SessionModel
from worker.core.session_table import SessionTable
from worker.core.step import CellWeights, QueryWeights

SIZE = 2


def warm_up() -> None:
    """Advance two sessions of a tiny table by a click each, and re-encode them for another model.

    Some seconds the first time after an installation, less than one when the code lies on disk.
    """
    table = SessionTable(4, history_length=2, idle_timeout_ms=1, duplicate_window=1, top_k=1)
    recommender = Recommender(table, ItemRegister(4), PopularItems(1, half_life_ms=1), top_k=1)
    for _ in range(2):
        recommender.adopt(_tiny_model())
        recommender.advance(
            Batch(["a", "b"], ["x", "y"], [0, 0], [0, 0], [0, 1], [bytes(EVENT_HASH_BYTES)] * 2, now_ms=0)
        )


def _tiny_model() -> SessionModel:
    square, gates = torch.eye(SIZE), torch.zeros(3 * SIZE, SIZE)
    cell = CellWeights(gates, gates, torch.zeros(3 * SIZE), torch.zeros(3 * SIZE))
    return SessionModel("", ["x", "y"], square, square, (cell,), QueryWeights(square, square))
