"""Two runs that must go on alike, where one was rolled back or restored on its way.

What is popular, and what was published before, is no part of a session's history: of popular answers only
their source is compared.
"""

from tests.core.driving import NOW_MS, START_MS, Run, Swap, check_same_answers
from tests.core.models import random_model
from tests.core.reference import HOUR_MS, Click

MODELS = [
    random_model([f"i{item}" for item in range(10)], hidden_size=4, seed=1),
    random_model([*(f"i{item}" for item in range(0, 14, 2)), "new"], hidden_size=7, seed=3),
    random_model([f"i{item}" for item in range(9, 2, -1)], hidden_size=3, seed=4, cell="lstm", layers=2),
    random_model([f"i{item}" for item in range(12)], 5, seed=5, cell="rnn", item_embedding="separate"),
]


def step_both(one: Run, other: Run, batch: list[Click] | Swap) -> None:
    """The same batch, or model, to both."""
    if isinstance(batch, Swap):
        one.adopt(MODELS[batch.model])
        other.adopt(MODELS[batch.model])
        return
    for mine, theirs in zip(one.advance(batch), other.advance(batch), strict=True):
        if mine is None or theirs is None:
            assert mine is theirs
            continue
        assert mine.source == theirs.source
        if mine.source == "model":
            check_same_answers([mine], [theirs])


def check_same_step(one: Run, other: Run, keys: set[tuple[int, str]]) -> None:
    """After a batch: the same changes in the same order, and the same sessions."""
    assert one.worker.changes() == other.worker.changes()
    live = one.live(keys)
    assert live == other.live(keys)
    for partition, session in live:
        assert one.history(session, partition) == other.history(session, partition)


def check_same_run_off(one: Run, other: Run, keys: set[tuple[int, str]]) -> None:
    """Sessions of a new partition push out all others one by one, then time lets the rest go."""
    size = max(len(one.worker.table), 1)
    keys = set(keys)
    for number in range(size + 2):
        batch = [Click(f"late-{number}", "i1", START_MS + 50 * HOUR_MS, 7, number)]
        keys.add((7, f"late-{number}"))
        step_both(one, other, batch)
        check_same_step(one, other, keys)
    for partition in sorted({partition for partition, _ in keys}):
        batch = [Click("last", "i1", NOW_MS, partition, 10_000)]
        keys.add((partition, "last"))
        step_both(one, other, batch)
        check_same_step(one, other, keys)
