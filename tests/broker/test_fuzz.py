"""A small slice of `make fuzz`: hostile records through the broker, each answered or dead-lettered."""

from pathlib import Path

from schemas.click import Reason
from schemas.topics import TopicNames
from tests.bench.workload import announce_model
from tests.fuzz.through_broker import through_broker

RECORDS = 2_000


def test_every_hostile_record_is_answered_or_dead_lettered_as_it_came(
    bootstrap: str, topic_prefix: str, topics: TopicNames, tmp_path: Path
) -> None:
    announce_model(bootstrap, topics, tmp_path / "model")
    figures = through_broker(bootstrap, topic_prefix, seed=1, count=RECORDS)
    assert figures.problems == []
    assert figures.records == figures.applied + figures.duplicates + figures.dead_lettered == RECORDS
    assert figures.answered == figures.applied > RECORDS / 10
    assert {reason for reason, count in figures.by_reason.items() if count} == {*Reason}
