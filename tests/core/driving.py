"""Feeds clicks to a real `Recommender`, and compares what comes out."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from schemas.session_history import FORMAT_VERSION, SessionHistory, event_hash
from tests.core.reference import HOUR_MS, Click, Expected, Limits
from worker.core.advance import Answer, Batch, CatalogueTooLargeError, History, Recommender, SessionChange
from worker.core.item_register import ItemRegister
from worker.core.popularity import PopularItems
from worker.core.session_index import NO_ROW
from worker.core.session_model import SessionModel
from worker.core.session_table import SessionTable

START_MS = 1_700_000_000_000
NOW_MS = START_MS + 100 * HOUR_MS
SCORE_TOLERANCE = 2e-4
"""Against a model whose states are never rounded. The worker rounds each number of a state to within 1/65,534
of the largest; the cells of these tests forget such an error within a few clicks. Scores, cosines times
eleven, were off by 2.1e-5 at worst over 24,000 clicks in sessions of 12 to 60 (half of them by less than
1e-6); ten times that leaves room for the odd cell."""
TIE = 1e-4
"""Between two runs of the worker. Products of batches of other sizes differ in their last bit, which tips a
number from one step of the rounding to the next now and then: 7.6e-6 at worst over the same clicks."""


def kept(session_id: str, history: History | None, partition: int = 0) -> SessionHistory | None:
    """What the changelog holds of a session, as it is read back."""
    if history is None:
        return None
    items, last_activity_ms, source_offset, event_hashes = history
    return SessionHistory(
        FORMAT_VERSION, session_id, items, last_activity_ms, partition, source_offset, event_hashes.hex()
    )


def recommender(limits: Limits) -> Recommender:
    return Recommender(
        SessionTable(
            limits.max_sessions,
            limits.history_length,
            limits.idle_timeout_ms,
            limits.duplicate_window,
            limits.top_k,
        ),
        ItemRegister(limits.max_items),
        PopularItems(limits.top_k, limits.half_life_ms),
        limits.top_k,
    )


@dataclass
class Run:
    """A recommender and all that it answered so far."""

    worker: Recommender
    answers: list[Answer | None] = field(default_factory=list)
    judged: dict[str, int] = field(default_factory=lambda: {"model": 0, "popular": 0})
    hits: dict[str, int] = field(default_factory=lambda: {"model": 0, "popular": 0})
    reciprocal_ranks: dict[str, float] = field(default_factory=lambda: {"model": 0.0, "popular": 0.0})
    next_offsets: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def advance(self, clicks: Sequence[Click], now_ms: int = NOW_MS) -> list[Answer | None]:
        """One batch; None for each duplicate."""
        offsets = [self._offset(click) for click in clicks]
        events = [
            click.event or f"click {click.partition}/{offset}"
            for click, offset in zip(clicks, offsets, strict=True)
        ]
        advanced = self.worker.advance(
            Batch(
                [click.session for click in clicks],
                [click.item for click in clicks],
                [click.timestamp_ms for click in clicks],
                [click.partition for click in clicks],
                offsets,
                [event_hash(event) for event in events],
                now_ms,
            )
        )
        assert len(advanced.answers) == len(clicks)
        self.answers += advanced.answers
        for source in ("model", "popular"):
            self.judged[source] += advanced.judgement.judged[source]
            self.hits[source] += advanced.judgement.hits[source]
            self.reciprocal_ranks[source] += advanced.judgement.reciprocal_ranks[source]
        return advanced.answers

    def feed(self, clicks: Sequence[Click], now_ms: int = NOW_MS) -> list[Answer]:
        """One batch without duplicates."""
        answers = [answer for answer in self.advance(clicks, now_ms) if answer is not None]
        assert len(answers) == len(clicks)
        return answers

    def restore(self, records: Sequence[SessionChange], at_once: int = 1_000) -> None:
        """What a changelog holds, cut into chunks of so many records."""
        for start in range(0, len(records), at_once):
            by_partition: dict[int, list[SessionChange]] = {}
            for record in records[start : start + at_once]:
                by_partition.setdefault(record.partition, []).append(record)
            for partition, found in by_partition.items():
                histories = [kept(record.session_id, record.history, partition) for record in found]
                self.worker.restore(partition, [record.session_id for record in found], histories, NOW_MS)

    def _offset(self, click: Click) -> int:
        offset = self.next_offsets[click.partition] if click.offset is None else click.offset
        self.next_offsets[click.partition] = max(self.next_offsets[click.partition], offset + 1)
        return offset

    def adopt(self, model: SessionModel) -> bool:
        """Whether the model was taken."""
        try:
            self.worker.adopt(model)
        except CatalogueTooLargeError:
            return False
        return True

    def history(self, session: str, partition: int = 0) -> list[str]:
        """Item ids, oldest first; "" for what came when the register was full."""
        row = self.worker.table.row(partition, session)
        assert row != NO_ROW
        items, counts = self.worker.table.records.histories(np.array([row]))
        return [self.worker.register.item_id(number) for number in items[0, : counts[0]].tolist()]

    def live(self, among: Iterable[tuple[int, str]]) -> set[tuple[int, str]]:
        """Which of these sessions are live, each a partition and an id; there must be no others."""
        found = {key for key in among if self.worker.table.row(*key) != NO_ROW}
        assert len(found) == len(self.worker.table)
        return found


def new_run(limits: Limits | None = None) -> Run:
    return Run(recommender(limits or Limits()))


def keys_of(steps: "Iterable[Step]") -> set[tuple[int, str]]:
    """All sessions of a stream: partition and id."""
    return {(step.partition, step.session) for step in steps if isinstance(step, Click)}


class Changelog:
    """What the changelog topic holds: all records, and what compaction leaves of them."""

    def __init__(self) -> None:
        self.records: list[SessionChange] = []

    def write(self, worker: Recommender) -> None:
        """The changes of a batch, as the shell writes them."""
        self.records += worker.changes()

    def compacted(self) -> list[SessionChange]:
        """The last record of each session, in the order of the log, without those that have ended."""
        last: dict[tuple[int, str], SessionChange] = {}
        for record in self.records:
            key = (record.partition, record.session_id)
            last.pop(key, None)
            if record.history is not None:
                last[key] = record
        return list(last.values())


def check_answer(answer: Answer | None, expected: Expected | None) -> None:
    """The same source and, up to ties, the same best items, with their scores."""
    if answer is None or expected is None:
        assert (answer is None) == (expected is None), "duplicates, and no others, are not answered"
        return
    assert answer.source == expected.source
    assert len(answer.items) == len(answer.scores) == len(expected.best)
    assert len(set(answer.items)) == len(answer.items)
    for item, score, best in zip(answer.items, answer.scores.tolist(), expected.best, strict=True):
        assert abs(score - expected.scores[item]) < SCORE_TOLERANCE, "the score of its own item"
        assert abs(score - expected.scores[best]) < SCORE_TOLERANCE, "as high as the i-th best"


def check_same_answers(ours: Sequence[Answer | None], theirs: Sequence[Answer | None]) -> bool:
    """Two runs answered alike; returns whether to the last item, or only up to ties."""
    identical = True
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        if one is None or other is None:
            assert one is other
            continue
        assert one.source == other.source
        assert np.allclose(one.scores, other.scores, rtol=0, atol=TIE)
        if one.items != other.items:
            identical = False
            check_tied(one, other)
    return identical


def check_tied(one: Answer, other: Answer) -> None:
    """Items that stand at different places, or in one answer only, have scores within a tie of each other."""
    theirs = dict(zip(other.items, other.scores.tolist(), strict=True))
    last = float(one.scores[-1])  # what is missing over there fell off the end
    for item, score in zip(one.items, one.scores.tolist(), strict=True):
        assert abs(score - theirs.get(item, last)) <= TIE


@dataclass(frozen=True)
class Swap:
    """Between two clicks, this model is announced."""

    model: int


Step = Click | Swap

MINUTE_MS = 60_000
GAPS_MS = [
    0,
    0,
    0,
    1,
    1_000,
    MINUTE_MS,
    29 * MINUTE_MS,
    30 * MINUTE_MS,
    31 * MINUTE_MS,
    -1_000,
    -10 * MINUTE_MS,
]
"""Between clicks: mostly none, so that batches hold many; late ones; just within and beyond the idle time."""


ORDINARY, SWAP, DUPLICATE, REPLAY, ELSEWHERE = range(5)
WHAT_COMES = [*[ORDINARY] * 10, SWAP, SWAP, DUPLICATE, DUPLICATE, REPLAY, REPLAY, ELSEWHERE, ELSEWHERE]


@st.composite
def streams(
    draw: st.DrawFn,
    sessions: int = 5,
    items: int = 14,
    models: int = 0,
    size: int = 60,
    gaps_ms: Sequence[int] = tuple(GAPS_MS),
) -> list[Step]:
    """Clicks of a few sessions on items i0, i1, …, in two partitions, with models announced in between.

    Now and then a producer sends an event again, a click is replayed, or a session clicks in both partitions.
    """
    choices = st.tuples(
        st.integers(0, sessions - 1),
        st.integers(0, items - 1),
        st.sampled_from(gaps_ms),
        st.sampled_from(WHAT_COMES),
    )
    at_least = draw(st.sampled_from([1, size // 2]))
    time_ms = START_MS
    found: list[Step] = []
    clicks: dict[int, list[Click]] = {0: [], 1: []}
    offsets = {0: 0, 1: 0}
    for session, item, gap_ms, what in draw(st.lists(choices, min_size=at_least, max_size=size)):
        time_ms += gap_ms
        if models and what == SWAP:
            found.append(Swap(item % models))
        partition = (session + (what == ELSEWHERE)) % 2
        offset = offsets[partition]
        earlier = [click for click in clicks[partition] if click.session == f"s{session}"]
        event = f"{partition}/{offset}"
        if earlier and what in (DUPLICATE, REPLAY):
            back = earlier[-1 - item % len(earlier)]
            if what == REPLAY:
                found.append(back)
                continue
            event = str(back.event)
        click = Click(f"s{session}", f"i{item}", time_ms, partition, offset, event)
        offsets[partition] += 1
        clicks[partition].append(click)
        found.append(click)
    return found


def in_batches(
    run: Run, steps: Sequence[Step], models: Sequence[SessionModel], cuts: Sequence[int]
) -> list[bool]:
    """Feed the steps, cut at these clicks and wherever a model comes; returns which models were taken."""
    taken: list[bool] = []
    for batch in batches_of(steps, cuts):
        if isinstance(batch, Swap):
            taken.append(run.adopt(models[batch.model]))
        else:
            run.advance(batch)
    return taken


def batches_of(steps: Sequence[Step], cuts: Sequence[int]) -> list[list[Click] | Swap]:
    """The steps, cut at these positions and wherever a model comes."""
    found: list[list[Click] | Swap] = []
    batch: list[Click] = []
    for position, step in enumerate(steps):
        if batch and (isinstance(step, Swap) or position in cuts):
            found.append(batch)
            batch = []
        if isinstance(step, Swap):
            found.append(step)
        else:
            batch.append(step)
    return [*found, batch] if batch else found
