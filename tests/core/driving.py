"""Feeds clicks to a real `Recommender`, and compares what comes out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from tests.core.reference import HOUR_MS, Click, Expected, Limits
from worker.core.advance import Answer, Batch, CatalogueTooLargeError, Recommender
from worker.core.item_register import ItemRegister
from worker.core.popularity import PopularItems
from worker.core.quality import PublishedTable
from worker.core.session_model import SessionModel
from worker.core.session_table import SessionTable

START_MS = 1_700_000_000_000
NOW_MS = START_MS + 100 * HOUR_MS
SCORE_TOLERANCE = 1e-4
TIE = 1e-5


def recommender(limits: Limits) -> Recommender:
    return Recommender(
        SessionTable(limits.max_sessions, limits.history_length, limits.idle_timeout_ms),
        ItemRegister(limits.max_items),
        PopularItems(limits.top_k, limits.half_life_ms),
        PublishedTable(limits.max_sessions, limits.top_k),
        limits.top_k,
    )


@dataclass
class Run:
    """A recommender and all that it answered so far."""

    worker: Recommender
    answers: list[Answer] = field(default_factory=list)
    judged: dict[str, int] = field(default_factory=lambda: {"model": 0, "popular": 0})
    hits: dict[str, int] = field(default_factory=lambda: {"model": 0, "popular": 0})
    reciprocal_ranks: dict[str, float] = field(default_factory=lambda: {"model": 0.0, "popular": 0.0})

    def feed(self, clicks: Sequence[Click], now_ms: int = NOW_MS) -> list[Answer]:
        """One batch."""
        advanced = self.worker.advance(
            Batch(
                [click.session for click in clicks],
                [click.item for click in clicks],
                [click.timestamp_ms for click in clicks],
                [click.partition for click in clicks],
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

    def adopt(self, model: SessionModel) -> bool:
        """Whether the model was taken."""
        try:
            self.worker.adopt(model)
        except CatalogueTooLargeError:
            return False
        return True

    def history(self, session: str) -> list[str]:
        """Item ids, oldest first; "" for what came when the register was full."""
        return [self.worker.register.item_id(number) for number in self.worker.table.history(session)]


def new_run(limits: Limits | None = None) -> Run:
    return Run(recommender(limits or Limits()))


def check_answer(answer: Answer, expected: Expected) -> None:
    """The same source and, up to ties, the same best items, with their scores."""
    assert answer.source == expected.source
    assert len(answer.items) == len(answer.scores) == len(expected.best)
    assert len(set(answer.items)) == len(answer.items)
    for item, score, best in zip(answer.items, answer.scores.tolist(), expected.best, strict=True):
        assert abs(score - expected.scores[item]) < SCORE_TOLERANCE, "the score of its own item"
        assert abs(score - expected.scores[best]) < SCORE_TOLERANCE, "as high as the i-th best"


def check_same_answers(ours: Sequence[Answer], theirs: Sequence[Answer]) -> bool:
    """Two runs answered alike; returns whether to the last item, or only up to ties."""
    identical = True
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
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


@st.composite
def streams(
    draw: st.DrawFn, sessions: int = 5, items: int = 14, models: int = 0, size: int = 60
) -> list[Step]:
    """Clicks of a few sessions on items i0, i1, …, in two partitions, with models announced in between."""
    choices = st.tuples(
        st.integers(0, sessions - 1), st.integers(0, items - 1), st.sampled_from(GAPS_MS), st.integers(0, 9)
    )
    at_least = draw(st.sampled_from([1, size // 2]))
    time_ms = START_MS
    found: list[Step] = []
    for session, item, gap_ms, chance in draw(st.lists(choices, min_size=at_least, max_size=size)):
        time_ms += gap_ms
        if models and chance == 0:
            found.append(Swap(item % models))
        found.append(Click(f"s{session}", f"i{item}", time_ms, session % 2))
    return found


def in_batches(
    run: Run, steps: Sequence[Step], models: Sequence[SessionModel], cuts: Sequence[int]
) -> list[bool]:
    """Feed the steps, cut at these clicks and wherever a model comes; returns which models were taken."""
    taken: list[bool] = []
    batch: list[Click] = []
    for position, step in enumerate(steps):
        if batch and (isinstance(step, Swap) or position in cuts):
            run.feed(batch)
            batch = []
        if isinstance(step, Swap):
            taken.append(run.adopt(models[step.model]))
        else:
            batch.append(step)
    if batch:
        run.feed(batch)
    return taken
