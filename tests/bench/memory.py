"""How much memory a live session takes: growth of the resident set while sessions come, in a fresh process.

    python -m tests.bench.memory SESSIONS

prints one JSON line. A row is as large with one click as with 32, so each session clicks twice: the second
time around all pages are there.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import orjson

from schemas.model_artefact import unpack_artefact
from schemas.session_history import event_hash
from tests.bench.workload import HIDDEN_SIZE, START_MS, TOP_K
from tests.soak.observe import resident_mb
from tests.support.artefacts import write_random_model
from worker.core.advance import Batch, Recommender
from worker.core.item_register import ItemRegister
from worker.core.popularity import PopularItems
from worker.core.session_model import session_model
from worker.core.session_table import SessionTable
from worker.shell.settings import WorkerSettings

BATCH = 1_000
FEW_ITEMS = 200
"""Scoring is not what is measured here."""


def bytes_per_session(sessions: int) -> dict[str, float]:
    """Bytes of resident memory per live session, in all and by what they are for."""
    output = subprocess.run(
        [sys.executable, "-m", __name__, str(sessions)], capture_output=True, check=True, timeout=600
    ).stdout
    found: dict[str, float] = orjson.loads(output)
    return found


def measure(sessions: int) -> dict[str, float]:
    """As `bytes_per_session`, in this process."""
    settings = WorkerSettings()
    table = SessionTable(
        sessions + BATCH,
        settings.history_length,
        settings.idle_timeout_ms,
        settings.duplicate_window,
        settings.top_k,
    )
    recommender = Recommender(table, ItemRegister(10_000), PopularItems(TOP_K, 86_400_000), TOP_K)
    items = [f"item-{number:05}" for number in range(FEW_ITEMS)]
    with tempfile.TemporaryDirectory() as folder:
        path = write_random_model(Path(folder) / "model", items, HIDDEN_SIZE, seed=0, version="bench")
        recommender.adopt(session_model(unpack_artefact(lambda name: (path / name).read_bytes())))
    _feed(recommender, items, sessions, sessions + BATCH, 0)  # what is needed once is there now
    before = resident_mb()
    for turn in range(2):
        for start in range(0, sessions, BATCH):
            _feed(recommender, items, start, start + BATCH, turn * sessions)
    grown = (resident_mb() - before) * 1e6
    assert len(table) == sessions + BATCH
    return {"all": round(grown / sessions, 1), **table.bytes_per_row()}


def _feed(recommender: Recommender, items: list[str], start: int, end: int, offset: int) -> None:
    numbers = range(start, end)
    recommender.advance(
        Batch(
            [f"session-{number:08}" for number in numbers],
            [items[number % FEW_ITEMS] for number in numbers],
            [START_MS] * len(numbers),
            [number % 4 for number in numbers],
            [offset + number for number in numbers],
            [event_hash(f"{offset + number}") for number in numbers],
            START_MS,
        )
    )
    recommender.changes()  # the worker writes them to the changelog


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(measure(int(sys.argv[1]))))
