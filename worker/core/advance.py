"""Table + batch of clicks → recommendations. The heart of the worker: no I/O, no clock.

How a batch is cut must not matter: one batch of 64 gives what 64 batches of one give. So rows are decided
click by click in order (`SessionTable.touch`), and only what is independent is done side by side (`waves`).
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.recommendation import Source
from schemas.session_history import EVENT_HASH_BYTES, NOT_TOLD, SessionHistory
from worker.core.hidden_states import rounded
from worker.core.item_register import UNREGISTERED, ItemRegister
from worker.core.kept_sessions import KeptSessions
from worker.core.popularity import PopularItems, Ranking
from worker.core.quality import NOTHING_JUDGED, NOTHING_PUBLISHED, Judgement, PublishedTable
from worker.core.scoring import Scorer
from worker.core.session_index import NO_ROW
from worker.core.session_model import SessionModel
from worker.core.session_records import NOTHING_KNOWN
from worker.core.session_table import DUPLICATE, GENERATIONS, REPLAYED, STARTS, Kept, SessionTable
from worker.core.waves import split_into_waves


class Batch(NamedTuple):
    """Clicks in the order of their partitions; all lists have one entry per click."""

    session_ids: list[str]
    item_ids: list[str]
    timestamps_ms: list[int]
    partitions: list[int]
    offsets: list[int]
    event_hashes: list[bytes]  # EVENT_HASH_BYTES each
    now_ms: int  # wall clock; bounds the watermark


class Answer(NamedTuple):
    """The recommendation for one click, best item first."""

    items: list[str]
    scores: NDArray[np.float32]  # [k], contiguous
    source: Source


class History(NamedTuple):
    """What the changelog shall hold of a session."""

    items: list[str]  # item ids, oldest first; those that the register had no room for are missing
    last_activity_ms: int
    source_offset: int
    event_hashes: bytes


class SessionChange(NamedTuple):
    """A session that is not as the changelog has it; `history` is None where it has ended.

    `ended_at` is then the source offset of its last click, where that is known; else NOT_TOLD.
    """

    partition: int
    session_id: str
    history: History | None
    ended_at: int = NOT_TOLD


class Advanced(NamedTuple):
    """What came of a batch: per click, in order, its answer (None for a duplicate), and how the clicks did
    against earlier answers.
    """

    answers: list[Answer | None]
    applied: int  # clicks that were neither duplicates nor replayed
    judgement: Judgement


class CatalogueTooLargeError(ValueError):
    """The items of the model do not fit into the item register: raise `max_items`."""


class Recommender:
    """Advances sessions and answers clicks with the serving model, or with popular items.

    Not thread-safe: one thread calls it, and its table.
    """

    def __init__(
        self, table: SessionTable, register: ItemRegister, popular: PopularItems, top_k: int
    ) -> None:
        self.table = table
        self.register = register
        self._popular = popular
        self._published = PublishedTable(table.records.published, table.records.published_by_model)
        self._top_k = top_k
        self._generation = 0
        self._model: SessionModel | None = None
        self._scorer: Scorer | None = None
        # Item number → row of the model, NOTHING_KNOWN where it has none. The last entry, NOTHING_KNOWN too,
        # stands for every item that is registered later.
        self._model_rows = np.full(1, NOTHING_KNOWN, np.int32)
        self._numbers = np.empty(0, np.int32)  # row of the model → item number
        self.reencoded = 0

    @property
    def model_version(self) -> str | None:
        """Version of the serving model."""
        return None if self._model is None else self._model.version

    def adopt(self, model: SessionModel) -> None:
        """Serve with this model from the next batch on. Sessions stay; their hidden rows become stale.

        Raises:
            CatalogueTooLargeError: its items do not fit; nothing has changed.
        """
        if not self.register.has_room_for(model.items):
            raise CatalogueTooLargeError(f"no room for {len(model.items)} items: raise max_items")
        scorer = Scorer(model.catalogue, self._top_k)
        numbers = self.register.numbers(model.items)
        model_rows = np.full(len(self.register) + 1, NOTHING_KNOWN, np.int32)
        model_rows[numbers] = np.arange(len(model.items), dtype=np.int32)
        if self.table.hidden.layout != model.state_layout:
            self.table.hidden.resize(model.state_layout)
        # That was the last step that can fail; from here on all is new.
        self._numbers = numbers.astype(np.int32)
        self._model_rows = model_rows
        self._generation = (self._generation + 1) % GENERATIONS
        self._model = model
        self._scorer = scorer

    @torch.inference_mode()
    def advance(self, batch: Batch) -> Advanced:
        """Apply the clicks to their sessions, in order, and answer each.

        What the table was before can be had back until the next call: `table.rollback`.
        """
        table = self.table
        table.begin()
        rows: list[int] = []
        kinds: list[int] = []
        watermarks: list[int] = []
        for partition, session_id, event_hash, offset, timestamp_ms in zip(
            batch.partitions,
            batch.session_ids,
            batch.event_hashes,
            batch.offsets,
            batch.timestamps_ms,
            strict=True,
        ):
            row, kind = table.touch(partition, session_id, event_hash, offset, timestamp_ms, batch.now_ms)
            rows.append(row)
            kinds.append(kind)
            watermarks.append(table.watermark_ms)
        answered = [at for at, kind in enumerate(kinds) if kind != DUPLICATE]
        if not answered:
            return Advanced([None] * len(rows), 0, NOTHING_JUDGED)
        numbers = self._numbers_of(batch.item_ids, kinds)
        known = np.array([rows, kinds, watermarks])  # int64 [3, n], converted and gathered at once
        if len(answered) < len(rows):
            known, numbers = known.take(answered, axis=1), numbers[answered]  # rows in one piece, as compiled
        answers, judgement = self._answer_clicks(known[0], known[1], known[2], numbers)
        found: list[Answer | None] = [None] * len(rows)
        for at, answer in zip(answered, answers, strict=True):
            found[at] = answer
        return Advanced(found, len(answered) - kinds.count(REPLAYED), judgement)

    def changes(self) -> list[SessionChange]:
        """The sessions that the changelog has to learn of, by their last change."""
        changed = self.table.changes()
        live = [change.row for change in changed if change.row != NO_ROW]
        histories = map(self._history, self.table.kept(live))
        return [
            SessionChange(partition, session_id, None if row == NO_ROW else next(histories), ended_at)
            for partition, session_id, row, ended_at in changed
        ]

    def restore(
        self, partition: int, session_ids: list[str], histories: Sequence[SessionHistory | None], now_ms: int
    ) -> None:
        """Take up what records of the changelog say of sessions of a partition, None where one has ended.

        Between batches, in the order of the changelog. An activity ahead of the wall clock counts as now, as
        a click's does: it would expire all others.
        """
        if not session_ids:
            return
        ended = np.array([history is None for history in histories])
        live = [history for history in histories if history is not None]

        def column(of_live: list[int]) -> NDArray[np.int64]:
            values = np.zeros(len(ended), np.int64)
            values[~ended] = of_live
            return values

        items, events = [history.items for history in live], [history.recent_events for history in live]
        kept = KeptSessions(
            session_ids,
            ended,
            self.register.numbers(list(chain.from_iterable(items))),
            column(list(map(len, items))),
            np.minimum(column([history.last_activity_ms for history in live]), now_ms),
            column([history.source_offset for history in live]),
            np.frombuffer(bytes.fromhex("".join(events)), np.uint64),
            column(list(map(len, events))) // (2 * EVENT_HASH_BYTES),
        )
        self.table.restore(partition, kept)

    def _history(self, kept: Kept) -> History:
        item_id = self.register.item_id
        items = [item_id(number) for number in kept.items if number != UNREGISTERED]
        return History(items, kept.last_activity_ms, kept.source_offset, kept.event_hashes)

    def _numbers_of(self, item_ids: list[str], kinds: list[int]) -> NDArray[np.int64]:
        """Item numbers int64[n]; clicks that are not applied register nothing and count as UNREGISTERED."""
        applied = [at for at, kind in enumerate(kinds) if kind < REPLAYED]
        if len(applied) == len(item_ids):
            return self.register.numbers(item_ids)
        numbers = np.full(len(item_ids), UNREGISTERED, np.int64)
        numbers[applied] = self.register.numbers([item_ids[at] for at in applied])
        return numbers

    def _answer_clicks(
        self,
        rows: NDArray[np.int64],
        kinds: NDArray[np.int64],
        watermarks_ms: NDArray[np.int64],
        numbers: NDArray[np.int64],
    ) -> tuple[list[Answer], Judgement]:
        """Advance the sessions in these rows by their clicks and answer each, in order."""
        fresh, applied = kinds == STARTS, kinds != REPLAYED
        rankings = self._rankings(numbers, applied, watermarks_ms)
        states, last_items = self._advance_waves(rows, fresh, applied, numbers)
        by_model = last_items != NOTHING_KNOWN
        answers, recommended = self._answer(states, last_items, by_model, rankings)
        return answers, self._published.judge(rows, fresh, applied, numbers, recommended, by_model)

    def _rankings(
        self, numbers: NDArray[np.int64], applied: NDArray[np.bool_], watermarks_ms: NDArray[np.int64]
    ) -> list[Ranking]:
        """The popular items at each click; a replayed click has been counted before."""
        if applied.all():
            return self._popular.count(numbers, watermarks_ms.tolist(), len(self.register))
        in_force = [self._popular.ranking]
        in_force += self._popular.count(numbers[applied], watermarks_ms[applied].tolist(), len(self.register))
        return [in_force[count] for count in np.cumsum(applied).tolist()]

    def _advance_waves(
        self,
        rows: NDArray[np.int64],
        fresh: NDArray[np.bool_],
        applied: NDArray[np.bool_],
        numbers: NDArray[np.int64],
    ) -> tuple[Tensor, NDArray[np.int32]]:
        """State [n, S] and last known item int32[n] of each click's session right after the click."""
        clicked = np.where(applied, self._rows_in_model(numbers), NOTHING_KNOWN)
        waves = split_into_waves(rows.tolist())
        if len(waves) == 1:
            return self._advance_wave(rows, fresh, applied, numbers, clicked)
        states = torch.empty(len(rows), self.table.hidden.width)
        last_items = np.empty(len(rows), np.int32)
        for wave in waves:
            states[torch.from_numpy(wave)], last_items[wave] = self._advance_wave(
                rows[wave], fresh[wave], applied[wave], numbers[wave], clicked[wave]
            )
        return states, last_items

    def _advance_wave(
        self,
        rows: NDArray[np.int64],
        fresh: NDArray[np.bool_],
        applied: NDArray[np.bool_],
        numbers: NDArray[np.int64],
        clicked: NDArray[np.int32],
    ) -> tuple[Tensor, NDArray[np.int32]]:
        """State [n, S] and last known item int32[n] after clicks of which no two are in one row; `clicked`
        int32[n] are rows of the model.
        """
        records = self.table.records
        starting = rows[fresh]
        if len(starting):
            self.table.reset(starting, self._generation)
        self._refresh_stale(rows)
        states = self._step(rows, clicked)
        records.append(rows[applied], numbers[applied])
        return states, records.last_item[rows]

    def _step(self, rows: NDArray[np.int64], clicked: NDArray[np.int32]) -> Tensor:
        """Advance the rows whose clicked item the model knows, the others stay; the states [n, S] then."""
        hidden, last_item = self.table.hidden, self.table.records.last_item
        states = hidden.load(rows)
        known = np.flatnonzero(clicked != NOTHING_KNOWN)
        if self._model is None or not len(known):
            return states
        all_known = len(known) == len(rows)  # nearly always, and then there is nothing to gather
        at = torch.from_numpy(known)
        if not all_known:
            rows, clicked = rows[known], clicked[known]
        stepped = self._model.step(torch.from_numpy(clicked), states if all_known else states[at])
        hidden.store(rows, stepped)
        last_item[rows] = clicked
        if all_known:
            return stepped
        states[at] = stepped
        return states

    def _refresh_stale(self, rows: NDArray[np.int64]) -> None:
        """Re-encode, from their histories, the rows that another model (or none) computed."""
        stale = rows[self.table.records.generation[rows] != self._generation]
        if self._model is None or not len(stale):
            return
        items, counts = self.table.records.histories(stale)
        hidden, last_items = _encode(self._model, self._rows_in_model(items), counts)
        self.table.hidden.store(stale, hidden)
        self.table.records.last_item[stale] = last_items
        self.table.records.generation[stale] = self._generation
        self.reencoded += len(stale)

    def _rows_in_model(self, numbers: NDArray[np.integer]) -> NDArray[np.int32]:
        """Rows of the model for item numbers of any shape; items that came after the model are unknown."""
        return self._model_rows.take(numbers, mode="clip")

    def _answer(
        self,
        states: Tensor,
        last_items: NDArray[np.int32],
        by_model: NDArray[np.bool_],
        rankings: list[Ranking],
    ) -> tuple[list[Answer], NDArray[np.int32]]:
        """The answers, and the recommended item numbers int32[n, k], padded with NOTHING_PUBLISHED."""
        recommended = np.full((len(rankings), self._top_k), NOTHING_PUBLISHED, np.int32)
        at = np.flatnonzero(by_model)
        from_model = iter(self._model_answers(states, last_items, at, recommended))
        popular: dict[int, Answer] = {}  # one answer serves every click of the same ranking
        answers = []
        for position, ranking in enumerate(rankings):
            if by_model[position]:
                answers.append(next(from_model))
                continue
            if id(ranking) not in popular:
                ids = [self.register.item_id(number) for number in ranking.items.tolist()]
                popular[id(ranking)] = Answer(ids, ranking.scores, "popular")
            answers.append(popular[id(ranking)])
            recommended[position, : len(ranking.items)] = ranking.items
        return answers, recommended

    def _model_answers(
        self,
        states: Tensor,
        last_items: NDArray[np.int32],
        at: NDArray[np.int64],
        recommended: NDArray[np.int32],
    ) -> list[Answer]:
        """Answers for the positions `at`, in that order; notes their item numbers in `recommended`."""
        if not len(at) or self._model is None or self._scorer is None:
            return []
        if len(at) < len(states):
            states, last_items = states[torch.from_numpy(at)], last_items[at]
        queries = self._model.ask(states, torch.from_numpy(last_items))
        scores, items = self._scorer.top_k(queries)
        recommended[at, : items.shape[1]] = self._numbers[items]
        ids = self._model.items
        return [
            Answer([ids[item] for item in best], row, "model")
            for best, row in zip(items.tolist(), scores, strict=True)
        ]


def _encode(
    model: SessionModel, items: NDArray[np.int32], counts: NDArray[np.int64]
) -> tuple[Tensor, NDArray[np.int32]]:
    """States [n, S] and last known items int32[n] of sessions with these histories.

    Args:
        model: whose states are wanted.
        items: int32[n, L], rows of the model, oldest first; NOTHING_KNOWN where it does not know the item.
        counts: int64[n], how many of each row's entries are history rather than padding.
    """
    valid = (items != NOTHING_KNOWN) & (np.arange(items.shape[1]) < counts[:, None])
    lengths = valid.sum(axis=1)
    longest_first = np.argsort(-lengths, kind="stable")
    hidden = model.start(len(items))
    last_items = np.full(len(items), NOTHING_KNOWN, np.int32)
    known = np.argsort(~valid, axis=1, kind="stable")  # known entries first, in order
    for step in range(int(lengths.max(initial=0))):
        rows = longest_first[: int((lengths > step).sum())]
        clicked = items[rows, known[rows, step]]
        at = torch.from_numpy(rows)
        hidden[at] = rounded(model.step(torch.from_numpy(clicked), hidden[at]), model.state_layout)
        last_items[rows] = clicked
    return hidden, last_items
