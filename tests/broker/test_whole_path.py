"""The whole path: clicks on a topic, a model trained by replaying it, announced, served, and compared."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

from deploy.demo.shop import Shop, ShopSettings
from schemas.click import Click
from schemas.model_artefact import unpack_artefact
from schemas.recommendation import decode_recommendation
from schemas.topics import TopicNames
from tests.support.kafka_io import read_records, send_clicks
from tests.support.reference import assert_equals_reference
from tests.support.worker_process import WarmWorkerProcess, topic_flags

PAST_MS = 1_760_000_000_000
DAY_MS = 86_400_000


def shop_clicks(shop: Shop, stream: str, sessions: int, start_ms: int) -> list[Click]:
    """Clicks of the simulated shop as a producer would send them."""
    events = shop.clicks(shop.sessions(sessions, stream), start_ms, clicks_per_s=20.0, concurrency=100)
    return [Click(event.event_id, event.session_id, event.item_id, event.timestamp_ms) for event in events]


def run_nextclick(*arguments: str) -> str:
    """Run one command to its end; returns what it wrote to standard output."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NEXTCLICK_")}
    done = subprocess.run(
        [sys.executable, "-m", "deploy", *arguments],
        capture_output=True,
        env=environment,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_from_replayed_clicks_to_recommendations_that_equal_the_plain_reference(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path
) -> None:
    shop = Shop(ShopSettings(seed=3, items=300))
    past = shop_clicks(shop, "past", 1_500, PAST_MS)
    send_clicks(bootstrap, topics.clicks, past)
    kafka = ["--bootstrap", bootstrap, *topic_flags(topics)]
    models = ["--models", str(tmp_path / "models")]
    printed = run_nextclick("train", "--topic", *kafka, *models, "--epochs", "2", "--json")
    trained: dict[str, Any] = orjson.loads(printed.splitlines()[-1])
    folder = tmp_path / "models" / trained["model_version"]
    run_nextclick("models", "announce", str(folder), *kafka)
    artefact = unpack_artefact(lambda name: (folder / name).read_bytes())
    assert sum(part.end - part.start for part in artefact.manifest.training_data.offsets) == len(past)

    live = [
        click for click in shop_clicks(shop, "live", 120, PAST_MS + DAY_MS) if click.item_id in artefact.items
    ]
    with WarmWorkerProcess(bootstrap, topic_prefix, ["--history-length", "64"]) as worker:
        worker.wait_ready(trained["model_version"])
        send_clicks(bootstrap, topics.clicks, live)
        records = read_records(bootstrap, topics.recommendations, len(past) + len(live))
        assert worker.terminate() == 0
    found = {}
    for record in records:
        recommendation = decode_recommendation(record.value() or b"")
        found[recommendation.event_id] = recommendation
    assert len(found) == len(records) == len(past) + len(live)
    assert_equals_reference(
        [click for click in [*past, *live] if click.item_id in artefact.items], found, artefact
    )
