"""The index against a dictionary."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.core.session_index import NO_ROW, SessionIndex


class Chosen(str):
    """A session id whose hash we choose: the low bits say where it wants to lie."""

    __slots__ = ("hashed",)
    hashed: int

    def __new__(cls, text: str, hashed: int) -> "Chosen":
        made = super().__new__(cls, text)
        made.hashed = hashed
        return made

    def __hash__(self) -> int:
        return self.hashed

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True


def chosen(number: int, spread: int) -> Chosen:
    """Ids that share `spread` homes, which lie around the end of the smallest index and its start."""
    return Chosen(f"s{number}", 14 + number % spread)


class Driven:
    """An index, its ids by row, and the dictionary that it must equal."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.index = SessionIndex(self.ids)
        self.expected: dict[str, int] = {}
        self.free: list[int] = []

    def add(self, session_id: str) -> None:
        if self.free:
            row = self.free.pop()
            self.ids[row] = session_id
        else:
            row = len(self.ids)
            self.ids.append(session_id)
        self.index.add(row)
        self.expected[session_id] = row

    def add_many(self, session_ids: list[str]) -> None:
        """Ids that are not there yet, all at once."""
        rows = []
        for session_id in session_ids:
            rows.append(self.free.pop() if self.free else len(self.ids))
            self.ids[rows[-1] : rows[-1] + 1] = [session_id]
            self.expected[session_id] = rows[-1]
        self.index.add_many(np.array(rows, np.int32))

    def remove(self, session_id: str) -> None:
        self.index.remove(session_id)
        self.free.append(self.expected.pop(session_id))

    def check(self, ids: Iterator[str]) -> None:
        asked = list(ids)
        rows = [self.expected.get(session_id, NO_ROW) for session_id in asked]
        assert [self.index.get(session_id) for session_id in asked] == rows
        assert self.index.get_many(asked).tolist() == rows
        assert len(self.index) == len(self.expected)
        assert sorted(self.index.rows().tolist()) == sorted(self.expected.values())


@given(st.lists(st.integers(0, 11), max_size=120), st.sampled_from([1, 2, 3, 5, 12]))
@settings(deadline=None)
def test_equals_a_dictionary_where_all_collide(numbers: list[int], spread: int) -> None:
    """At most 8 at a time, so that it stays at its smallest: chains wrap around its end."""
    driven = Driven()
    for number in numbers:
        session_id = chosen(number, spread)
        if session_id in driven.expected:
            driven.remove(session_id)
        elif len(driven.expected) < 8:
            driven.add(session_id)
        driven.check(chosen(each, spread) for each in range(12))


@given(st.lists(st.integers(0, 199), max_size=300), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_equals_a_dictionary_while_it_grows(numbers: list[int], spread: int) -> None:
    driven = Driven()
    for number in numbers:
        session_id = chosen(number, spread)
        if session_id in driven.expected:
            driven.remove(session_id)
        else:
            driven.add(session_id)
    driven.check(chosen(each, spread) for each in range(200))


@given(st.lists(st.lists(st.integers(0, 199), max_size=60), max_size=8), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_equals_a_dictionary_where_many_come_at_once(batches: list[list[int]], spread: int) -> None:
    """Those of a batch that are there leave, the others come."""
    driven = Driven()
    for batch in batches:
        asked = dict.fromkeys(chosen(number, spread) for number in batch)
        new = [session_id for session_id in asked if session_id not in driven.expected]
        for session_id in asked:
            if session_id in driven.expected:
                driven.remove(session_id)
        driven.add_many(list(new))
        driven.check(chosen(each, spread) for each in range(200))


def test_many_sessions_come_and_go() -> None:
    """With the hashes that Python gives, over several doublings and back."""
    driven = Driven()
    for number in range(20_000):
        driven.add(f"session-{number}")
        if number % 3:
            driven.remove(f"session-{number - number % 3}" if number % 3 == 1 else f"session-{number}")
    driven.check(f"session-{number}" for number in range(20_000))
    for session_id in list(driven.expected):
        driven.remove(session_id)
    driven.check(f"session-{number}" for number in range(20_000))


@pytest.mark.parametrize("session_id", ["", "a", "ä" * 64, "\x00"])
def test_any_text_is_an_id(session_id: str) -> None:
    driven = Driven()
    assert driven.index.get(session_id) == NO_ROW
    driven.add(session_id)
    driven.check(iter([session_id, "b"]))
