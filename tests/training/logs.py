"""Small click logs for the tests of the trainer."""

import numpy as np
import torch

from training.click_log import ClickLog, ClickLogBuilder, LoadedLog
from training.sessions import Sessions
from worker.core.session_model import SessionModel
from worker.core.step import CellWeights, QueryWeights, unit_items

NOW_MS = 1_800_000_000_000
START_MS = 1_700_000_000_000


def sessions_of(*clicks: list[int]) -> Sessions:
    """Sessions with these item indices; session s ends at s minutes."""
    lengths = [len(items) for items in clicks]
    return Sessions(
        np.array([item for items in clicks for item in items], np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.arange(len(clicks), dtype=np.int32),
        np.arange(len(clicks), dtype=np.int64) * 60_000,
    )


def log_of(*clicks: tuple[str, str, int]) -> ClickLog:
    """A log of (session, item, seconds after the start)."""
    builder = ClickLogBuilder()
    for session_id, item_id, at_s in clicks:
        builder.add(session_id, item_id, START_MS + at_s * 1_000)
    return builder.build()


def habit_log(sessions: int = 500, items: int = 60, seed: int = 3) -> LoadedLog:
    """Users who follow item i with item 7·i + 1 (modulo the items) four times out of five; else any item."""
    rng = np.random.default_rng(seed)
    builder = ClickLogBuilder()
    for session in range(sessions):
        item = int(rng.integers(items))
        for click in range(int(rng.integers(2, 9))):
            builder.add(f"s{session}", f"item-{item}", START_MS + session * 60_000 + click * 1_000)
            item = (7 * item + 1) % items if rng.random() < 0.8 else int(rng.integers(items))
    return LoadedLog(builder.build(), "file", "habits.tsv")


def random_model(items: int, hidden_size: int = 8, seed: int = 0) -> SessionModel:
    """A model with random weights and the items "0", "1", …."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    embedding = normal(items, hidden_size)
    gates = 3 * hidden_size
    cell = CellWeights(normal(gates, hidden_size), normal(gates, hidden_size), normal(gates), normal(gates))
    return SessionModel(
        version="random",
        items=[str(item) for item in range(items)],
        embedding=embedding,
        item_matrix=unit_items(embedding) * 11,
        layers=(cell,),
        query=QueryWeights(normal(hidden_size, hidden_size), normal(hidden_size, hidden_size)),
    )
