"""No click may wait for a compiler."""

import importlib
import pkgutil
import random

import pytest
import torch
from numba.core.dispatcher import Dispatcher

import worker.core
from schemas.model_manifest import Cell
from schemas.session_history import event_hash
from tests.core.models import random_model
from worker.core.advance import Batch, History, Recommender
from worker.core.item_register import ItemRegister
from worker.core.popularity import PopularItems
from worker.core.session_table import SessionTable
from worker.core.warm_up import warm_up

ITEMS = [f"i{number}" for number in range(60)]


def signatures() -> dict[str, list[object]]:
    """What is compiled of the core by now: signatures by function; none for what others have in them."""
    modules = [
        importlib.import_module(f"worker.core.{found.name}")
        for found in pkgutil.iter_modules(worker.core.__path__)
    ]
    return {
        f"{module.__name__}.{name}": list(value.signatures)
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Dispatcher) and value.__module__ == module.__name__
    }


@pytest.mark.parametrize(("cell", "size"), [("gru", 70), ("gru", 8), ("lstm", 70)])
def test_nothing_is_left_to_compile(cell: Cell, size: int) -> None:
    """Batches of all sizes, sessions with several clicks, swaps, duplicates, replays, restored sessions."""
    warm_up()
    before = signatures()
    assert any(before.values())
    torch.manual_seed(0)
    drawn = random.Random(0)
    recommender = Recommender(SessionTable(40, 6, 50_000), ItemRegister(99), PopularItems(20, 1_000), 20)
    recommender.restore(0, ["s1", "s2"], [History(ITEMS[:3], 0, 0, bytes(8)), None])
    for offset in range(0, 900, 30):
        if offset % 180 == 0:
            recommender.adopt(random_model(ITEMS, size, seed=offset, cell=cell))
        clicks = drawn.choice([1, 2, 7, 30])
        at = [max(offset + place - drawn.choice([0, 0, 40]), 0) for place in range(clicks)]
        recommender.advance(
            Batch(
                [f"s{drawn.randrange(60)}" for _ in at],
                [drawn.choice([*ITEMS, "unknown"]) for _ in at],
                [1_000 * place for place in at],
                [drawn.randrange(2) for _ in at],
                at,
                [event_hash(str(place)) for place in at],
                now_ms=10_000_000,
            )
        )
        recommender.changes()
        if drawn.random() < 0.2:
            recommender.table.rollback()
    assert signatures() == before
