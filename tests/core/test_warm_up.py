"""No click may wait for a compiler."""

import importlib
import pkgutil
import random
import subprocess
import sys

import torch
from numba.core.dispatcher import Dispatcher

import worker.core
from schemas.model_manifest import Cell
from schemas.session_history import event_hash
from tests.core.driving import kept
from tests.core.models import random_model
from worker.core.advance import Batch, History, Recommender
from worker.core.item_register import ItemRegister
from worker.core.popularity import PopularItems
from worker.core.session_table import SessionTable, TableCounts
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


def serve(cell: Cell, size: int) -> TableCounts:
    """Batches of all sizes, sessions with several clicks, swaps, duplicates, replays, restored sessions."""
    torch.manual_seed(0)
    drawn = random.Random(0)
    table = SessionTable(12, 6, 50_000)
    recommender = Recommender(table, ItemRegister(99), PopularItems(20, 1_000), 20)
    recommender.restore(0, ["s1", "s2"], [kept("s1", History(ITEMS[:3], 0, 0, bytes(8))), None], 0)
    for offset in range(0, 900, 30):
        if offset % 180 == 0:
            recommender.adopt(random_model(ITEMS, size, seed=offset, cell=cell))
        clicks = drawn.choice([1, 2, 7, 30])
        at = [max(offset + place - drawn.choice([0, 0, 40]), 0) for place in range(clicks)]
        recommender.advance(
            Batch(
                [f"s{drawn.randrange(20)}" for _ in at],
                [drawn.choice([*ITEMS, "unknown"]) for _ in at],
                [1_000 * place for place in at],
                [drawn.randrange(2) for _ in at],
                at,
                [event_hash(str(drawn.randrange(4))) for _ in at],
                now_ms=10_000_000,
            )
        )
        recommender.changes()
        if drawn.random() < 0.2:
            table.rollback()
    return table.counts


def check() -> None:
    """In a process of its own: what is compiled here was not compiled by another test."""
    warm_up()
    before = signatures()
    assert any(before.values())
    kinds: list[tuple[Cell, int]] = [("gru", 70), ("gru", 8), ("lstm", 70)]
    for cell, size in kinds:
        counts = serve(cell, size)
        assert counts.duplicates > 0
        assert counts.replayed > 0
        assert counts.evicted > 0
    new = {name: found for name, found in signatures().items() if found != before[name]}
    assert not new, new


def test_nothing_is_left_to_compile() -> None:
    command = [sys.executable, "-c", "from tests.core.test_warm_up import check; check()"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
