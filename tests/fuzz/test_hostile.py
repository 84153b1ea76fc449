"""The fuzzer itself: it reaches everything, says the same each time, and notices what it is there for."""

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.click import Click, InvalidClickError, Reason, decode_click
from tests.fuzz.examine import KEPT_CRASHES, Decode, Tally
from tests.fuzz.hostile import KINDS, Hostile

NOW_MS = 1_760_000_000_000
ENOUGH = 8_000


def examined(decode: Decode = decode_click, count: int = ENOUGH, seed: int = 0) -> Tally:
    hostile, tally = Hostile(seed, NOW_MS), Tally()
    for number in range(count):
        tally.examine(number, hostile.record(number), NOW_MS, decode)
    return tally


def test_every_kind_every_reason_and_clicks_are_reached() -> None:
    hostile = Hostile(0, NOW_MS)
    assert {hostile.record(number).kind for number in range(ENOUGH)} == KINDS.keys()
    tally = examined()
    assert tally.crashes == []
    assert tally.refused.keys() == set(Reason)
    assert tally.accepted + tally.refused.total() == ENOUGH
    assert tally.accepted > ENOUGH / 10
    assert len(tally.accepted_by_kind) > 5


def test_records_depend_on_seed_and_number_alone() -> None:
    forward, backward, other = Hostile(7, NOW_MS), Hostile(7, NOW_MS), Hostile(8, NOW_MS)
    records = [forward.record(number) for number in range(300)]
    assert [backward.record(number) for number in reversed(range(300))] == records[::-1]
    assert [other.record(number) for number in range(300)] != records


@given(st.integers(0, 2**63))
@settings(deadline=None, max_examples=50)
def test_no_seed_crashes(seed: int) -> None:
    assert examined(count=20, seed=seed).crashes == []


def test_a_decoder_that_raises_something_else_is_reported() -> None:
    def broken(value: bytes | None, now_ms: int) -> Click:
        if value and value.startswith(b"["):
            raise KeyError("item_id")
        return decode_click(value, now_ms)

    tally = examined(broken)
    assert tally.crashed > 0
    assert len(tally.crashes) == min(tally.crashed, KEPT_CRASHES)
    assert "KeyError" in tally.crashes[0]
    assert tally.accepted + tally.refused.total() + tally.crashed == ENOUGH


def test_a_decoder_that_accepts_what_the_schema_forbids_is_reported() -> None:
    def lax(value: bytes | None, now_ms: int) -> Click:
        try:
            return decode_click(value, now_ms)
        except InvalidClickError as error:
            if error.reason is Reason.INVALID:
                return Click("e", "s", "", now_ms)
            raise

    assert any("out of bounds" in crash for crash in examined(lax).crashes)


def test_a_decoder_that_changes_what_was_sent_is_reported() -> None:
    def confused(value: bytes | None, now_ms: int) -> Click:
        click = decode_click(value, now_ms)
        return Click(click.item_id + "x", click.session_id, click.event_id, click.timestamp_ms)

    assert any("another click" in crash for crash in examined(confused).crashes)


def test_a_decoder_that_repeats_the_payload_is_reported() -> None:
    def chatty(value: bytes | None, now_ms: int) -> Click:
        try:
            return decode_click(value, now_ms)
        except InvalidClickError as error:
            raise InvalidClickError(error.reason, error.detail + repr(value)) from None

    assert any("characters of detail" in crash for crash in examined(chatty).crashes)
