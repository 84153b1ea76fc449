"""What the worker promises, written down click by click: no arrays, no batches, no shared code with the core.

PyTorch's own layers in float64 whose states are never rounded, a list of sessions for each partition, lists
for all else. Slow and plain on purpose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from schemas.model_manifest import CELL_SHAPES
from tests.core.models import fed, torch_layers
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
    duplicate_window: int = 8


@dataclass(frozen=True)
class Click:
    """One record of the clicks topic.

    Attributes:
        offset: its place in the partition; None: the next one, whoever feeds it knows which.
        event: its event id; None: one that no other click has.
    """

    session: str
    item: str
    timestamp_ms: int
    partition: int = 0
    offset: int | None = None
    event: str | None = None


@dataclass(frozen=True)
class Expected:
    """What must be answered: the k highest of `scores` (all items that may be recommended)."""

    source: str
    scores: dict[str, float]
    best: list[str]


@dataclass
class Session:
    name: str
    last_activity_ms: int
    source_offset: int = -1
    events: list[str | None] = field(default_factory=list)  # of all its applied clicks
    history: list[str | None] = field(default_factory=list)  # None: came when the register was full
    state: Tensor | None = None
    last_known: str | None = None
    encoded_by: object = None
    published: list[str] = field(default_factory=list)
    published_by: str = ""


class PlainModel:
    """One session through PyTorch's own layers, in float64. Its state: [parts, layers, 1, H], h before c."""

    def __init__(self, model: SessionModel) -> None:
        self.rows = {item: row for row, item in enumerate(model.items)}
        self.embedding = model.embedding.double()
        self.layers = [
            CellWeights(*(None if tensor is None else tensor.double() for tensor in cell))  # type: ignore[arg-type]
            for cell in model.layers
        ]
        self.network = torch_layers(model.cell, self.layers, self.embedding)
        self.parts = CELL_SHAPES[model.cell].states
        self.item_matrix = model.item_matrix.double()
        self.cosine = model.score == "cosine"
        self.query_hidden = model.query.query_hidden.double()
        self.query_item = None if model.query.query_item is None else model.query.query_item.double()

    def start(self) -> Tensor:
        return self.embedding.new_zeros(self.parts, len(self.layers), 1, self.query_hidden.shape[0])

    @torch.no_grad()
    def after(self, state: Tensor, item: str) -> Tensor:
        """The state after a click on an item that the model knows."""
        x = fed(self.layers, self.embedding, torch.tensor([[self.rows[item]]]))
        _, following = self.network(x, (state[0], state[1]) if self.parts == 2 else state[0])
        return torch.stack(following) if self.parts == 2 else following[None]

    def scores(self, state: Tensor, item: str) -> dict[str, float]:
        """Score of every item for a session in this state whose last click was on this item."""
        asked = self.query_hidden @ state[0, -1, 0]
        if self.query_item is not None:
            asked = asked + self.query_item @ self.embedding[self.rows[item]]
        if self.cosine:
            asked = asked / asked.norm()
        found = self.item_matrix @ asked
        return {known: float(found[row]) for known, row in self.rows.items()}

    def scores_after(self, items: Sequence[str]) -> dict[str, float]:
        """Score of every item after a fresh session of these items, all of them known."""
        state = self.start()
        for item in items:
            state = self.after(state, item)
        return self.scores(state, items[-1])


class PlainWorker:
    """The core's behaviour, one click at a time.

    - A session belongs to the partition of its clicks; the same id in another partition is another session.
    - The sessions of a partition stand in a line, the latest to be touched last. One that is idle for longer
      than the limit even after its click stands first.
    - A click that its session has applied already (its offset is not beyond the last applied one) is
      `replayed`: answered from what the session is by now; neither counted as popular, nor judged, nor
      applied; but its answer is what was published last.
    - A click with one of the last few applied event ids of its session is a `duplicate`: not answered; as if
      it had not come.
    - Any other click moves the time of its partition on; then those who stand first in the line of that
      partition go, as long as they have been idle for too long.
    - A new session that finds the worker full takes the place of another: of those who stand first in their
      lines, the one with the earliest last activity; of equal ones that of the lower partition.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.lines: dict[int, list[Session]] = {}
        self.registered: list[str] = []
        self.clicks: list[tuple[str | None, int]] = []  # item and watermark of every applied click so far
        self.next_ranking = 1
        self.popular: dict[str, float] = {}
        self.watermark_ms = 0
        self.watermarks_ms: dict[int, int] = {}
        self.plain: PlainModel | None = None
        self.late = self.expired = self.evicted = self.replayed = self.duplicates = 0
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
        for partition in partitions:
            self.lines.pop(partition, None)
            self.watermarks_ms.pop(partition, None)

    def click(self, click: Click, now_ms: int) -> Expected | None:
        """The answer that is due, None for a duplicate. The click must have an offset."""
        assert click.offset is not None
        session = self.find(click.partition, click.session)
        if session is not None and click.offset <= session.source_offset:
            self.replayed += 1
            self._bring_up_to_date(session)
            return self._publish(session)
        if session is not None and click.event is not None and click.event in self._recent(session):
            self.duplicates += 1
            return None
        session = self._touched(click, min(click.timestamp_ms, now_ms))
        session.source_offset = click.offset
        session.events.append(click.event)
        item = self._register(click.item)
        self._count(item)
        self._judge(session, item)
        self._bring_up_to_date(session)
        self._step(session, item)
        session.history.append(item)
        return self._publish(session)

    def find(self, partition: int, name: str) -> Session | None:
        line = self.lines.get(partition, [])
        return next((session for session in line if session.name == name), None)

    def live(self) -> list[tuple[int, str]]:
        return [(partition, session.name) for partition, line in self.lines.items() for session in line]

    def _recent(self, session: Session) -> list[str | None]:
        window = self.limits.duplicate_window
        return session.events[-window:] if window else []

    def _touched(self, click: Click, time_ms: int) -> Session:
        """The session after time has moved on and everyone has gone who had to, in its new place."""
        idle_ms = self.limits.idle_timeout_ms
        self.watermark_ms = max(self.watermark_ms, time_ms)
        now_there_ms = max(self.watermarks_ms.get(click.partition, 0), time_ms)
        self.watermarks_ms[click.partition] = now_there_ms
        line = self.lines.setdefault(click.partition, [])
        while line and now_there_ms - line[0].last_activity_ms > idle_ms:
            line.pop(0)
            self.expired += 1
        found = self.find(click.partition, click.session)
        if found is None:
            if len(self.live()) == self.limits.max_sessions:
                self._evict()
            found = Session(click.session, time_ms)
        else:
            line.remove(found)
            self.late += time_ms < found.last_activity_ms
            if time_ms - found.last_activity_ms > idle_ms:
                found = Session(click.session, time_ms)
        found.last_activity_ms = max(found.last_activity_ms, time_ms)
        line.insert(0 if now_there_ms - found.last_activity_ms > idle_ms else len(line), found)
        return found

    def _evict(self) -> None:
        occupied = [partition for partition, line in self.lines.items() if line]
        first = min(occupied, key=lambda partition: (self.lines[partition][0].last_activity_ms, partition))
        self.lines[first].pop(0)
        self.evicted += 1

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

    def _bring_up_to_date(self, session: Session) -> None:
        """Re-encode a session that another model has encoded, from the clicks that are kept."""
        if self.plain is None or session.encoded_by is self.plain:
            return
        session.state, session.last_known, session.encoded_by = self.plain.start(), None, self.plain
        for past in session.history[-self.limits.history_length :]:
            self._step(session, past)

    def _step(self, session: Session, item: str | None) -> None:
        if self.plain is not None and session.state is not None and item in self.plain.rows:
            session.state, session.last_known = self.plain.after(session.state, item), item

    def _publish(self, session: Session) -> Expected:
        if self.plain is not None and session.last_known is not None and session.state is not None:
            scores, source = self.plain.scores(session.state, session.last_known), "model"
        else:
            scores, source = self.popular, "popular"
        best = sorted(scores, key=lambda item: (-scores[item], self.registered.index(item)))
        expected = Expected(source, scores, best[: self.limits.top_k])
        session.published, session.published_by = expected.best, source
        return expected


def popular_scores(clicks: list[tuple[str | None, int]], now_ms: int, half_life_ms: int) -> dict[str, float]:
    """Each click counts one when it comes and half of that a half-life later."""
    scores: dict[str, float] = {}
    for item, time_ms in clicks:
        if item is not None:
            scores[item] = scores.get(item, 0.0) + 0.5 ** ((now_ms - time_ms) / half_life_ms)
    return {item: score for item, score in scores.items() if score > 0}
