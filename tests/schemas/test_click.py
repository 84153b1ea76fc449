"""Clicks at the border: whatever the bytes, a checked click or InvalidClickError with the right reason."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.click import (
    MAX_AHEAD_MS,
    MAX_CLICK_BYTES,
    MIN_TIMESTAMP_MS,
    Click,
    InvalidClickError,
    Reason,
    decode_click,
    encode_click,
)
from schemas.identifiers import MAX_ID_BYTES
from tests.schemas.contracts import NOW_MS, validator

GOOD: dict[str, Any] = {"event_id": "e", "session_id": "s", "item_id": "i", "timestamp_ms": NOW_MS}
ID_FIELDS = ("event_id", "session_id", "item_id", "user_id")
MAX_DETAIL = 200


def with_fields(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}, ensure_ascii=False).encode()


def with_raw(name: str, json_text: bytes) -> bytes:
    """A good click with one more field, whose value is written just so; it wins where it stands twice."""
    return json.dumps(GOOD).encode()[:-1] + b', "' + name.encode() + b'": ' + json_text + b"}"


def refused(value: bytes | None, now_ms: int = NOW_MS) -> InvalidClickError:
    with pytest.raises(InvalidClickError) as caught:
        decode_click(value, now_ms)
    assert isinstance(caught.value.reason, Reason)
    assert 0 < len(caught.value.detail) < MAX_DETAIL
    caught.value.detail.encode()  # it goes into a header
    return caught.value


@pytest.mark.parametrize("value", [None, b""])
def test_tombstone(value: bytes | None) -> None:
    assert refused(value).reason is Reason.TOMBSTONE


def test_size_bound() -> None:
    padding = b" " * (MAX_CLICK_BYTES - len(with_fields()))
    assert decode_click(with_fields() + padding, NOW_MS).item_id == "i"
    assert refused(with_fields() + padding + b" ").reason is Reason.OVERSIZED
    assert refused(b"[" * 100_000).reason is Reason.OVERSIZED


@pytest.mark.parametrize(
    "value",
    [
        b" ",
        b"\x00",
        b"not json",
        b'{"event_id": "e"',
        b"{'event_id': 'e'}",
        with_fields() + b" x",
        with_fields() * 2,
        b"\xef\xbb\xbf" + with_fields(),
        with_fields().decode().encode("utf-16"),
        with_fields(item_id="é").decode().encode("latin-1"),
        b"\xff\xfe",
        with_raw("item_id", b'"\xed\xa0\x80"'),
        with_raw("item_id", b'"\\ud800"'),
        with_raw("item_id", b'"\\udc00\\ud800"'),
        with_raw("other", b'"\\ud800"'),
        with_raw("timestamp_ms", b"NaN"),
        with_raw("timestamp_ms", b"Infinity"),
        with_raw("other", b"NaN"),
        with_raw("item_id", b"007"),
        with_raw("other", b"[" * 16_000),
    ],
    ids=lambda value: repr(value[:12] + b"..." + value[-12:]),
)
def test_what_is_no_json_is_malformed(value: bytes) -> None:
    assert refused(value).reason is Reason.MALFORMED


@pytest.mark.parametrize("value", [b"null", b"[]", b"{}", b'"click"', b"1", b"[" * 16_000])
def test_json_of_another_shape_is_invalid(value: bytes) -> None:
    assert refused(value).reason is Reason.INVALID


@pytest.mark.parametrize("field", ["event_id", "session_id", "item_id", "timestamp_ms"])
def test_required_fields(field: str) -> None:
    value = {name: value for name, value in GOOD.items() if name != field}
    error = refused(json.dumps(value).encode())
    assert error.reason is Reason.INVALID
    assert field in error.detail


@pytest.mark.parametrize("field", ID_FIELDS)
@pytest.mark.parametrize(
    "text", ["x", "x" * MAX_ID_BYTES, "é" * 64, "漢" * 42, "🛒" * 32, "a" * 126 + "é", " ", "\x00", "日\n本"]
)
def test_identifiers_up_to_the_bound(field: str, text: str) -> None:
    assert getattr(decode_click(with_fields(**{field: text}), NOW_MS), field) == text


@pytest.mark.parametrize("field", ID_FIELDS)
@pytest.mark.parametrize(
    "value",
    [
        *("", "x" * 129, "é" * 65, "漢" * 43, "🛒" * 33, "a" * 127 + "é"),
        *(True, False, 1.0, 0.5, 1e3, [], ["x"], {}, {"id": 1}),
        *(2**63, -(2**63) - 1, 2**64, 10**30, -(10**30), 10**400),
    ],
)
def test_what_is_no_identifier(field: str, value: object) -> None:
    error = refused(with_fields(**{field: value}))
    assert error.reason is Reason.INVALID
    assert field in error.detail


@pytest.mark.parametrize("digits", [4_299, 4_300, 4_301, 10_000])
@pytest.mark.parametrize("sign", [b"", b"-"])
def test_huge_numbers_are_refused_with_a_short_message(digits: int, sign: bytes) -> None:
    number = sign + b"1" + b"0" * (digits - 1)
    assert refused(with_raw("item_id", number)).reason is Reason.INVALID
    assert refused(with_raw("dwell_ms", number)).reason is Reason.INVALID
    assert refused(with_raw("timestamp_ms", number)).reason is Reason.TIMESTAMP
    assert decode_click(with_raw("other", number), NOW_MS).item_id == "i"


@pytest.mark.parametrize("number", [0, 1, -1, 42, 2**63 - 1, -(2**63), 10**18])
def test_integer_identifiers_become_their_decimal_text(number: int) -> None:
    click = decode_click(with_fields(**dict.fromkeys(ID_FIELDS, number)), NOW_MS)
    assert [getattr(click, field) for field in ID_FIELDS] == [str(number)] * len(ID_FIELDS)


def test_null_is_no_identifier_but_an_unset_user() -> None:
    assert decode_click(with_fields(user_id=None, event_type=None, dwell_ms=None), NOW_MS).user_id is None
    assert refused(with_fields(item_id=None)).reason is Reason.INVALID


def test_timestamps_at_the_bounds() -> None:
    newest = NOW_MS + MAX_AHEAD_MS
    for good in (MIN_TIMESTAMP_MS, NOW_MS, newest):
        assert decode_click(with_fields(timestamp_ms=good), NOW_MS).timestamp_ms == good
    for bad in (MIN_TIMESTAMP_MS - 1, 0, -1, NOW_MS // 1000, newest + 1, NOW_MS * 1000, 2**53 + 1, 2**64):
        error = refused(with_fields(timestamp_ms=bad))
        assert error.reason is Reason.TIMESTAMP, bad
        assert "timestamp_ms" in error.detail
    assert decode_click(with_fields(timestamp_ms=newest + 1), NOW_MS + 1).timestamp_ms == newest + 1


@pytest.mark.parametrize("value", ["1700000000000", True, None, 1.7e12 + 0.5, float(NOW_MS), []])
def test_timestamps_of_another_type_are_invalid(value: object) -> None:
    assert refused(with_fields(timestamp_ms=value)).reason is Reason.INVALID


def test_other_fields_at_their_bounds() -> None:
    assert decode_click(with_fields(dwell_ms=0, event_type="x" * 64), NOW_MS).dwell_ms == 0
    assert decode_click(with_fields(dwell_ms=2**53), NOW_MS).dwell_ms == 2**53
    for dwell_ms in (-1, 2**53 + 1, True, 1.0):
        assert refused(with_fields(dwell_ms=dwell_ms)).reason is Reason.INVALID
    for event_type in ("x" * 65, 1):
        assert refused(with_fields(event_type=event_type)).reason is Reason.INVALID


def test_the_last_of_duplicate_fields_wins_and_each_is_checked() -> None:
    assert decode_click(with_raw("item_id", b'"last"'), NOW_MS).item_id == "last"
    assert refused(with_raw("item_id", b"1.5")).reason is Reason.INVALID
    assert refused(b'{"item_id": 1.5, ' + with_fields()[1:]).reason is Reason.INVALID


def test_unknown_fields_are_skipped_unread() -> None:
    """What they hold is nobody's business as long as it can be skipped."""
    for value in (b"1e999", b"[[[]]]", b'{"a": {"b": null}}', b'"\xff"', b"[" * 200 + b"]" * 200):
        assert decode_click(with_raw("other", value), NOW_MS) == decode_click(with_fields(), NOW_MS)


@pytest.mark.parametrize("depth", [100, 1_000, 2_500])
def test_deep_nesting_is_skipped_or_refused_but_never_fatal(depth: int) -> None:
    """How deep one can go is the interpreter's business."""
    assert_click_or_reason(with_raw("other", b'{"a":' * depth + b"1" + b"}" * depth))
    assert_click_or_reason(with_raw("item_id", b"[" * depth + b"]" * depth))


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_random_bytes(value: bytes) -> None:
    assert_click_or_reason(value)


@given(st.integers(0, 10_000), st.binary(max_size=6), st.integers(0, 6))
@settings(deadline=None)
def test_damaged_clicks(at: int, patch: bytes, length: int) -> None:
    whole = with_fields(user_id="ü", event_type="view", dwell_ms=3, other={"a": [1, "🛒"]})
    cut = at % (len(whole) + 1)
    assert_click_or_reason(whole[:cut] + patch + whole[cut + length :])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(MIN_TIMESTAMP_MS - 2, NOW_MS + MAX_AHEAD_MS + 2)
    | st.floats()
    | st.text(max_size=140)
    | st.sampled_from(["é" * 64, "é" * 65, "x" * 128, "x" * 129, 2**63, -(2**63), 2**63 - 1, 2**53]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from([*GOOD, "user_id", "event_type", "dwell_ms", "other"])
CLICK_SCHEMA = validator("click")


@given(st.dictionaries(fields, json_values, max_size=3), st.sets(st.sampled_from(list(GOOD)), max_size=1))
@settings(deadline=None, max_examples=200)
def test_what_the_codec_accepts_passes_the_published_schema(
    changed: dict[str, Any], removed: set[str]
) -> None:
    """So whatever fails the schema is refused by the codec as well."""
    sent = {name: value for name, value in {**GOOD, **changed}.items() if name not in removed}
    value = json.dumps(sent).encode()
    click = assert_click_or_reason(value)
    if click is not None:
        CLICK_SCHEMA.validate(sent)


ids = st.text(min_size=1, max_size=32)


@given(
    st.builds(
        Click,
        event_id=ids,
        session_id=ids,
        item_id=ids,
        timestamp_ms=st.integers(MIN_TIMESTAMP_MS, NOW_MS + MAX_AHEAD_MS),
        user_id=st.none() | ids,
        event_type=st.none() | st.text(max_size=64),
        dwell_ms=st.none() | st.integers(0, 2**53),
    )
)
@settings(deadline=None)
def test_what_we_encode_passes_the_schema_and_reads_back(click: Click) -> None:
    value = encode_click(click)
    CLICK_SCHEMA.validate(json.loads(value))
    assert decode_click(value, NOW_MS) == click


def assert_click_or_reason(value: bytes) -> Click | None:
    """Decode; any other exception than InvalidClickError fails the test."""
    try:
        click = decode_click(value, NOW_MS)
    except InvalidClickError:
        refused(value)
        return None
    for name in ("event_id", "session_id", "item_id"):
        assert 0 < len(getattr(click, name).encode()) <= MAX_ID_BYTES
    assert MIN_TIMESTAMP_MS <= click.timestamp_ms <= NOW_MS + MAX_AHEAD_MS
    assert decode_click(encode_click(click), NOW_MS) == click
    return click
