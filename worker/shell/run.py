"""The life of a worker: check, start, loop, stop. What happens to a click is in `handler.py`."""

import signal
import threading
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import FrameType

import structlog
import torch
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry, Counter, disable_created_metrics

from schemas.topics import TopicNames
from worker.core.advance import CatalogueTooLargeError, Recommender
from worker.core.item_register import ItemRegister
from worker.core.popularity import PopularItems
from worker.core.quality import PublishedTable
from worker.core.session_model import SessionModel
from worker.core.session_table import SessionTable
from worker.shell.client_config import client_logger, for_producer
from worker.shell.failures import CannotStart, OutputLost
from worker.shell.handler import Handler
from worker.shell.http import Probe, StatusServer
from worker.shell.log import configure_logging
from worker.shell.metrics import WorkerMetrics
from worker.shell.rollout import ModelWatcher
from worker.shell.settings import WorkerSettings
from worker.shell.sink import AtLeastOnceSink
from worker.shell.source import Source

log = structlog.get_logger()

REACH_BROKER_S = 10.0
FIRST_MODEL_S = 60.0
"""How long a starting worker waits for the announced model before it serves popular items meanwhile."""

FLUSH_S = 6.0
"""How long a stopping worker waits for acknowledgements."""

LEAVE_S = 3.0
"""And then for its last commit and its goodbye to the group; all in all less than the usual grace of 10 s."""

HOUSEKEEPING_S = 1.0
STALLED_S = 30.0
"""A loop that has not turned for so long is not healthy; a turn takes milliseconds."""


def run_worker(settings: WorkerSettings, client_config: Mapping[str, str], topics: TopicNames) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code 0.

    Raises:
        WorkerFailure: it cannot start, or cannot go on; the message says what to do.
    """
    configure_logging()
    # Else each counter has a second series, which no query asks for.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    torch.set_num_threads(settings.torch_threads)
    check_topics(client_config, topics)
    worker = Worker(settings, client_config, topics)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, worker.stop)
    worker.serve()
    return 0


def check_topics(client_config: Mapping[str, str], topics: TopicNames) -> None:
    """Refuse to start where brokers or topics are missing, or where topics are not co-partitioned.

    Raises:
        CannotStart: with what is missing and how to mend it.
    """
    servers = client_config.get("bootstrap.servers", "")
    try:
        admin = AdminClient({**for_producer(client_config)}, logger=client_logger())
    except KafkaException as error:
        raise CannotStart(f"a Kafka setting is wrong: {error.args[0].str()}") from None
    try:
        found = admin.list_topics(timeout=REACH_BROKER_S).topics
    except KafkaException as error:
        raise CannotStart(
            f"no Kafka broker answered at {servers} within {REACH_BROKER_S:.0f} s "
            f"({error.args[0].str()}): is it running, and is --bootstrap right?"
        ) from None
    wanted = (topics.clicks, topics.recommendations, topics.dead_letters, topics.models)
    if missing := [name for name in wanted if name not in found]:
        raise CannotStart(
            f"missing on {servers}: topic {', '.join(missing)}. Create with: nextclick topics create"
        )
    partitions = {name: len(found[name].partitions) for name in wanted[:3]}
    if len(set(partitions.values())) > 1:
        raise CannotStart(
            f"topics must have the same number of partitions, they have {partitions}: add partitions to the "
            "smaller ones (kafka-topics.sh --alter), or recreate them with nextclick topics create"
        )


class Worker:
    """One worker process: one consumer, one producer, one session table, one thread that uses them."""

    def __init__(
        self, settings: WorkerSettings, client_config: Mapping[str, str], topics: TopicNames
    ) -> None:
        self._settings = settings
        registry = CollectorRegistry()
        self._metrics = WorkerMetrics(registry)
        self._table = SessionTable(settings.max_sessions, settings.history_length, settings.idle_timeout_ms)
        self._recommender = Recommender(
            self._table,
            ItemRegister(settings.max_items),
            PopularItems(settings.top_k, settings.popular_half_life_ms),
            PublishedTable(settings.max_sessions, settings.top_k),
            settings.top_k,
        )
        self._stop_signal: int | None = None
        self._stop_by = float("inf")
        self._left = False
        self._sink = AtLeastOnceSink(client_config, lambda: time.monotonic() > self._stop_by)
        self._watcher = ModelWatcher(
            client_config, topics.models, lambda *_: self._metrics.model_refusals.inc()
        )
        self._source = Source(client_config, settings.group_id, topics.clicks, self._on_revoked)
        self._handler = Handler(self._recommender, self._sink, topics, self._metrics, _now_ms)
        self._turned_at = time.monotonic()
        self._counted: dict[Counter, int] = {}
        self._shown_partitions: set[int] = set()
        self._http = StatusServer(
            settings.http_host,
            settings.http_port,
            registry,
            {"/healthz": self._healthy, "/readyz": self._ready},
        )
        self._metrics.sessions_max.set(settings.max_sessions)
        # Read at each scrape, from the server's thread: a loop that hangs cannot report that it hangs.
        self._metrics.turn_age_seconds.set_function(lambda: time.monotonic() - self._turned_at)

    def stop(self, number: int, _: FrameType | None) -> None:
        """Ask the loop to end after the batch at hand.

        A signal handler, so it takes no lock and logs nothing: it may have interrupted either.
        """
        self._stop_signal = number
        self._stop_by = time.monotonic() + FLUSH_S

    def serve(self) -> None:
        """Wait for the first model, then turn the loop until asked to stop."""
        log.info("started", group_id=self._settings.group_id, http_port=self._http.port)
        self._wait_for_first_model()
        try:
            self._loop()
        finally:
            self._leave()
            self._watcher.close()
            self._http.close()
        log.info("stopped", model_version=self._recommender.model_version)

    def _leave(self) -> None:
        """Bring outputs to their end, commit, leave the group: all that within the time there is.

        In a thread, because a client that has lost its brokers can be waited for but not interrupted. Who
        does not get to leave is missed by the group after its session timeout, and nothing is lost.
        """
        if self._stop_signal is not None:
            log.info("stopping", signal=signal.Signals(self._stop_signal).name)
        leaving = threading.Thread(target=self._commit_and_close, name="leave", daemon=True)
        leaving.start()
        leaving.join(self._flush_s() + LEAVE_S)
        if leaving.is_alive():
            log.warning("left_without_goodbye", reason="brokers did not answer", then="read again")

    def _commit_and_close(self) -> None:
        self._commit_all()
        self._left = True
        self._source.close()

    def _wait_for_first_model(self) -> None:
        deadline = time.monotonic() + FIRST_MODEL_S
        while self._stop_signal is None and time.monotonic() < deadline:
            self._turned_at = time.monotonic()
            if self._watcher.caught_up.wait(0.05):
                return

    def _loop(self) -> None:
        settings = self._settings
        commit_at = housekeeping_at = 0.0
        while self._stop_signal is None:
            self._turned_at = now = time.monotonic()
            if (model := self._watcher.take()) is not None:
                self._swap(model)
            records = self._source.poll_batch(settings.max_batch, settings.poll_timeout_ms / 1000)
            if records:
                self._handler.handle(records)
            self._source.acknowledge(self._sink.committable())
            if now >= commit_at:
                self._source.commit(wait=False)
                commit_at = now + settings.commit_interval_ms / 1000
            if now >= housekeeping_at:
                self._refresh_gauges()
                housekeeping_at = now + HOUSEKEEPING_S

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
        log.info("model_serves", model_version=model.version, before=before, sessions=len(self._table))

    def _commit_all(self) -> None:
        """Bring every output to its end, as far as the time allows, and commit what is acknowledged."""
        if not self._sink.flush(self._flush_s()):
            log.warning("outputs_unacknowledged", records=len(self._sink), then="read again after restart")
        try:
            self._source.acknowledge(self._sink.committable())
            self._source.commit(wait=True)
        except (KafkaException, OutputLost) as error:
            log.warning("commit_failed", error=str(error), then="these clicks are answered again")

    def _flush_s(self) -> float:
        """How long to wait for acknowledgements: once asked to stop, what is left of the time for it."""
        return min(FLUSH_S, max(self._stop_by - time.monotonic(), 0.0))

    def _on_revoked(self, partitions: AbstractSet[int], lost: bool) -> None:
        """Partitions leave: their sessions and gauges go with them. Runs inside `poll_batch`."""
        if not lost and not self._left:
            self._commit_all()
        self._sink.forget_partitions(partitions)
        for partition in partitions:
            if partition in self._shown_partitions:
                self._metrics.consumer_lag.remove(str(partition))
        self._shown_partitions -= partitions
        gone = self._table.forget_partitions(partitions)
        log.info("partitions_left", partitions=sorted(partitions), lost=lost, sessions=gone)

    def _refresh_gauges(self) -> None:
        metrics, table = self._metrics, self._table
        metrics.sessions_live.set(len(table))
        metrics.partitions.set(len(self._source.assigned))
        metrics.unacknowledged.set(len(self._sink))
        lags = self._source.lag()
        for partition, lag in lags.items():
            metrics.consumer_lag.labels(str(partition)).set(lag)
        self._shown_partitions |= lags.keys()
        for counter, total in (
            (metrics.late_clicks, table.late_clicks),
            (metrics.sessions_evicted, table.evicted),
            (metrics.sessions_expired, table.expired),
            (metrics.sessions_reencoded, self._recommender.reencoded),
            (metrics.refused_items, self._recommender.register.refused),
        ):
            counter.inc(total - self._counted.get(counter, 0))
            self._counted[counter] = total

    def _healthy(self) -> Probe:
        stalled_s = round(time.monotonic() - self._turned_at, 1)
        return Probe(stalled_s < STALLED_S, {"seconds_since_last_turn": stalled_s})

    def _ready(self) -> Probe:
        """Ready once it has partitions to read, and has taken up or ruled out a model."""
        assigned = sorted(self._source.assigned)
        return Probe(
            bool(assigned) and self._watcher.caught_up.is_set() and self._stop_signal is None,
            {"partitions": assigned, "model_version": self._recommender.model_version},
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
