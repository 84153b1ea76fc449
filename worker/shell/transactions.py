"""Exactly once: all that comes of a batch, and the offsets it was read from, in one Kafka transaction.

The consumer's group metadata goes with the offsets (KIP-447), so that the group coordinator refuses those of
a worker that has lost its place in the group, and one producer serves all partitions. What librdkafka says of
an error decides: `retriable` → the same call again; `txn_requires_abort` → `BatchAborted`, and the batch is
undone and done again; fatal, which is what a fenced worker gets → `MustRestart`.
"""

import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import NoReturn

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from worker.shell.brokers_answer import do_brokers_answer
from worker.shell.client_config import client_logger, for_producer
from worker.shell.failures import BatchAborted, CannotStart, MustRestart, OutputLost
from worker.shell.hang_watch import HangWatch
from worker.shell.log import TroubleLog
from worker.shell.sink import (
    FULL_QUEUE_WAIT_S,
    PRODUCER_DEFAULTS,
    PRODUCER_RULES,
    Explain,
    Header,
    refused_at_once,
)

log = structlog.get_logger()

TRANSACTION_DEFAULTS = {
    # The coordinator closes one transaction while the next one asks to begin: with librdkafka's default of
    # 100 ms the client waits that long before it asks again, at every batch.
    "retry.backoff.ms": "1",
    # How long readers are held up behind a worker that died within a batch. A batch takes milliseconds.
    "transaction.timeout.ms": "10000",
}

ATTEMPT_S = 1.0
"""How long one call may block: between two attempts the group membership is kept alive."""

STUCK_S = 20.0
"""How long a call may be repeated while brokers answer: twice the time after which they abort it."""

OPEN_S = 60.0
"""How long a starting worker waits for its transactional id, whose last owner may have one open."""

ABORTS_IN_A_ROW = 30
"""Of one batch, with pauses of up to a second: what fails so often fails for a reason that stays."""

PAUSE_S = (0.0, 0.05, 0.2, 0.5, 1.0)


class ExactlyOnceSink:
    """One transaction for each batch.

    Args:
        client_config: librdkafka settings.
        transactional_id: another process with the same one fences us.
        source_topic: that the offsets are of.
        group_metadata: asked for the consumer's, with the partitions of the batch; raises `BatchAborted` if
            one of them has left in the meantime.
        while_waiting: called between two attempts of a call; it keeps the group membership alive, and raises
            `StopRequested` when it is time to go.
        explain: for messages.
    """

    def __init__(
        self,
        client_config: Mapping[str, str],
        transactional_id: str,
        source_topic: str,
        group_metadata: Callable[[AbstractSet[int]], object],
        while_waiting: Callable[[], None],
        explain: Explain,
    ) -> None:
        self._client_config = client_config
        self._source_topic = source_topic
        self._group_metadata = group_metadata
        self._while_waiting = while_waiting
        self._explain = explain
        settings = {
            **PRODUCER_DEFAULTS,
            **TRANSACTION_DEFAULTS,
            **for_producer(client_config),
            **PRODUCER_RULES,
            "transactional.id": transactional_id,
            "delivery.report.only.error": True,
        }
        try:
            self._producer = Producer(settings, logger=client_logger())
        except KafkaException as error:
            raise CannotStart(f"a Kafka setting is wrong: {error.args[0].str()}") from None
        self._trouble = TroubleLog(interval_s=5.0)
        self._hang_watch = HangWatch()
        self._is_open = False
        self._refused: OutputLost | None = None
        self._aborts = 0

    def __len__(self) -> int:
        """Outputs that are not acknowledged yet."""
        return len(self._producer)

    def open(self) -> None:
        """As of `Sink`: take the transactional id over; what its last owner left open is aborted.

        Raises:
            CannotStart: the id may not be used.
            MustRestart: another worker has taken the id over, or it is not given to us in time.
            StopRequested: asked to stop before brokers answered.
        """
        deadline_s = time.monotonic() + OPEN_S
        while True:
            try:
                with self._hang_watch:
                    self._producer.init_transactions(ATTEMPT_S)
            except KafkaException as error:
                cause = error.args[0]
                if cause.code() in _FENCED or (cause.retriable() and time.monotonic() > deadline_s):
                    raise MustRestart(f"no transactions: {self._explain(cause, None)}") from None
                if not cause.retriable():
                    raise CannotStart(
                        f"no transactions: {self._explain(cause, None)}. `--processing-guarantee "
                        "at_least_once` does without"
                    ) from None
                self._while_waiting()
            else:
                return

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | str | None,
        value: bytes | None,
        headers: list[Header],
    ) -> None:
        """As of `Sink`."""
        self._begin()
        while True:
            try:
                self._producer.produce(topic, value, key, partition, self._note_refusal, headers=headers)
            except BufferError:
                self._producer.poll(FULL_QUEUE_WAIT_S)
                self._while_waiting()
            except KafkaException as error:
                cause = error.args[0]
                if cause.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise refused_at_once(topic, cause) from None
                self._give_up_batch(cause)
            else:
                return

    def end_batch(self, positions: Mapping[int, int]) -> None:
        """As of `Sink`: the outputs and these positions are committed together, or not at all."""
        self._begin()  # a batch without outputs moves on all the same
        offsets = [TopicPartition(self._source_topic, at, position) for at, position in positions.items()]
        metadata = self._group_metadata(positions.keys())
        self._until_done(lambda: self._producer.send_offsets_to_transaction(offsets, metadata, ATTEMPT_S))
        self._until_done(lambda: self._producer.commit_transaction(ATTEMPT_S))
        self._is_open = False
        self._aborts = 0

    def abort(self) -> None:
        """As of `Sink`: undo the open transaction, wait a moment if that happened before.

        Raises:
            OutputLost: an output of it was refused for good, so doing the batch again would not help.
            MustRestart: it cannot be undone here, or the batch has failed `ABORTS_IN_A_ROW` times.
            StopRequested: asked to stop while brokers were away.
        """
        if self._is_open:
            try:
                self._until_done(lambda: self._producer.abort_transaction(ATTEMPT_S))
            except BatchAborted as error:
                raise MustRestart(f"a batch cannot be undone: {error}") from None
            self._is_open = False
        if self._refused is not None:
            raise self._refused
        if self._aborts >= ABORTS_IN_A_ROW:
            raise MustRestart(f"a batch was aborted {ABORTS_IN_A_ROW} times in a row")
        ends_s = time.monotonic() + PAUSE_S[min(self._aborts, len(PAUSE_S) - 1)]
        self._aborts += 1
        while time.monotonic() < ends_s:
            self._producer.poll(FULL_QUEUE_WAIT_S)
            self._while_waiting()

    def committable(self) -> dict[int, int]:
        """Nothing: offsets go with the transactions."""
        return {}

    def forget_partitions(self, partitions: AbstractSet[int]) -> None:
        """Nothing is held between batches."""

    def drop_unsent(self) -> None:
        """Nothing is held between batches, and brokers refuse what comes from who has lost its partitions."""

    def flush(self, timeout_s: float) -> bool:  # noqa: ARG002 - as of Sink
        """Nothing is on its way between batches."""
        return not self._is_open

    def close(self, timeout_s: float) -> None:
        """As of `Sink`: a transaction left open would hold readers up until it times out."""
        if self._is_open:
            try:
                self._producer.abort_transaction(timeout_s)
            except KafkaException as error:
                log.warning("transaction_left_open", error=error.args[0].str(), then="brokers abort it")

    def _begin(self) -> None:
        if not self._is_open:
            try:
                self._producer.begin_transaction()
            except KafkaException as error:
                self._give_up_batch(error.args[0])
            self._is_open = True

    def _until_done(self, call: Callable[[], None]) -> None:
        """Make a call until it is through, as long as it takes while brokers are away.

        Raises:
            BatchAborted: the transaction has to be aborted.
            MustRestart: the producer cannot go on, or gets no further though brokers answer.
            StopRequested: the time to stop has come.
        """
        stuck_since_s = time.monotonic()
        while True:
            try:
                with self._hang_watch:
                    call()
            except KafkaException as error:
                cause = error.args[0]
                if cause.fatal() or not cause.retriable() or cause.txn_requires_abort():
                    self._give_up_batch(cause)
                self._trouble.warning("transaction_waits", cause.name(), reason=cause.str())
                self._while_waiting()
                if not self._do_brokers_answer():
                    stuck_since_s = time.monotonic()
                elif time.monotonic() - stuck_since_s > STUCK_S:
                    raise MustRestart(
                        f"a transaction does not end though brokers answer: {cause.str()}"
                    ) from None
            else:
                return

    def _do_brokers_answer(self) -> bool:
        with self._hang_watch:
            return do_brokers_answer(self._client_config, self._source_topic)

    def _give_up_batch(self, cause: KafkaError) -> NoReturn:
        if cause.code() in _REFUSALS:
            self._refused = self._refused or OutputLost(self._explain(cause, None))
        if cause.fatal() and self._refused is not None:
            raise self._refused
        if cause.fatal() or not (cause.txn_requires_abort() or cause.code() == KafkaError._STATE):
            raise MustRestart(f"the transactional producer cannot go on: {self._explain(cause, None)}")
        raise BatchAborted(cause.str())

    def _note_refusal(self, error: KafkaError | None, message: Message) -> None:
        """Delivery report of an output that failed: keep the first refusal that will not pass by itself."""
        if error is not None and error.code() in _REFUSALS and self._refused is None:
            self._refused = OutputLost(self._explain(error, message.topic()))


_FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}

_REFUSALS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.POLICY_VIOLATION,
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
}
