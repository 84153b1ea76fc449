"""What the worker promises, written down click by click: no arrays, no batches, no shared code with the core.

PyTorch's own GRU cell in float64, a dictionary of sessions in the order of their last clicks, lists for all
else. Slow and plain on purpose.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.core.models import TEMPERATURE, torch_cell
from worker.core.session_model import SessionModel
from worker.core.step import CellWeights

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Limits:
    """The settings that the core knows."""

    max_sessions: int = 8
    history_length: int = 6
    idle_timeout_ms: int = HOUR_MS // 2
    max_items: int = 100
    top_k: int = 3
    half_life_ms: int = 24 * HOUR_MS


@dataclass(frozen=True)
class Click:
    session: str
    item: str
    timestamp_ms: int
    partition: int = 0


@dataclass(frozen=True)
class Expected:
    """What must be answered: the k highest of `scores` (all items that may be recommended)."""

    source: str
    scores: dict[str, float]
    best: list[str]


@dataclass
class Session:
    last_activity_ms: int
    partition: int
    history: list[str | None] = field(default_factory=list)  # None: came when the register was full
    state: Tensor | None = None
    last_known: str | None = None
    encoded_by: object = None
    published: list[str] = field(default_factory=list)
    published_by: str = ""


class PlainModel:
    """One session through PyTorch's own cell, in float64."""

    def __init__(self, model: SessionModel) -> None:
        self.rows = {item: row for row, item in enumerate(model.items)}
        self.embedding = model.embedding.double()
        self.unit = self.embedding / self.embedding.norm(dim=1, keepdim=True)
        self.cell = torch_cell(CellWeights(*(tensor.double() for tensor in model.cell)))
        self.query_hidden, self.query_item = (tensor.double() for tensor in model.query)

    def start(self) -> Tensor:
        return self.embedding.new_zeros(self.embedding.shape[1])

    @torch.no_grad()
    def after(self, state: Tensor, item: str) -> Tensor:
        """The state after a click on an item that the model knows."""
        following: Tensor = self.cell(self.embedding[self.rows[item]][None], state[None])[0]
        return following

    def scores(self, state: Tensor, item: str) -> dict[str, float]:
        """Score of every item for a session in this state whose last click was on this item."""
        asked = self.query_hidden @ state + self.query_item @ self.embedding[self.rows[item]]
        cosines = self.unit @ asked / asked.norm()
        return {known: float(TEMPERATURE * cosines[row]) for known, row in self.rows.items()}

    def scores_after(self, items: Sequence[str]) -> dict[str, float]:
        """Score of every item after a fresh session of these items, all of them known."""
        state = self.start()
        for item in items:
            state = self.after(state, item)
        return self.scores(state, items[-1])


class PlainWorker:
    """The core's behaviour, one click at a time."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self.registered: list[str] = []
        self.clicks: list[tuple[str | None, int]] = []  # item and watermark of every click so far
        self.next_ranking = 1
        self.popular: dict[str, float] = {}
        self.watermark_ms = 0
        self.watermarks_ms: dict[int, int] = {}
        self.plain: PlainModel | None = None
        self.judged = {"model": 0, "popular": 0}
        self.hits = {"model": 0, "popular": 0}
        self.reciprocal_ranks = {"model": 0.0, "popular": 0.0}

    def adopt(self, model: SessionModel) -> bool:
        """Whether the model was taken."""
        new = [item for item in model.items if item not in self.registered]
        if len(self.registered) + len(new) > self.limits.max_items:
            return False
        self.registered += new
        self.plain = PlainModel(model)
        return True

    def forget(self, partitions: set[int]) -> None:
        for name in [name for name, session in self.sessions.items() if session.partition in partitions]:
            del self.sessions[name]
        for partition in partitions:
            self.watermarks_ms.pop(partition, None)

    def click(self, click: Click, now_ms: int) -> Expected:
        session = self._session(click, now_ms)
        item = self._register(click.item)
        self._count(item)
        self._judge(session, item)
        self._advance(session, item)
        expected = self._answer(session)
        session.published, session.published_by = expected.best, expected.source
        return expected

    def _session(self, click: Click, now_ms: int) -> Session:
        time_ms = min(click.timestamp_ms, now_ms)
        self.watermark_ms = max(self.watermark_ms, time_ms)
        self.watermarks_ms[click.partition] = max(self.watermarks_ms.get(click.partition, 0), time_ms)
        for name, session in list(self.sessions.items()):
            watermark_ms = self.watermarks_ms[session.partition]
            if session.last_activity_ms >= watermark_ms - self.limits.idle_timeout_ms:
                break  # least recently active first
            del self.sessions[name]
        found = self.sessions.pop(click.session, None)
        if found is None or time_ms - found.last_activity_ms > self.limits.idle_timeout_ms:
            found = Session(time_ms, click.partition)
        if len(self.sessions) == self.limits.max_sessions:
            self.sessions.popitem(last=False)
        self.sessions[click.session] = found
        found.last_activity_ms = max(found.last_activity_ms, time_ms)
        found.partition = click.partition
        return found

    def _register(self, item: str) -> str | None:
        if item not in self.registered and len(self.registered) < self.limits.max_items:
            self.registered.append(item)
        return item if item in self.registered else None

    def _count(self, item: str | None) -> None:
        self.clicks.append((item, self.watermark_ms))
        if len(self.clicks) == self.next_ranking:
            self.popular = popular_scores(self.clicks, self.watermark_ms, self.limits.half_life_ms)
            self.next_ranking += min(max(len(self.clicks) // 16, 1), 1_024)

    def _judge(self, session: Session, item: str | None) -> None:
        if not session.published:
            return
        by = session.published_by
        self.judged[by] += 1
        if item in session.published:
            self.hits[by] += 1
            self.reciprocal_ranks[by] += 1 / (session.published.index(item) + 1)

    def _advance(self, session: Session, item: str | None) -> None:
        if self.plain is not None:
            if session.encoded_by is not self.plain:
                session.state, session.last_known = self.plain.start(), None
                for past in session.history[-self.limits.history_length :]:
                    self._step(session, past)
                session.encoded_by = self.plain
            self._step(session, item)
        session.history.append(item)

    def _step(self, session: Session, item: str | None) -> None:
        assert self.plain is not None
        assert session.state is not None
        if item in self.plain.rows:
            session.state, session.last_known = self.plain.after(session.state, item), item

    def _answer(self, session: Session) -> Expected:
        if self.plain is not None and session.last_known is not None and session.state is not None:
            scores, source = self.plain.scores(session.state, session.last_known), "model"
        else:
            scores, source = self.popular, "popular"
        best = sorted(scores, key=lambda item: (-scores[item], self.registered.index(item)))
        return Expected(source, scores, best[: self.limits.top_k])


def popular_scores(clicks: list[tuple[str | None, int]], now_ms: int, half_life_ms: int) -> dict[str, float]:
    """Each click counts one when it comes and half of that a half-life later."""
    scores: dict[str, float] = {}
    for item, time_ms in clicks:
        if item is not None:
            scores[item] = scores.get(item, 0.0) + 0.5 ** ((now_ms - time_ms) / half_life_ms)
    return {item: score for item, score in scores.items() if score > 0}
