"""What becomes of records that are no clicks: a dead letter each, up to the cap."""

from collections.abc import Sequence
from typing import NamedTuple

from confluent_kafka import Message

from schemas.click import InvalidClickError
from schemas.dead_letter import Letter, cut, dead_letter_headers, fit_for_brokers
from schemas.topics import TopicNames
from worker.core.dead_letter_cap import DeadLetterCap
from worker.shell.failures import OutputTooLarge, TooManyDeadLetters
from worker.shell.log import TroubleLog
from worker.shell.metrics import WorkerMetrics
from worker.shell.records import headers_of, offset_of, partition_of
from worker.shell.sink import Sink

SHOWN_PAYLOAD_BYTES = 1_024
"""Of a bad record, in the log line, where that is asked for."""


class BadRecord(NamedTuple):
    """A record that is no click, and why."""

    record: Message
    error: InvalidClickError


class DeadLetters:
    """Sends dead letters, and says when there are too many. One thread only.

    Args:
        sink: for the outputs.
        topics: the topic names.
        metrics: of the worker.
        cap: above which the worker stops.
        log_payloads: whether log lines show the start of a bad record.
    """

    def __init__(
        self,
        sink: Sink,
        topics: TopicNames,
        metrics: WorkerMetrics,
        cap: DeadLetterCap,
        log_payloads: bool,
    ) -> None:
        self._sink = sink
        self._topics = topics
        self._metrics = metrics
        self._cap = cap
        self._log_payloads = log_payloads
        self._trouble = TroubleLog()

    def check(self, records: int, bad: Sequence[BadRecord]) -> None:
        """Hold a batch of so many records against the cap, before anything of it is sent.

        Raises:
            TooManyDeadLetters: it is exceeded.
        """
        if self._cap.exceeded_by(records, len(bad)):
            last, error = bad[-1]
            raise TooManyDeadLetters(
                f"{self._cap.letters + len(bad):,} of the last {self._cap.records + records:,} records are "
                f"no clicks, such as partition {last.partition()}, offset {last.offset()}: {error}. Nothing "
                "of this batch was taken. Mend the producer, or let all through: --dead-letter-max-ratio 1"
            )

    def send(self, bad: Sequence[BadRecord]) -> None:
        """Send each as it came, as part of the open batch; what is too large for that is cut.

        Raises:
            OutputLost, BatchAborted, StopRequested: as of `Sink.send`.
        """
        for record, error in bad:
            original = Letter(record.key(), record.value(), headers_of(record))
            try:
                self._send(fit_for_brokers(*original), record, error)
            except OutputTooLarge:  # the operator's bound is lower than ours
                self._send(cut(*original), record, error)

    def note(self, records: int, bad: Sequence[BadRecord]) -> None:
        """The batch is through: count and tell."""
        self._cap.note(records, len(bad))
        for record, error in bad:
            self._metrics.dead_letters[error.reason].inc()
            said: dict[str, object] = {"partition": record.partition(), "offset": record.offset()}
            if self._log_payloads:
                said["value"] = repr((record.value() or b"")[:SHOWN_PAYLOAD_BYTES])
            self._trouble.warning("dead_letter", error.reason.value, detail=error.detail, **said)

    def _send(self, letter: Letter, record: Message, error: InvalidClickError) -> None:
        partition = partition_of(record)
        headers = dead_letter_headers(
            self._topics.clicks, partition, offset_of(record), error, letter.headers
        )
        self._sink.send(self._topics.dead_letters, partition, letter.key, letter.value, headers)
