"""The live part of the demo: clicks out at a steady rate, recommendations in, each held against the other."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec
from confluent_kafka import Message

from deploy.click_sender import ClickSender
from deploy.demo.play import LiveClick, Play
from deploy.demo.score import LiveScore, Outcome, outcome
from deploy.topic_reader import TopicReader
from schemas.click import Click, encode_click
from schemas.recommendation import decode_recommendation

BAD_EVERY, FIRST_BAD = 1_000, 10
# One of each kind of trouble that a producer makes; sent among the live clicks, to see them kept and named.
BAD_RECORDS: tuple[bytes | None, ...] = (
    b'{"event_id": "bad", "session_id": "bad", ',  # broken off
    b'{"event_id": "bad", "session_id": "bad", "timestamp_ms": 1767225600000}',  # no item
    b'{"event_id": "bad", "session_id": "bad", "item_id": ["a"], "timestamp_ms": 1767225600000}',
    b'{"event_id": "bad", "session_id": "bad", "item_id": "a", "timestamp_ms": 1767225600}',  # seconds
    None,
)
MAX_UNANSWERED = 5_000  # beyond, sending waits: a stuck worker must not fill our memory
SILENCE_S = 30.0  # a worker that answers nothing for so long will not answer any more
SILENCE_AFTER_STOP_S = 5.0  # somebody waits at the terminal
SURPLUS_S = 1.0  # how long to look for answers too many, once all have come
TURN_S = 0.05


class WorkerStuckError(Exception):
    """The worker runs, and yet answers nothing, or nonsense."""


class Screen(Protocol):
    """What shows the live part."""

    def clicked(self, click: LiveClick) -> None:
        """A click was sent."""

    def recommended(self, session_id: str, event_id: str, items: list[str]) -> None:
        """A recommendation came."""

    def refresh(self, score: LiveScore, dead_letters: int, clicks_per_s: float) -> None:
        """Called many times a second with how things stand."""


@dataclass(frozen=True)
class LiveRun:
    """All that the live part works with.

    Attributes:
        clicks: how many to send at most; None: until the play is over.
        rate: clicks per second.
        is_stopped: asked many times a second; once true, no more clicks are sent.
        check_worker: called many times a second; raises when the worker has ended.
    """

    play: Play
    sender: ClickSender
    reader: TopicReader
    dead_letters_topic: str
    screen: Screen
    clicks: int | None
    rate: float
    is_stopped: Callable[[], bool]
    check_worker: Callable[[], None]


def run_live(run: LiveRun) -> Outcome:
    """Play the live part; returns when every click is answered, or no more answers come.

    Raises:
        SendError, TopicError: Kafka failed.
        WorkerStuckError: see there.
    """
    loop = _Loop(run)
    loop.send_all()
    loop.wait_for_answers()
    return loop.outcome()


class _Loop:
    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._score = LiveScore(run.play.popular)
        self._dead_letters = self._bad_sent = 0
        self._started_s = self._sent_s = self._heard_s = time.monotonic()

    def send_all(self) -> None:
        run = self._run
        for number, click in enumerate(run.play.live):
            if number == run.clicks or run.is_stopped():
                return
            due_s = self._started_s + number / run.rate
            self._turn(0.0)
            while (now_s := time.monotonic()) < due_s or self._score.unanswered >= MAX_UNANSWERED:
                if run.is_stopped():
                    return
                self._turn(max(0.0, min(due_s - now_s, TURN_S)))
                if self._is_silent():
                    raise WorkerStuckError(f"the worker has answered nothing for {SILENCE_S:.0f} s")
            if number % BAD_EVERY == FIRST_BAD:
                run.sender.send("bad", BAD_RECORDS[self._bad_sent % len(BAD_RECORDS)])
                self._bad_sent += 1
            self._send(click)

    def wait_for_answers(self) -> None:
        """Return when all has been answered, and nothing too much comes."""
        while self._is_waiting():
            self._turn(TURN_S)
            if self._is_silent():
                return  # the outcome says what is missing
        until_s = time.monotonic() + SURPLUS_S
        while time.monotonic() < until_s:
            self._turn(TURN_S)

    def outcome(self) -> Outcome:
        return outcome(self._score, self._bad_sent, self._dead_letters, self._clicks_per_s())

    def _clicks_per_s(self) -> float:
        return self._score.clicks / max(self._sent_s - self._started_s, 1 / self._run.rate)

    def _send(self, click: LiveClick) -> None:
        now_ms = time.time_ns() // 1_000_000
        value = encode_click(Click(click.event_id, click.session_id, click.item_id, now_ms))
        # Noted before it is sent: its answer cannot come before we know of it.
        self._score.clicked(click)
        self._run.screen.clicked(click)
        self._run.sender.send(click.session_id, value)
        self._sent_s = time.monotonic()

    def _turn(self, timeout_s: float) -> None:
        run = self._run
        for record in run.reader.read(1_000, timeout_s):
            self._take(record)
        run.sender.wait(0)
        run.check_worker()
        if not self._is_waiting():
            self._heard_s = time.monotonic()
        run.screen.refresh(self._score, self._dead_letters, self._clicks_per_s())

    def _is_waiting(self) -> bool:
        return self._score.unanswered > 0 or self._dead_letters < self._bad_sent

    def _is_silent(self) -> bool:
        bound_s = SILENCE_AFTER_STOP_S if self._run.is_stopped() else SILENCE_S
        return self._is_waiting() and time.monotonic() - self._heard_s > bound_s

    def _take(self, record: Message) -> None:
        self._heard_s = time.monotonic()
        if record.topic() == self._run.dead_letters_topic:
            self._dead_letters += 1
            return
        try:
            found = decode_recommendation(record.value() or b"")
        except msgspec.DecodeError as error:
            raise WorkerStuckError(f"the worker published what is no recommendation ({error})") from None
        self._score.recommended(found.event_id, found.items)
        self._run.screen.recommended(found.session_id, found.event_id, found.items)
