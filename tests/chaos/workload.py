"""The clicks of a chaos run: seeded, endless, and such that every answer is determined by the clicks alone.

- Sessions stay below the history bound: a hidden state that is encoded again from the changelog must equal
  the one that advanced click by click.
- The first click of a visit is on an item that the model knows: popular items depend on what else a worker
  happened to see. Later ones may be unknown.
- Event time runs faster than the clock, so that sessions pass the idle timeout and come back. No gap is near
  the timeout: there, clicks that are a little late could end a session in one run and not in the other.
"""

import random
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from schemas.click import Click, encode_click

START_MS = 1_760_000_000_000
IDLE_TIMEOUT_MS = 120_000
CLICK_INTERVAL_MS = 50
"""Event time between two clicks; with `LIVE_SESSIONS`, one session clicks every 10 s on average."""

LIVE_SESSIONS = 200
MAX_VISIT_CLICKS = 30
"""Below the default history bound of 32."""

GAP_MARGIN_MS = 15_000
LATE_SHARE = 0.02
MAX_LATE_MS = 3_000
UNKNOWN_SHARE = 0.03
BAD_SHARE = 0.005
COMES_BACK_SHARE = 0.4
"""Of the visits that end: their session id clicks again once its idle timeout has passed."""

ITEMS = tuple(f"item-{number}" for number in range(500))
"""What the model knows."""


class Record(NamedTuple):
    """One record for the clicks topic; `event_id` is None where it is no click."""

    key: str | None
    value: bytes | None
    event_id: str | None


class _Visit:
    __slots__ = ("clicks_left", "is_first", "last_ms", "session_id")

    def __init__(self, session_id: str, clicks: int) -> None:
        self.session_id = session_id
        self.clicks_left = clicks
        self.last_ms = 0
        self.is_first = True


class Simulator:
    """Makes records, for ever; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._now_ms = START_MS
        self._sessions = 0
        self._clicks = 0
        self._visits = [self._new_visit() for _ in range(LIVE_SESSIONS)]
        self._asleep: deque[tuple[int, str]] = deque()  # (wakes at, session), in the order of falling asleep

    def __iter__(self) -> Iterator[Record]:
        while True:
            yield self._bad_record() if self._random.random() < BAD_SHARE else self._click()

    def _click(self) -> Record:
        draw = self._random
        self._now_ms += CLICK_INTERVAL_MS
        place = draw.randrange(LIVE_SESSIONS)
        visit = self._visits[place]
        gap_ms = self._now_ms - visit.last_ms
        if not visit.clicks_left or (not visit.is_first and gap_ms > IDLE_TIMEOUT_MS - GAP_MARGIN_MS):
            visit = self._visits[place] = self._next_visit(visit)
        late_ms = draw.randrange(MAX_LATE_MS) if draw.random() < LATE_SHARE else 0
        is_unknown = not visit.is_first and draw.random() < UNKNOWN_SHARE
        self._clicks += 1
        click = Click(
            event_id=f"e-{self._clicks}",
            session_id=visit.session_id,
            item_id=f"new-{draw.randrange(50)}" if is_unknown else draw.choice(ITEMS),
            timestamp_ms=self._now_ms - late_ms,
        )
        visit.last_ms = max(visit.last_ms, click.timestamp_ms)
        visit.clicks_left -= 1
        visit.is_first = False
        return Record(visit.session_id, encode_click(click), click.event_id)

    def _next_visit(self, ended: _Visit) -> _Visit:
        """Somebody new, or somebody who was away for longer than the idle timeout."""
        if self._random.random() < COMES_BACK_SHARE:
            away_ms = IDLE_TIMEOUT_MS + GAP_MARGIN_MS + MAX_LATE_MS
            self._asleep.append((self._now_ms + away_ms, ended.session_id))
        if self._asleep and self._asleep[0][0] <= self._now_ms:
            return _Visit(self._asleep.popleft()[1], self._visit_clicks())
        return self._new_visit()

    def _new_visit(self) -> _Visit:
        self._sessions += 1
        return _Visit(f"s-{self._sessions}", self._visit_clicks())

    def _visit_clicks(self) -> int:
        return self._random.randint(1, MAX_VISIT_CLICKS)

    def _bad_record(self) -> Record:
        number = self._random.randrange(1_000_000)
        value = self._random.choice(
            [
                None,
                b'{"event_id": "bad-%d", "session' % number,
                b'{"pad":"' + b"x" * 17_000 + b'"}',
                orjson.dumps({"event_id": f"bad-{number}", "session_id": "s", "item_id": 1.5}),
                orjson.dumps({"event_id": "b", "session_id": "s", "item_id": "i", "timestamp_ms": number}),
            ]
        )
        return Record(f"bad-{number}" if number % 2 else None, value, None)
