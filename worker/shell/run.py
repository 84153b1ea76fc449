"""The life of a worker: check, start, loop, stop. What happens to a click is in `handler.py`."""

import gc
import os
import signal
import threading
import time
import uuid
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import structlog
import torch
from confluent_kafka import KafkaError, KafkaException, Message
from prometheus_client import CollectorRegistry, disable_created_metrics

from schemas.topics import TopicNames
from worker.core.advance import CatalogueTooLargeError, Recommender
from worker.core.dead_letter_cap import DeadLetterCap
from worker.core.item_register import ItemRegister
from worker.core.popularity import PopularItems
from worker.core.session_model import SessionModel
from worker.core.session_table import SessionTable
from worker.core.warm_up import warm_up
from worker.shell.access_rights import acl_hint
from worker.shell.changelog import ChangelogReader
from worker.shell.dead_letters import DeadLetters
from worker.shell.failures import BatchAborted, MustRestart, OutputLost, StopRequested, WorkerFailure
from worker.shell.gauges import Gauges
from worker.shell.handler import Handler
from worker.shell.http import Probe, StatusServer
from worker.shell.log import TroubleLog, tell_all_suppressed
from worker.shell.metrics import WorkerMetrics
from worker.shell.restore_bar import RestoreBar
from worker.shell.restoring import PartitionRestorer
from worker.shell.rollout import ModelWatcher
from worker.shell.settings import WorkerSettings
from worker.shell.sink import AtLeastOnceSink, Sink
from worker.shell.source import Source, group_config
from worker.shell.start_checks import check_start
from worker.shell.stop_signals import StopSignals
from worker.shell.transactions import ExactlyOnceSink

log = structlog.get_logger()

FIRST_MODEL_S = 60.0
"""How long a starting worker waits for the announced model before it serves popular items meanwhile."""

FLUSH_S = 6.0
"""How long a stopping worker waits for acknowledgements."""

LEAVE_S = 2.0
"""And then for its last commit and its goodbye to the group; all in all less than the usual grace of 10 s."""

ENDS_WITHIN_S = 9.5
"""Then the process is ended from outside of the calls that may hold it."""

SETTLE_INTERVAL_S = 0.05
"""At least once: how long changes of sessions are gathered for the changelog. A tenth of what is answered
again after a crash, and it spares brokers a request for nearly every click under light load."""

HOUSEKEEPING_S = 1.0
STALLED_S = 30.0
"""A loop that has not turned for so long is not healthy; a turn takes milliseconds."""

RESTORE_WAIT_S = 0.01
"""How long a turn waits for the changelog, where no partition is served that would be kept waiting."""


def run_worker(
    settings: WorkerSettings, client_config: Mapping[str, str], topics: TopicNames, stop: StopSignals
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code 0.

    Args:
        settings: what and how.
        client_config: librdkafka settings.
        topics: the five topic names.
        stop: is watching already.

    Raises:
        WorkerFailure: it cannot start, or cannot go on; the message says what to do.
    """
    # Else each counter has a second series, which no query asks for.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    torch.set_num_threads(settings.torch_threads)
    exactly_once = settings.processing_guarantee == "exactly_once"
    check_start(client_config, topics, settings.group_id, exactly_once)
    _compile()
    worker = Worker(settings, client_config, topics, stop)
    stop.give_time(ENDS_WITHIN_S)
    worker.serve()
    if worker.left_things_behind:  # their clients would hold up the interpreter's end, beyond any watch
        os._exit(0)
    return 0


class Worker:
    """One worker process: one consumer, one producer, one session table, one thread that uses them.

    Attributes:
        left_things_behind: it has stopped, and brokers did not take its last outputs or its goodbye.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        client_config: Mapping[str, str],
        topics: TopicNames,
        stop: StopSignals,
    ) -> None:
        self._settings = settings
        self._client_config = client_config
        self._topics = topics
        self._stop = stop
        self._left = False
        self.left_things_behind = False
        self._turned_at = self._started_at = time.monotonic()
        registry = CollectorRegistry()
        self._metrics = WorkerMetrics(registry)
        self._recommender = _recommender(settings)
        self._source = Source(
            group_config(client_config, settings.group_id, settings.instance_id, settings.group_protocol),
            topics.clicks,
            self._on_left,
            self._explain,
        )
        self._sink = self._make_sink()
        self._watcher = ModelWatcher(
            client_config, topics.models, lambda *_: self._metrics.model_refusals.inc()
        )
        self._changelog = ChangelogReader(client_config, settings.group_id, topics)
        self._restorer = PartitionRestorer(
            self._changelog,
            self._recommender,
            self._metrics,
            settings.on_lost_input,
            settings.processing_guarantee == "exactly_once",
            self._explain,
        )
        self._restored: dict[int, int] = {}  # partitions that wait for the first model, and where they start
        cap = DeadLetterCap(
            settings.dead_letter_max_ratio, settings.dead_letter_window, settings.dead_letter_burst
        )
        dead_letters = DeadLetters(self._sink, topics, self._metrics, cap, settings.log_payloads)
        exactly_once = settings.processing_guarantee == "exactly_once"
        self._handler = Handler(
            self._recommender,
            self._sink,
            topics,
            self._metrics,
            dead_letters,
            0.0 if exactly_once else SETTLE_INTERVAL_S,
            lambda partition: partition in self._source.assigned,
            _now_ms,
        )
        self._trouble = TroubleLog()
        self._gauges = Gauges(
            self._metrics, self._recommender, self._source, self._sink, self._restorer, self._changelog
        )
        self._http = StatusServer(
            settings.http_host,
            settings.http_port,
            registry,
            {"/healthz": self._healthy, "/readyz": self._ready},
        )
        self._metrics.sessions_max.set(settings.max_sessions)
        # Read at each scrape, from the server's thread: a loop that hangs cannot report that it hangs.
        self._metrics.turn_age_seconds.set_function(lambda: time.monotonic() - self._turned_at)

    def _make_sink(self) -> Sink:
        settings = self._settings
        if settings.processing_guarantee == "at_least_once":
            return AtLeastOnceSink(
                self._client_config, self._topics.clicks, self._while_waiting, self._explain
            )
        return ExactlyOnceSink(
            self._client_config,
            f"{settings.group_id}-{settings.instance_id or uuid.uuid4().hex}",
            self._topics.clicks,
            self._source.group_metadata,
            self._while_waiting,
            self._explain,
        )

    def serve(self) -> None:
        """Turn the loop until asked to stop."""
        settings = self._settings
        log.info(
            "started",
            group_id=settings.group_id,
            processing_guarantee=settings.processing_guarantee,
            http_port=self._http.port,
        )
        try:
            self._sink.open()
            self._source.end_batch()
            # What imports left would be walked through at each full collection: over 100 ms without a turn.
            gc.freeze()
            self._loop()
        except StopRequested:
            log.warning("stopped_waiting", reason="brokers did not answer", then="read again after restart")
        finally:
            self._leave()
            self._watcher.close()
            self._changelog.close()
            self._http.close()
        log.info("stopped", model_version=self._recommender.model_version)

    def _leave(self) -> None:
        """Bring outputs to their end, commit, leave the group: all that within the time there is.

        In a thread, because a client that has lost its brokers can be waited for but not interrupted. Who
        does not get to leave is missed by the group after its session timeout, and nothing is lost.
        """
        if self._stop.number is not None:
            log.info("stopping", signal=signal.Signals(self._stop.number).name)
        leaving = threading.Thread(target=self._commit_and_close, name="leave", daemon=True)
        leaving.start()
        leaving.join(self._flush_s() + LEAVE_S)
        self.left_things_behind = leaving.is_alive() or len(self._sink) > 0
        if leaving.is_alive():
            log.warning("left_without_goodbye", reason="brokers did not answer", then="read again")
        tell_all_suppressed()

    def _commit_and_close(self) -> None:
        self._sink.close(LEAVE_S)
        self._commit_all()
        self._left = True
        self._source.close()

    def _loop(self) -> None:
        settings = self._settings
        commit_at = housekeeping_at = 0.0
        with RestoreBar() as bar:
            while self._stop.number is None:
                self._turned_at = now = time.monotonic()
                if (model := self._watcher.take()) is not None:
                    self._swap(model)
                self._take_up_partitions()
                bar.show(self._restorer.restoring, *self._changelog.progress())
                wait_s = settings.poll_timeout_ms / 1000
                if self._restorer.restoring:
                    wait_s = 0.0 if self._changelog.has_more else RESTORE_WAIT_S
                self._answer(self._source.poll_batch(settings.max_batch, wait_s))
                self._handler.settle_if_due()
                self._source.end_batch()
                self._source.acknowledge(self._sink.committable())
                if now >= commit_at:
                    self._source.commit(wait=False)
                    commit_at = now + settings.commit_interval_ms / 1000
                if now >= housekeeping_at:
                    self._gauges.refresh()
                    tell_all_suppressed(due_only=True)
                    housekeeping_at = now + HOUSEKEEPING_S

    def _take_up_partitions(self) -> None:
        """Restore what was assigned, piece by piece; read it once restored and a model is looked up."""
        if arrived := self._source.take_arrived():
            self._restorer.begin(arrived)
        if overtaken := self._source.take_out_of_range():  # by retention: as if they had just arrived
            self._commit_all()
            self._recommender.table.forget_partitions(overtaken)
            self._restorer.begin(overtaken)
        if self._restorer.restoring:
            wait_s = 0.0 if self._source.active else RESTORE_WAIT_S
            if (restored := self._restorer.turn(wait_s)) is not None:
                self._restored[restored[0]] = restored[1]
        model_is_due = time.monotonic() > self._started_at + FIRST_MODEL_S
        if self._restored and (model_is_due or self._watcher.caught_up.is_set()):
            if (model := self._watcher.take()) is not None:
                self._swap(model)
            for partition, offset in self._restored.items():
                self._source.start(partition, offset)
            self._restored.clear()

    def _answer(self, records: list[Message]) -> None:
        """Handle a batch; where its transaction fails, do again what is still to be answered here."""
        while records:
            try:
                self._handler.handle(records)
            except BatchAborted as aborted:
                self._metrics.aborted_batches.inc()
                self._trouble.warning("batch_aborted", "aborted", reason=str(aborted), then="done again")
                self._sink.abort()
                self._source.end_batch()
                records = self._source.still_ours(records)
            else:
                self._source.end_batch()
                return

    def _while_waiting(self) -> None:
        """A call to Kafka has to be made again: stay in the group meanwhile, or go if it is time to."""
        self._turned_at = time.monotonic()
        if self._turned_at > self._stop.at_s + FLUSH_S:
            raise StopRequested
        self._source.keep_alive()
        if not self._source.assigned:  # lost while waiting; `_on_left` is called once the wait is over
            self._sink.drop_unsent()

    def _swap(self, model: SessionModel) -> None:
        """Serve with another model from the next batch on; no session is lost."""
        before = self._recommender.model_version
        try:
            self._recommender.adopt(model)
        except (CatalogueTooLargeError, MemoryError, RuntimeError) as error:  # torch's own is a RuntimeError
            log.error("model_refused", model_version=model.version, reason=str(error))
            self._metrics.model_refusals.inc()
            return
        if before is not None:
            self._metrics.model_info.remove(before)
        self._metrics.model_info.labels(model.version).set(1)
        self._metrics.model_swaps.inc()
        sessions = len(self._recommender.table)
        log.info("model_serves", model_version=model.version, before=before, sessions=sessions)

    def _commit_all(self) -> None:
        """Bring every output to its end, as far as the time allows, and commit what is acknowledged."""
        try:
            self._handler.settle()
        except (BatchAborted, WorkerFailure, StopRequested) as error:
            log.warning("not_settled", reason=str(error), then="read again after restart")
        if not self._sink.flush(self._flush_s()):
            log.warning("outputs_unacknowledged", records=len(self._sink), then="read again after restart")
        try:
            self._source.acknowledge(self._sink.committable())
            self._source.commit(wait=True)
        except (KafkaException, OutputLost, MustRestart) as error:
            log.warning("commit_failed", error=str(error), then="these clicks are answered again")

    def _flush_s(self) -> float:
        """How long to wait for acknowledgements: once asked to stop, what is left of the time for it."""
        return min(FLUSH_S, max(self._stop.at_s + FLUSH_S - time.monotonic(), 0.0))

    def _on_left(self, partitions: AbstractSet[int], lost: bool) -> None:
        """Partitions leave: their sessions and gauges go with them. Between batches."""
        if not lost and not self._left:
            self._commit_all()
        if lost and partitions >= self._source.assigned:
            self._sink.drop_unsent()
        self._restorer.cancel(partitions)
        self._handler.forget_partitions(partitions)
        self._sink.forget_partitions(partitions)
        for partition in partitions:
            self._restored.pop(partition, None)
        self._gauges.forget_partitions(partitions)
        gone = self._recommender.table.forget_partitions(partitions)
        log.info("partitions_left", partitions=sorted(partitions), lost=lost, sessions=gone)

    def _explain(self, error: KafkaError, topic: str | None) -> str:
        """What an error means, with the access right that is lacking if it is that."""
        hint = acl_hint(error, self._client_config, self._topics, self._settings.group_id, topic)
        return hint or error.str()

    def _healthy(self) -> Probe:
        stalled_s = round(time.monotonic() - self._turned_at, 1)
        return Probe(stalled_s < STALLED_S, {"seconds_since_last_turn": stalled_s})

    def _ready(self) -> Probe:
        """Ready once its partitions are restored and read, and it has taken up or ruled out a model."""
        assigned, active = sorted(self._source.assigned), set(self._source.active)
        done, total = self._changelog.progress()
        return Probe(
            bool(assigned) and active.issuperset(assigned) and self._stop.number is None,
            {
                "partitions": assigned,
                "restoring": [partition for partition in assigned if partition not in active],
                "restored_share": round(done / total, 3) if total else 1.0,
                "model_version": self._recommender.model_version,
            },
        )


def _compile() -> None:
    log.info("compiling", unless="it was kept from an earlier start")
    started_s = time.monotonic()
    warm_up()
    log.info("compiled", seconds=round(time.monotonic() - started_s, 1))


def _recommender(settings: WorkerSettings) -> Recommender:
    table = SessionTable(
        settings.max_sessions,
        settings.history_length,
        settings.idle_timeout_ms,
        settings.duplicate_window,
        settings.top_k,
    )
    register = ItemRegister(settings.max_items)
    popular = PopularItems(settings.top_k, settings.popular_half_life_ms)
    return Recommender(table, register, popular, settings.top_k)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
