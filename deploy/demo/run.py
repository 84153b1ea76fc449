"""The demo from top to bottom: Kafka, past clicks, training, announcement, worker, live clicks, verdict.

All that it starts ends with it, whatever happens: its broker, worker and trainer, its temporary files and,
on a cluster that is not its own, its topics and its group.
"""

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from rich.console import Console
from rich.markup import escape

from deploy.click_sender import ClickSender
from deploy.demo.children import WorkerChild, run_trainer, write_settings
from deploy.demo.live import LiveRun, WorkerStuckError, run_live
from deploy.demo.options import DemoOptions
from deploy.demo.play import K, Play, log_play, shop_play
from deploy.demo.score import Outcome
from deploy.demo.view import LiveView
from deploy.local_broker import LocalBroker
from deploy.sending_progress import shown_sending
from deploy.settings import Connection
from deploy.stop_signals import Stopped, StopSignals, stop_signals
from deploy.topic_admin import TopicError, create_topics, partitions_by_topic
from deploy.topic_reader import TopicReader
from schemas.click import encode_click
from schemas.topics import topic_specs
from training.announce import announce
from training.progress import silent

PARTITIONS = 4
RETENTION_MS = 7 * 86_400_000
FLUSH_S = 30.0
ADMIN_S = 30.0
STEPS = 5


def run_demo(options: DemoOptions, cluster: Connection | None) -> int:
    """Run the demo; returns the exit code: 0, or 1 where an answer is missing or the answers are no use.

    Args:
        options: what is played.
        cluster: an existing one; None starts a broker.

    Raises:
        BrokerUnavailableError, TopicError, SendError, ChildError, TrainingError: what could not be done.
        Stopped: Ctrl-C or SIGTERM, unless the live part of a demo that is kept was reached.
    """
    said = _Steps(Console(stderr=True, highlight=False))
    with stop_signals() as signals, ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nextclick-demo-")))
        play = _choose_play(options, said)
        kafka = stack.enter_context(_kafka(cluster, said))
        settings = temporary / "nextclick.toml"
        write_settings(settings, kafka)
        _send_past(play, kafka, said)
        model = _train(options, temporary, settings, said)
        announced = announce(kafka.client_config(), kafka.models_topic, Path(model["model_folder"]))
        said.step(f"model {announced.model_version} announced; the worker starts as a process of its own")
        _start_group_at_end(kafka, _group(kafka))
        arguments = ("--group-id", _group(kafka), "--top-k", str(K))
        worker = stack.enter_context(WorkerChild(arguments, settings, temporary / "worker.log", temporary))
        worker.wait_ready(announced.model_version)
        with signals.deferred():  # records taken from Kafka and not yet counted must not get lost
            outcome = _play_live(options, play, kafka, worker, said, signals)
        if signals.requested and not options.keep:
            raise Stopped
    return tell(outcome, options.keep, said.console)


class _Steps:
    """Says what is being done, and when since the start."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._number = 0
        self._started_s = time.monotonic()

    def step(self, text: str) -> None:
        self._number += 1
        elapsed_s = time.monotonic() - self._started_s
        self.console.print(
            f"[bold cyan]{self._number}/{STEPS}[/]  {escape(text)}  [dim]({elapsed_s:.0f} s)[/]",
            soft_wrap=True,
        )

    def note(self, text: str) -> None:
        self.console.print(f"     {text}", markup=False, soft_wrap=True)


def _choose_play(options: DemoOptions, said: _Steps) -> Play:
    if options.log is None:
        return shop_play(options.seed, options.sessions, options.rate, time.time_ns() // 1_000_000)
    loaded = options.log_options().load(options.log, Connection(), silent)
    for remark in loaded.remarks:
        said.note(remark)
    return log_play(loaded, options.log_options().rule())


@contextmanager
def _kafka(cluster: Connection | None, said: _Steps) -> Iterator[Connection]:
    """A broker of our own, or topics of our own on a cluster that is there; gone at the end."""
    if cluster is None:
        said.step("Apache Kafka starts on this machine")
        with LocalBroker(say=said.note) as broker:
            kafka = Connection(bootstrap=broker.bootstrap)
            _create_topics(kafka)
            yield kafka
        return
    said.step(f"the Kafka cluster at {cluster.bootstrap}, with topics for this run alone")
    kafka = _with_prefix(cluster, f"demo-{secrets.token_hex(4)}-")
    _create_topics(kafka)
    try:
        yield kafka
    finally:
        _remove(kafka, said)


def _create_topics(kafka: Connection) -> None:
    specs = topic_specs(kafka.topics(), PARTITIONS, RETENTION_MS)
    create_topics({"log_level": "0", **kafka.client_config()}, specs, replication=-1)


def _with_prefix(cluster: Connection, prefix: str) -> Connection:
    return replace(
        cluster,
        clicks_topic=prefix + cluster.clicks_topic,
        recommendations_topic=prefix + cluster.recommendations_topic,
        dead_letters_topic=prefix + cluster.dead_letters_topic,
        session_histories_topic=prefix + cluster.session_histories_topic,
        models_topic=prefix + cluster.models_topic,
    )


def _remove(kafka: Connection, said: _Steps) -> None:
    """Remove the topics and the group of this run; what is left over is told, with its prefix."""
    try:
        admin = AdminClient({"log_level": 0, **kafka.client_config()})
        there = partitions_by_topic(admin, kafka.client_config())
        ours = [name for name in _topic_names(kafka) if name in there]
        futures = list(admin.delete_topics(ours).values()) if ours else []
        futures += admin.delete_consumer_groups([_group(kafka)]).values() if ours else []
        for future in futures:
            future.result(ADMIN_S)
    except (KafkaException, TopicError) as error:
        if not _is_no_group(error):
            said.note(f"topics {kafka.clicks_topic} and its like could not be removed: {error}")


def _is_no_group(error: Exception) -> bool:
    """Whether all that went wrong is that the group never came to be."""
    cause = error.args[0] if error.args else None
    return isinstance(cause, KafkaError) and cause.code() == KafkaError.GROUP_ID_NOT_FOUND


def _topic_names(kafka: Connection) -> list[str]:
    return [spec.name for spec in topic_specs(kafka.topics(), PARTITIONS, RETENTION_MS)]


def _group(kafka: Connection) -> str:
    return f"{kafka.clicks_topic}.demo"


def _send_past(play: Play, kafka: Connection, said: _Steps) -> None:
    said.step(f"{play.past_clicks:,} past clicks of {play.past_sessions:,} sessions go to the topic")
    sender = ClickSender(kafka.client_config(), kafka.clicks_topic)
    with shown_sending(said.console, play.past_clicks) as show:
        for click in play.past:
            sender.send(click.session_id, encode_click(click))
            show(sender.sent)
        sender.finish(FLUSH_S)


def _train(options: DemoOptions, temporary: Path, settings: Path, said: _Steps) -> dict[str, Any]:
    """Train on the replayed topic, in a process of its own; returns its JSON line."""
    said.step("a model is trained on the replayed topic, in a process of its own")
    threads = min(2, os.cpu_count() or 1)
    arguments = ("--topic", "--json", "--seed", str(options.seed), "--threads", str(threads))
    found = run_trainer((*arguments, "--models", str(temporary / "models")), settings)
    said.note(
        f"held-out sessions: recall@{K} {found[f'recall@{K}']:.3f}, "
        f"first-order Markov {found[f'markov_recall@{K}']:.3f}, "
        f"popularity {found[f'popularity_recall@{K}']:.3f}"
    )
    return found


def _start_group_at_end(kafka: Connection, group: str) -> None:
    """Let the worker begin where the past ends; to start it at "latest" would race with the live clicks."""
    consumer = Consumer({"log_level": 0, **kafka.client_config(), "group.id": group})
    try:
        count = len(consumer.list_topics(kafka.clicks_topic, ADMIN_S).topics[kafka.clicks_topic].partitions)
        ends = []
        for number in range(count):
            partition = TopicPartition(kafka.clicks_topic, number)
            _, end = consumer.get_watermark_offsets(partition, ADMIN_S)
            ends.append(TopicPartition(kafka.clicks_topic, number, end))
        consumer.commit(offsets=ends, asynchronous=False)
    finally:
        consumer.close()


def _play_live(
    options: DemoOptions,
    play: Play,
    kafka: Connection,
    worker: WorkerChild,
    said: _Steps,
    signals: StopSignals,
) -> Outcome:
    clicks = None if options.keep else options.clicks
    if play.live_clicks is not None:
        clicks = play.live_clicks if clicks is None else min(clicks, play.live_clicks)
    said.step(_live_title(clicks, options))
    if options.keep:
        said.note(f"in another terminal: nextclick tail --bootstrap {kafka.bootstrap}{_topic_flag(kafka)}")
    sender = ClickSender(kafka.client_config(), kafka.clicks_topic)
    topics = [kafka.recommendations_topic, kafka.dead_letters_topic]
    with (
        TopicReader(kafka.client_config(), topics, from_beginning=True) as reader,
        LiveView(said.console, play.title, play.item_name, clicks, options.keep) as view,
    ):
        run = LiveRun(
            play=play,
            sender=sender,
            reader=reader,
            dead_letters_topic=kafka.dead_letters_topic,
            screen=view,
            clicks=clicks,
            rate=options.rate,
            is_stopped=lambda: signals.requested,
            check_worker=worker.check,
        )
        try:
            return run_live(run)
        except WorkerStuckError as error:
            raise worker.failed(str(error)) from None


def _live_title(clicks: int | None, options: DemoOptions) -> str:
    number = "live clicks" if clicks is None else f"{clicks:,} live clicks"
    end = ", until Ctrl-C" if options.keep else ""
    return f"{number} at {options.rate:g}/s, a few bad records among them{end}"


def _topic_flag(kafka: Connection) -> str:
    is_default = kafka.recommendations_topic == Connection().recommendations_topic
    return "" if is_default else f" --recommendations-topic {kafka.recommendations_topic}"


def tell(outcome: Outcome, is_kept: bool, console: Console) -> int:
    """Print the verdict and, last on standard output, the JSON line; returns the exit code."""
    troubles = outcome.losses()
    weakness = outcome.weakness()
    if weakness is not None and not is_kept:  # who stops a demo early has not asked for a verdict
        troubles.append(weakness)
    for trouble in troubles:
        console.print(f"failed: {trouble}", style="red", markup=False, soft_wrap=True)
    if not troubles:
        console.print(
            f"Each of {outcome.clicks:,} clicks was answered once, and each of {outcome.bad_records:,} bad "
            "records lies on the dead-letter topic with its reason.",
            markup=False,
            soft_wrap=True,
        )
    sys.stdout.write(orjson.dumps(outcome.fields()).decode() + "\n")
    sys.stdout.flush()
    return 1 if troubles else 0
