"""What the benchmarks run on: 10,000 items, hidden size 128, top 20, Zipf-like clicks, many live sessions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from schemas.announcement import ModelAnnouncement, encode_announcement
from schemas.click import Click
from schemas.model_artefact import sha256_hex
from schemas.model_manifest import MANIFEST_FILE
from schemas.topics import TopicNames
from tests.support.artefacts import write_random_model
from tests.support.kafka_io import send_records

ITEMS = [f"item-{number:05}" for number in range(10_000)]
HIDDEN_SIZE = 128
TOP_K = 20
LIVE_SESSIONS = 20_000
START_MS = 1_760_000_000_000


def clicks(count: int, seed: int) -> Iterator[Click]:
    """A stream of clicks, event ids `0` to `count - 1` in order; sessions and items drawn at random.

    Item popularity falls as 1/rank, as in the public logs; any of `LIVE_SESSIONS` sessions may click next.
    """
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, len(ITEMS) + 1)
    items = rng.choice(len(ITEMS), count, p=weights / weights.sum()).tolist()
    sessions = rng.integers(LIVE_SESSIONS, size=count).tolist()
    for number, (session, item) in enumerate(zip(sessions, items, strict=True)):
        yield Click(str(number), f"session-{session:08}", ITEMS[item], START_MS + number)


def announce_model(bootstrap: str, topics: TopicNames, folder: Path) -> str:
    """Write and announce a random model of the benchmark's size; returns its version."""
    write_random_model(folder, ITEMS, HIDDEN_SIZE, seed=0, version="bench")
    announcement = ModelAnnouncement(
        format_version=1,
        model_version="bench",
        uri=str(folder),
        manifest_sha256=sha256_hex((folder / MANIFEST_FILE).read_bytes()),
        announced_at_ms=START_MS,
    )
    send_records(bootstrap, topics.models, [("bench", encode_announcement(announcement))])
    return "bench"
