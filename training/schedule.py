"""The periodic job: a Faust app that starts a round of retraining on a calendar, on the leader only.

Several schedulers may run under one id; Faust elects a leader among them by handing out the one partition of
its own topic `<id>-__assignor-__leader`, the only topic it makes. All carry the status page.
Imports no torch: the trainer is a child process.
"""

import asyncio
import socket
import tempfile
import time
from collections import deque
from datetime import UTC
from pathlib import Path

import faust
import msgspec
import structlog
from faust import web
from faust.utils.cron import secs_for_next

from training.announce import check_topic
from training.faust_client import broker_urls, credentials
from training.retrain import RetrainSettings, Round, retrain

log = structlog.get_logger(__name__)

MAX_ROUNDS_SHOWN = 20
LEADERSHIP_WAIT_S = 60.0
"""How long a round at the start waits to be leader; a standby taking over later waits for the calendar."""


class ScheduleSettings(msgspec.Struct, frozen=True):
    """When to retrain, and where to show it; `retrain` says what and how.

    Attributes:
        cron: five fields in UTC: minute, hour, day, month, weekday; a sixth may give seconds.
        run_at_start: start a round at once, too.
        app_id: schedulers of one id elect one leader; also the name of their consumer group.
        status_host, status_port: where `/status` is served.
    """

    retrain: RetrainSettings
    cron: str = "0 * * * *"
    run_at_start: bool = False
    app_id: str = "nextclick-schedule"
    status_host: str = "127.0.0.1"
    status_port: int = 9465


class Schedule:
    """The rounds that were and the one that is: never two at once."""

    def __init__(self, settings: ScheduleSettings) -> None:
        self._settings = settings
        self._rounds: deque[Round] = deque(maxlen=MAX_ROUNDS_SHOWN)
        self._skipped = 0
        self._since_ms = _now_ms()

    @property
    def training(self) -> bool:
        """Whether a round is under way."""
        return bool(self._rounds) and self._rounds[-1].outcome == "running"

    async def run_round(self, trigger: str) -> None:
        """Run a round, or note that one was skipped because another is still under way."""
        if self.training:
            self._skipped += 1
            log.warning("retraining_skipped", trigger=trigger, reason="the round before is still under way")
            return
        current = Round(trigger=trigger, started_at_ms=_now_ms())
        self._rounds.append(current)
        await retrain(self._settings.retrain, current)

    def status(self, leader: bool) -> dict[str, object]:
        """What `/status` shows: `last_round` is the newest that ended, `rounds` all kept, newest first."""
        ended = [one for one in reversed(self._rounds) if one.outcome != "running"]
        return {
            "state": "training" if self.training else "idle" if leader else "standby",
            "leader": leader,
            "since_ms": self._since_ms,
            "now_ms": _now_ms(),
            "cron": self._settings.cron,
            "next_round_at_ms": next_round_at_ms(self._settings.cron),
            "skipped_rounds": self._skipped,
            "current_round": self._rounds[-1] if self.training else None,
            "last_round": ended[0] if ended else None,
            "rounds": list(reversed(self._rounds)),
        }


def next_round_at_ms(cron: str) -> int:
    """When the calendar strikes next, ms since the epoch.

    Raises:
        ValueError: the expression is no calendar, or strikes never.
    """
    try:
        return _now_ms() + round(secs_for_next(cron, UTC) * 1_000)
    except (ValueError, KeyError) as error:  # what croniter raises, from which Faust's calendar is made
        raise ValueError(f"{cron!r} is no cron expression ({error}); every hour is '0 * * * *'") from None


def build_app(settings: ScheduleSettings, data_folder: Path) -> faust.App:
    """The Faust app: one calendar timer on the leader, one page.

    Args:
        settings: when and what.
        data_folder: where Faust makes its (empty) folders.

    Raises:
        ValueError: the cron expression is none, or a Kafka setting cannot be mapped.
    """
    next_round_at_ms(settings.cron)
    client_config = settings.retrain.client_config
    app = faust.App(
        settings.app_id,
        broker=broker_urls(client_config),
        broker_credentials=credentials(client_config),
        env={},  # Faust's own variables (WEB_PORT, BROKER_URL, …) must not override what our settings say
        datadir=data_folder,
        store="memory://",
        timezone=UTC,
        web_host=settings.status_host,
        web_bind=settings.status_host,
        web_port=settings.status_port,
    )
    schedule = Schedule(settings)
    # Counted from here: on a standby, Faust starts no task before it takes over.
    start_until_s = time.monotonic() + LEADERSHIP_WAIT_S

    async def on_calendar() -> None:
        await schedule.run_round("calendar")

    async def on_start() -> None:
        while not app.is_leader() and time.monotonic() < start_until_s and not app.should_stop:
            await app.sleep(0.2)
        if app.is_leader() and time.monotonic() < start_until_s:
            await schedule.run_round("start")

    async def status(view: web.View, _request: web.Request) -> web.Response:
        body = msgspec.json.encode(schedule.status(app.is_leader()))
        return view.bytes(body, content_type="application/json")

    app.crontab(settings.cron, timezone=UTC, on_leader=True)(on_calendar)
    if settings.run_at_start:
        app.task(on_start)
    app.page("/status")(status)
    return app


def run_schedule(settings: ScheduleSettings) -> int:
    """Run the app until SIGTERM or Ctrl-C; returns the exit code: 0 after a signal, 1 after a crash.

    Raises:
        ModelsTopicError: the broker is unreachable, or the models topic missing.
        ValueError: as `build_app`.
        OSError: the port of the status page is taken.
    """
    with tempfile.TemporaryDirectory(prefix="nextclick-schedule-") as folder:
        app = build_app(settings, Path(folder))
        _check_port(settings.status_host, settings.status_port)
        check_topic(settings.retrain.client_config, settings.retrain.models_topic)
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        worker = faust.Worker(app, loop=loop, override_logging=False, quiet=True)
        worker.spinner = None
        try:
            worker.execute_from_commandline()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"the status page cannot be served on {host}:{port}: {reason}") from None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
