"""What is beyond the samples: dead letters, recommendations, topics."""

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.announcement import decode_announcement
from schemas.click import InvalidClickError, Reason, decode_click
from schemas.dead_letter import (
    CUT_HEADER,
    PREFIX,
    DeadLetterHeaders,
    Header,
    dead_letter_headers,
    fit_for_brokers,
    read_dead_letter_headers,
)
from schemas.model_manifest import decode_manifest
from schemas.recommendation import cloudevents_headers, decode_recommendation, encode_recommendation
from schemas.session_history import (
    ENDED_AT,
    NOT_TOLD,
    SessionHistory,
    UnsupportedFormatError,
    decode_session_histories,
    decode_session_history,
    encode_session_history,
    ended_at,
    tombstone_headers,
)
from schemas.topics import TopicNames, topic_specs
from tests.schemas.contracts import CODECS, FOLDER, NOW_MS, validator

ORIGINAL: list[Header] = [
    ("traceparent", b"00-ab-cd-01"),
    ("empty", None),
    ("x", b"\xff\x00"),
    ("x", b"again"),
]


def text_of(value: str | bytes | None) -> str:
    assert isinstance(value, bytes)
    return value.decode()


@pytest.mark.parametrize("reason", Reason)
def test_dead_letter_headers_keep_the_original_ones_and_read_back(reason: Reason) -> None:
    error = InvalidClickError(reason, "naïve: `$.item_id`")
    headers = dead_letter_headers("clicks", 3, 2**40, error, ORIGINAL)
    assert headers[: len(ORIGINAL)] == ORIGINAL
    assert read_dead_letter_headers(headers) == DeadLetterHeaders(
        topic="clicks",
        partition="3",
        offset=str(2**40),
        stage="VALUE_CONVERTER",
        exception_class_name="InvalidClickError",
        exception_message="naïve: `$.item_id`",
        reason=reason.value,
    )
    added = dict(headers[len(ORIGINAL) :])
    validator("dead_letter_headers").validate({name: text_of(value) for name, value in added.items()})


def test_dead_letter_of_a_record_without_headers() -> None:
    error = InvalidClickError(Reason.TOMBSTONE, "no value")
    headers = dead_letter_headers("clicks", 0, 0, error, None)
    assert all(name.startswith(PREFIX) for name, _ in headers)
    assert read_dead_letter_headers(headers).reason == "tombstone"


def test_a_dead_letter_that_dies_again_is_read_by_its_last_death() -> None:
    first = dead_letter_headers("clicks", 1, 10, InvalidClickError(Reason.MALFORMED, "first"), ORIGINAL)
    again = dead_letter_headers("repaired", 2, 20, InvalidClickError(Reason.INVALID, "second"), first)
    assert again[: len(first)] == first
    found = read_dead_letter_headers(again)
    assert (found.topic, found.offset, found.exception_message, found.reason) == (
        "repaired",
        "20",
        "second",
        "invalid",
    )


def test_text_headers_read_like_bytes_and_broken_ones_never_raise_another_error() -> None:
    headers = dead_letter_headers("clicks", 1, 10, InvalidClickError(Reason.MALFORMED, "what"), None)
    as_text: list[Header] = [(name, text_of(value)) for name, value in headers]
    assert read_dead_letter_headers(as_text) == read_dead_letter_headers(headers)
    broken: list[Header] = [*headers, (PREFIX + "exception.message", b"\xff!")]
    assert read_dead_letter_headers(broken).exception_message == "\ufffd!"
    for bad in ([], headers[1:], [*headers, (PREFIX + "offset", None)]):
        with pytest.raises(msgspec.ValidationError):
            read_dead_letter_headers(bad)


@given(
    st.text(min_size=1, max_size=20),
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=20), st.floats(allow_nan=False, allow_infinity=False, width=32)
        ),
        min_size=0,
        max_size=20,
    ),
    st.none() | st.text(max_size=10),
    st.sampled_from(["model", "popular"]),
)
@settings(deadline=None)
def test_encoded_recommendations_pass_the_schema_and_read_back_to_the_last_bit(
    session_id: str, ranked: list[tuple[str, float]], version: str | None, source: str
) -> None:
    items, scores = [item for item, _ in ranked], np.array([score for _, score in ranked], np.float32)
    assert source in {"model", "popular"}
    value = encode_recommendation(
        session_id,
        "e",
        items,
        scores,
        version,
        "model" if source == "model" else "popular",
        NOW_MS,
        NOW_MS + 1,
    )
    validator("recommendation").validate(json.loads(value))
    found = decode_recommendation(value)
    assert (found.session_id, found.items, found.model_version, found.source) == (
        session_id,
        items,
        version,
        source,
    )
    assert np.array_equal(np.array(found.scores, np.float32), scores)
    assert (found.click_timestamp_ms, found.generated_at_ms) == (NOW_MS, NOW_MS + 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_never_taken_for_one(bad: float) -> None:
    value = encode_recommendation("s", "e", ["i"], np.array([bad], np.float32), None, "model", 0, 0)
    with pytest.raises(msgspec.ValidationError, match="scores"):
        decode_recommendation(value)


def test_cloudevents_headers() -> None:
    headers = dict(cloudevents_headers("é", b"00-ab-cd-01"))
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_type": b"nextclick.recommendation.v1",
        "ce_source": b"/nextclick/worker",
        "ce_id": "é".encode(),
        "content-type": b"application/json",
        "traceparent": b"00-ab-cd-01",
    }
    assert "traceparent" not in dict(cloudevents_headers("e", None))


def test_a_newer_format_is_told_from_a_broken_record() -> None:
    folder = FOLDER / "samples"
    with pytest.raises(UnsupportedFormatError, match=r"format 2.*up to 1"):
        decode_session_history((folder / "session_history/codec_only/format_2.json").read_bytes())
    with pytest.raises(msgspec.ValidationError, match=r"format 2.*up to 1"):
        decode_announcement((folder / "model_announcement/codec_only/format_2.json").read_bytes())
    with pytest.raises(msgspec.ValidationError, match=r"format 3.*up to 2"):
        decode_manifest((folder / "model_manifest/codec_only/format_3.json").read_bytes())


def history_with(hashes: str) -> bytes:
    return encode_session_history(SessionHistory(1, "s", ["i"], 5, 0, 7, hashes))


def test_many_histories_are_decoded_all_or_none() -> None:
    good = [history_with("0123456789abcdef" * number) for number in range(3)]
    assert decode_session_histories(good) == [decode_session_history(value) for value in good]
    assert decode_session_histories([]) == []
    halves = history_with("01234567"), history_with("89abcdef")  # which make no whole one
    for bad in (
        halves,
        [history_with("0123456789abcdeG")],
        [b"{}"],
        [b"rubbish"],
        [b"\xff"],
        [b"[" * 100_000],
    ):
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError, RecursionError)):
            decode_session_histories([*good, *bad])
    newer = (FOLDER / "samples" / "session_history/codec_only/format_2.json").read_bytes()
    for value in (newer, b'{"format_version": 3, "clicks": []}'):
        with pytest.raises(UnsupportedFormatError, match=r"up to 1"):
            decode_session_histories([*good, value])


@pytest.mark.parametrize("offset", [NOT_TOLD, 0, 2**63 - 1])
def test_a_tombstone_says_of_which_offset_its_session_was(offset: int) -> None:
    assert ended_at([("other", b"7"), *tombstone_headers(offset)]) == offset


@pytest.mark.parametrize("value", [None, b"", b"-3", b"1.5", b"9" * 20, "\u0663"])
def test_a_tombstone_that_says_nonsense_says_nothing(value: str | bytes | None) -> None:
    assert ended_at([(ENDED_AT, value)]) == NOT_TOLD


@pytest.mark.parametrize(
    "contract", ["recommendation", "session_history", "model_announcement", "model_manifest"]
)
@given(st.binary(max_size=100))
@settings(deadline=None, max_examples=50)
def test_random_bytes_raise_value_errors_only(contract: str, data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - DecodeError and UnicodeDecodeError
        CODECS[contract].decode(data)


def test_values_are_frozen() -> None:
    click = decode_click((FOLDER / "samples/click/minimal.json").read_bytes(), NOW_MS)
    with pytest.raises(AttributeError):
        click.item_id = "other"  # type: ignore[misc]


def test_what_is_keyed_by_session_is_co_partitioned_and_state_is_compacted() -> None:
    names = TopicNames(clicks="c", recommendations="r", dead_letters="d", session_histories="h", models="m")
    specs = {spec.name: spec for spec in topic_specs(names, partitions=6, clicks_retention_ms=1_000)}
    assert {name: spec.partitions for name, spec in specs.items()} == {"c": 6, "r": 6, "d": 6, "h": 6, "m": 1}
    policies = {name: spec.config["cleanup.policy"] for name, spec in specs.items()}
    assert policies == {"c": "delete", "r": "delete", "d": "delete", "h": "compact", "m": "compact"}
    assert specs["c"].config["retention.ms"] == "1000"


def test_a_letter_of_a_size_that_brokers_take_is_not_cut() -> None:
    fits: list[Header] = [("shop", b"x" * 1_000), ("empty", None)]
    assert fit_for_brokers(b"key", b"v" * 890_000, fits) == (b"key", b"v" * 890_000, fits)


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"k", b"v" * 900_000, []),
        (b"k" * 900_001, b"v", []),
        (b"k", None, [("name", b"x" * 900_000)]),
        (b"k", b"v", [("a", None)] * 100_000),  # on the wire, each is framed by two lengths
    ],
)
def test_a_letter_too_large_for_brokers_keeps_its_start_and_says_so(
    key: bytes, value: bytes | None, headers: list[Header]
) -> None:
    letter = fit_for_brokers(key, value, headers)
    assert letter.key is None
    assert letter.value == (value or b"")[:65_536]
    [(name, size)] = letter.headers
    assert name == CUT_HEADER
    assert int(size or 0) > 900_000
