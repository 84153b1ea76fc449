"""The search itself: the same each time, as many as asked for, reaching clicks and most reasons to refuse."""

from schemas.click import Click, Reason, decode_click
from tests.fuzz.examine import Decode, Tally
from tests.fuzz.hostile import Record
from tests.fuzz.searched import search

NOW_MS = 1_760_000_000_000
ENOUGH = 400


def found(count: int, seed: int) -> list[Record]:
    records: list[Record] = []
    search(count, seed, NOW_MS, records.insert, at_once=100)
    return records


def examined(decode: Decode = decode_click) -> Tally:
    tally = Tally()
    search(ENOUGH, 0, NOW_MS, lambda number, record: tally.examine(number, record, NOW_MS, decode), 150)
    return tally


def test_clicks_and_reasons_are_reached_and_each_record_is_counted() -> None:
    tally = examined()
    assert tally.crashes == []
    assert tally.accepted + tally.refused.total() == ENOUGH
    assert tally.accepted > ENOUGH / 20
    assert {Reason.MALFORMED, Reason.INVALID} <= tally.refused.keys()


def test_records_depend_on_seed_and_count_alone() -> None:
    records = found(160, seed=7)
    assert len(records) == 160
    assert found(160, seed=7) == records
    assert found(160, seed=8) != records


def test_a_decoder_that_stumbles_over_a_name_that_comes_twice_is_found_out() -> None:
    def broken(value: bytes | None, now_ms: int) -> Click:
        if value and value.count(b'"session_id"') > 1:
            raise KeyError("session_id")
        return decode_click(value, now_ms)

    tally = examined(broken)
    assert tally.crashed > 0
    assert "KeyError" in tally.crashes[0]
    assert tally.accepted + tally.refused.total() + tally.crashed == ENOUGH
