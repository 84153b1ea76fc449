"""Reads what a run left on its topics, as a read_committed reader sees it."""

import sys
import time
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.click import InvalidClickError, decode_click
from schemas.dead_letter import read_dead_letter_headers
from schemas.recommendation import decode_recommendation
from schemas.session_history import decode_session_history, ended_at
from schemas.topics import TopicNames
from tests.chaos.verdict import Answer, Clicks, Guarantee, History, Letter, Outcome
from tests.support.end_offsets import end_offsets
from worker.shell.records import headers_of

READ_S = 120.0


class UnreadableError(Exception):
    """A topic could not be read to its end; a transaction that nobody ended is one reason."""


def read_outcome(bootstrap: str, topics: TopicNames, guarantee: Guarantee = "exactly_once") -> Outcome:
    """Answers, dead letters and the compacted view of the changelog.

    At least once, a record of an older source offset than one before it does not count: no restore takes it.
    """
    answers = [_answer(record) for record in read_whole(bootstrap, topics.recommendations)]
    letters = [_letter(record) for record in read_whole(bootstrap, topics.dead_letters)]
    histories: dict[str, History | None] = {}
    reached: dict[str, int] = {}
    late = 0
    for record in read_whole(bootstrap, topics.session_histories):
        session_id, history = (record.key() or b"").decode(), _history(record)
        if guarantee == "at_least_once":
            offset = ended_at(headers_of(record)) if history is None else history.source_offset
            if 0 <= offset < reached.get(session_id, 0):
                late += 1
                continue
            reached[session_id] = max(offset, reached.get(session_id, 0))
        histories[session_id] = history
    return Outcome(answers, letters, histories, late)


def read_clicks(bootstrap: str, topic: str, now_ms: int) -> Clicks:
    """What the clicks topic holds.

    Raises:
        UnreadableError: two clicks have one event id.
    """
    offsets: dict[str, int] = {}
    sessions: dict[str, tuple[int, int]] = {}
    watermarks_ms: dict[int, int] = {}
    for record in read_whole(bootstrap, topic):
        try:
            click = decode_click(record.value(), now_ms)
        except InvalidClickError:
            continue
        partition = _number(record.partition())
        if click.event_id in offsets:
            raise UnreadableError(f"the clicks topic holds {click.event_id} twice: the workload is broken")
        offsets[click.event_id] = _number(record.offset())
        latest_ms = sessions.get(click.session_id, (0, 0))[1]
        sessions[click.session_id] = (partition, max(latest_ms, click.timestamp_ms))
        watermarks_ms[partition] = max(watermarks_ms.get(partition, 0), click.timestamp_ms)
    return Clicks(offsets, sessions, watermarks_ms)


def read_whole(bootstrap: str, topic: str) -> Iterator[Message]:
    """All committed records that are on the topic now, up to the very end of each partition.

    Raises:
        UnreadableError: the end was not reached in time; an open transaction holds read_committed readers.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "chaos-reader",  # the client wants one; it is never joined
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    try:
        ends = end_offsets(bootstrap, topic)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
        deadline_s = time.monotonic() + READ_S
        open_partitions = {partition for partition, end in ends.items() if end > 0}
        while open_partitions:
            for record in consumer.consume(1_000, 0.2):
                error = record.error()
                if error is None:
                    yield record
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                elif _number(record.offset()) >= ends[_number(record.partition())]:
                    open_partitions.discard(_number(record.partition()))
            if time.monotonic() > deadline_s:
                raise UnreadableError(
                    f"partitions {sorted(open_partitions)} of {topic} could not be read to their ends within "
                    f"{READ_S:.0f} s: is a transaction still open?"
                )
    finally:
        consumer.close()


class Progress(NamedTuple):
    """How far a group is: records on the clicks topic, and how many of them its commits cover."""

    end: int
    committed: int

    @property
    def lag(self) -> int:
        """Records not yet covered."""
        return self.end - self.committed


class CommitProbe:
    """Asks how far a group has committed, without joining it. One thread only."""

    def __init__(self, bootstrap: str, group_id: str, topic: str, partitions: int) -> None:
        # read_uncommitted: else the broker makes us wait for transactions that are open just now.
        config = {"group.id": group_id, "enable.auto.commit": False, "isolation.level": "read_uncommitted"}
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "log_level": 0, **config})
        self._partitions = [TopicPartition(topic, partition) for partition in range(partitions)]

    def ask(self) -> Progress | None:
        """How far it is; None while the broker cannot say."""
        try:
            committed = self._consumer.committed(self._partitions, timeout=2)
            ends = [self._consumer.get_watermark_offsets(one, timeout=2) for one in self._partitions]
        except KafkaException:  # the broker is away, or still loading its group's offsets
            return None
        if any(end is None for end in ends) or any(one.error is not None for one in committed):
            return None
        return Progress(sum(end[1] for end in ends), sum(max(one.offset, 0) for one in committed))

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def open_transactions(bootstrap: str, topics: TopicNames) -> list[str]:
    """Where read_committed readers wait: partitions whose last stable offset is behind their end."""
    return [
        f"{topic}[{partition}] at {stable} of {end}"
        for topic in (topics.recommendations, topics.dead_letters, topics.session_histories)
        for (partition, end), stable in zip(
            end_offsets(bootstrap, topic).items(),
            end_offsets(bootstrap, topic, "read_committed").values(),
            strict=True,
        )
        if stable < end
    ]


def _answer(record: Message) -> Answer:
    found = decode_recommendation(record.value() or b"")
    return Answer(
        found.session_id,
        found.event_id,
        tuple(map(sys.intern, found.items)),  # millions of them, of a few hundred kinds
        array("f", found.scores),
        found.model_version,
        found.source,
    )


def _letter(record: Message) -> Letter:
    headers = record.headers()
    said = read_dead_letter_headers(headers if isinstance(headers, list) else [])
    return Letter(int(said.partition), int(said.offset), said.reason, record.value())


def _history(record: Message) -> History | None:
    value = record.value()
    if value is None:
        return None
    found = decode_session_history(value)
    return History(
        tuple(found.items),
        found.last_activity_ms,
        found.source_partition,
        found.source_offset,
        found.recent_events,
    )


def _number(value: int | None) -> int:
    """Partition or offset of a record that was read; None stands only in those that never were."""
    assert value is not None
    return value
