"""One record through the decode path, and what must hold afterwards whatever its bytes are."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from schemas.click import MAX_AHEAD_MS, Click, InvalidClickError, Reason, decode_click, encode_click
from schemas.dead_letter import (
    CUT_VALUE_BYTES,
    MAX_DEAD_LETTER_BYTES,
    dead_letter_headers,
    fit_for_brokers,
    read_dead_letter_headers,
)
from schemas.identifiers import MAX_ID_BYTES
from schemas.recommendation import cloudevents_headers
from tests.fuzz.hostile import Record
from tests.schemas.contracts import validator

Decode = Callable[[bytes | None, int], Click]

MAX_DETAIL_CHARACTERS = 200
"""Of what a dead letter says about itself: a sentence, not the payload."""

KEPT_CRASHES = 20
"""Crashes that are told in full; of the others only the number."""

_CLICK_SCHEMA = validator("click")


class Tally:
    """What became of the records.

    Attributes:
        accepted: how many are clicks.
        refused: how many are not, by reason.
        accepted_by_kind: how many of each kind are clicks.
        crashed: how many raised something else, or broke a promise.
        crashes: the first of these: number, kind and error.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.refused: Counter[Reason] = Counter()
        self.accepted_by_kind: Counter[str] = Counter()
        self.crashed = 0
        self.crashes: list[str] = []

    def examine(self, number: int, record: Record, now_ms: int, decode: Decode = decode_click) -> None:
        """Decode a record and count it; nothing is raised, whatever the decoder does."""
        try:
            reason = _outcome(record, now_ms, decode)
        except Exception as error:  # noqa: BLE001 - any exception at all is what this looks for
            self.crashed += 1
            if len(self.crashes) < KEPT_CRASHES:
                self.crashes.append(f"record {number} ({record.kind}): {type(error).__name__}: {error}"[:500])
            return
        if reason is None:
            self.accepted += 1
            self.accepted_by_kind[record.kind] += 1
        else:
            self.refused[reason] += 1


def _outcome(record: Record, now_ms: int, decode: Decode) -> Reason | None:
    """The reason for which the record is refused, None for a click.

    Raises:
        AssertionError: a promise is broken.
        Exception: whatever else the decode path raises.
    """
    try:
        click = decode(record.value, now_ms)
    except InvalidClickError as error:
        _check_dead_letter(record, error)
        return error.reason
    _check_click(click, record, now_ms, decode)
    return None


def _check_click(click: Click, record: Record, now_ms: int, decode: Decode) -> None:
    for identifier in (click.event_id, click.session_id, click.item_id, click.user_id):
        if identifier is not None:
            assert 0 < len(identifier.encode()) <= MAX_ID_BYTES, "an identifier is out of bounds"
    assert click.timestamp_ms <= now_ms + MAX_AHEAD_MS, "the click is from the future"
    again = encode_click(click)
    assert decode(again, now_ms) == click, "encoded and decoded again, it is another click"
    sent = _as_sent(record.value or b"")
    _CLICK_SCHEMA.validate(json.loads(again))
    if sent is not None:
        _CLICK_SCHEMA.validate(sent)
    assert all(isinstance(value, bytes) for _, value in cloudevents_headers(click.event_id, None))


def _as_sent(value: bytes) -> Any:
    """The document that was sent, None where Python's reader takes it for none.

    It is stricter than ours about the unknown fields, which ours skips unread.
    """
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _check_dead_letter(record: Record, error: InvalidClickError) -> None:
    assert isinstance(error.reason, Reason), "the reason is none of the published ones"
    assert 0 < len(error.detail) <= MAX_DETAIL_CHARACTERS, f"{len(error.detail)} characters of detail"
    letter = fit_for_brokers(record.key, record.value, record.headers)
    headers = dead_letter_headers("clicks", 3, 7, error, letter.headers)
    assert letter.value is None or len(letter.value) <= MAX_DEAD_LETTER_BYTES, "the letter is too large"
    if letter.headers == record.headers:
        assert (letter.key, letter.value) == (record.key, record.value), "the letter is not as it came"
    else:
        assert letter.value == (record.value or b"")[:CUT_VALUE_BYTES], "the cut is not the start"
    said = read_dead_letter_headers(headers)
    assert (said.reason, said.partition, said.offset) == (error.reason, "3", "7"), "forged headers won"
    for _, text in headers:
        assert text is None or isinstance(text, bytes), "a header is no bytes"
