"""Dead letters without a broker: what is read, shown, grouped, repaired, sent back and refused."""

import base64
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.click_file import UnreadableClicksError
from deploy.commands.dead_letters import ReasonName
from deploy.dead_letter_outcomes import Refusal
from deploy.dead_letter_repairs import read_repairs
from deploy.dead_letter_replay import REPLAYED_HEADER, Choice, prepared
from deploy.dead_letter_sender import Outgoing
from deploy.dead_letters import (
    EXCERPT_CHARACTERS,
    FOREIGN,
    DeadLetter,
    DeadLetterError,
    Groups,
    Position,
    dead_letter,
    excerpt,
    instant,
    json_line,
    parse_positions,
    printable,
)
from schemas.click import InvalidClickError, Reason
from schemas.dead_letter import UNREADABLE_HEADERS, Header, cut, dead_letter_headers
from tests.deploy.test_cli import nextclick

NOW_MS = 1_760_000_000_000
CLICKS = "shop.clicks"
AT = Position(2, 5)
GOOD = json.dumps({"event_id": "e", "session_id": "s", "item_id": "i", "timestamp_ms": NOW_MS}).encode()


def letter(
    value: bytes | None,
    key: bytes | None = b"k",
    original: Sequence[Header] = (),
    reason: Reason = Reason.INVALID,
    position: Position = AT,
    at_ms: int = NOW_MS,
) -> DeadLetter:
    """A letter as a worker writes it, of record 77 of partition 1."""
    headers = dead_letter_headers(CLICKS, 1, 77, InvalidClickError(reason, "no item"), original)
    return dead_letter(position, at_ms, key, value, headers)


def sent(one: DeadLetter, repair: bytes | None = None) -> Outgoing:
    ready = prepared(one, repair, CLICKS, NOW_MS)
    assert isinstance(ready, Outgoing)
    return ready


def why_refused(one: DeadLetter, repair: bytes | None = None, topic: str = CLICKS) -> str:
    ready = prepared(one, repair, topic, NOW_MS)
    assert isinstance(ready, Refusal)
    assert ready.position == one.position
    return ready.why


# What goes back, and what does not


def test_what_is_a_click_goes_back_as_it_came_with_a_header_that_says_where_it_lay() -> None:
    original: list[Header] = [("shop", b"north"), ("shop", None), ("traceparent", b"00-a")]
    ready = sent(letter(GOOD, original=original))
    assert ready == Outgoing(
        Position(2, 5), f"{CLICKS}-1@77", b"k", GOOD, [*original, (REPLAYED_HEADER, b"shop.clicks-1@77")]
    )


def test_a_letter_that_was_replayed_before_and_one_with_unreadable_headers_get_no_header_twice() -> None:
    ready = sent(letter(GOOD, original=[(REPLAYED_HEADER, b"old"), UNREADABLE_HEADERS, ("a", b"b")]))
    assert ready.headers == [("a", b"b"), (REPLAYED_HEADER, b"shop.clicks-1@77")]


def test_without_a_key_it_gets_its_session_id_and_any_other_key_stays() -> None:
    assert sent(letter(GOOD, key=None)).key == b"s"
    assert sent(letter(GOOD, key=b"")).key == b""
    assert sent(letter(GOOD, key=b"\xff")).key == b"\xff"


def test_a_repaired_value_replaces_its_own() -> None:
    ready = sent(letter(b"broken", key=None), GOOD)
    assert (ready.value, ready.key) == (GOOD, b"s")


@pytest.mark.parametrize(
    ("value", "says"),
    [(None, "tombstone"), (b"broken", "malformed"), (b"{}", "invalid"), (b"x" * 20_000, "oversized")],
)
def test_what_is_still_no_click_is_refused_with_or_without_a_repair(value: bytes | None, says: str) -> None:
    assert says in why_refused(letter(value))
    assert "--repaired" in why_refused(letter(value))
    if value is not None:
        assert says in why_refused(letter(GOOD), repair=value)
        assert "--repaired" not in why_refused(letter(GOOD), repair=value)


def test_a_letter_that_was_cut_is_refused_and_says_where_the_whole_lies_unless_repaired() -> None:
    key, value, original = cut(b"k", GOOD, [("large", b"x" * 1_000_000)])
    one = letter(value, key, original, Reason.OVERSIZED)
    why = why_refused(one)
    assert "shop.clicks-1@77" in why
    assert one.cut_from_bytes is not None
    assert one.cut_from_bytes in why
    ready = sent(one, GOOD)
    assert (ready.key, ready.headers) == (b"s", [(REPLAYED_HEADER, b"shop.clicks-1@77")])


def test_what_came_from_another_topic_or_is_no_dead_letter_is_refused() -> None:
    assert "--clicks-topic" in why_refused(letter(GOOD), topic="other.clicks")
    assert "headers" in why_refused(dead_letter(Position(0, 0), 0, b"k", GOOD, [("shop", b"north")]))


def test_a_choice_names_the_letters_that_both_say() -> None:
    a, b, c = Position(0, 1), Position(0, 2), Position(1, 1)
    assert Choice().named() is None
    assert Choice(positions={a, b}).named() == {a, b}
    assert Choice(repairs={b: b"", c: b""}).named() == {b, c}
    assert Choice(positions={a, b}, repairs={b: b"", c: b""}).named() == {b}


# Repairs


def write(tmp_path: Path, *lines: bytes) -> str:
    path = tmp_path / "repaired.jsonl"
    path.write_bytes(b"\n".join(lines))
    return str(path)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.binary(max_size=200).filter(_is_text), st.integers(0, 2**40))
def test_what_list_writes_is_what_repaired_reads(
    tmp_path_factory: pytest.TempPathFactory, value: bytes, offset: int
) -> None:
    line = json_line(letter(value, position=Position(3, offset)))
    file = write(tmp_path_factory.mktemp("repaired"), line)
    assert read_repairs(file) == {Position(3, offset): value}


def test_a_repaired_value_is_an_object_byte_for_byte_or_a_text(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        b'{"partition": 0, "offset": 5, "value": {"session_id" : 18446744073709551615, "x": 1.50}}',
        b"",
        b'{"partition": 1, "offset": 5, "reason": "invalid", "value": "{\\"a\\": \\"\\u00e9\\"}"}\r',
    )
    assert read_repairs(file) == {
        Position(0, 5): b'{"session_id" : 18446744073709551615, "x": 1.50}',
        Position(1, 5): '{"a": "é"}'.encode(),
    }


def test_repairs_may_be_packed(tmp_path: Path) -> None:
    path = tmp_path / "repaired.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"partition": 0, "offset": 1, "value": {}}\n'))
    assert read_repairs(str(path)) == {Position(0, 1): b"{}"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"nonsense", "line 2"),
        (b'{"partition": 0, "value": {}}', "offset"),
        (b'{"partition": 0, "offset": 9}', "value"),
        (b'{"partition": -1, "offset": 9, "value": {}}', "partition"),
        (b'{"partition": "0", "offset": 9, "value": {}}', "partition"),
        (b'{"partition": 0, "offset": 9, "value": "\xff"}', "line 2"),
        (b'{"partition": 0, "offset": 9, "value": "\\ud800"}', "line 2"),
        (b'{"partition": 0, "offset": 9, "value": ' + b"[" * 200_000, "line 2"),
        (b'{"partition": 0, "offset": 1, "value": {}}', "0:1 stands there already"),
        (b'{"pad": "' + b"x" * 8_000_000 + b'"}', "longer than"),
    ],
)
def test_a_bad_line_of_repairs_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    file = write(tmp_path, b'{"partition": 0, "offset": 1, "value": {}}', line)
    with pytest.raises(DeadLetterError, match=says):
        read_repairs(file)


def test_a_file_of_repairs_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableClicksError, match=r"none\.jsonl"):
        read_repairs(str(tmp_path / "none.jsonl"))


# What is shown


def test_a_json_line_holds_the_letter_whole() -> None:
    line = json_line(letter(b"\xff{", key=None))
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "partition": 2,
        "offset": 5,
        "timestamp_ms": NOW_MS,
        "reason": "invalid",
        "message": "no item",
        "source_topic": CLICKS,
        "source_partition": "1",
        "source_offset": "77",
        "cut_from_bytes": None,
        "key": None,
        "key_base64": None,
        "value": None,
        "value_base64": base64.b64encode(b"\xff{").decode(),
    }


@given(st.binary(max_size=2_000))
def test_an_excerpt_is_one_printable_line_whatever_the_bytes(value: bytes) -> None:
    shown = excerpt(value)
    assert shown.isprintable()
    assert len(shown) <= EXCERPT_CHARACTERS * len("\\U0010ffff") + 1


def test_an_excerpt_is_the_first_characters() -> None:
    assert excerpt(None) == "(no value)"
    assert excerpt(b"short") == "short"
    assert excerpt("é".encode() * 120) == "é" * 120
    assert excerpt("\U0001f600".encode() * 121) == "\U0001f600" * 120 + "…"
    assert excerpt(b"a\n\x1b[2J\xff\xe2\x80\xae") == "a\\n\\x1b[2J\\xff\\u202e"
    assert printable("\ud800", 9) == "\\ud800"


def test_times_that_no_clock_has_are_left_out() -> None:
    assert instant(NOW_MS) == "2025-10-09 08:53:20"
    assert instant(0) == instant(2**62) == ""


def test_letters_are_grouped_by_reason_with_the_newest_as_samples() -> None:
    groups = Groups(samples=2)
    groups.add(letter(b"", reason=Reason.TOMBSTONE, position=Position(0, 0), at_ms=5))
    for number, at_ms in enumerate((30, 10, 40, 20)):
        groups.add(letter(b"x", position=Position(number % 2, number), at_ms=at_ms))
    groups.add(dead_letter(Position(0, 9), 1, None, b"foreign", []))
    (first, invalid), (second, foreign), (third, tombstone) = groups.by_count()
    assert (first, second, third) == ("invalid", FOREIGN, "tombstone")
    assert (invalid.count, invalid.first_ms, invalid.last_ms, invalid.partitions) == (4, 10, 40, {0, 1})
    assert [sample.timestamp_ms for sample in invalid.samples] == [30, 40]
    assert (foreign.count, tombstone.count) == (1, 1)


def test_reasons_that_somebody_makes_up_do_not_fill_the_memory() -> None:
    groups = Groups(samples=1)
    for number in range(200):
        one = letter(b"x")
        headers = [
            (name, f"r{number}".encode() if name.endswith(".reason") else text) for name, text in one.headers
        ]
        groups.add(dead_letter(Position(0, number), 1, None, b"x", headers))
    found = dict(groups.by_count())
    assert len(found) == Groups.MAX_REASONS + 1
    assert found[Groups.OTHER].count == 200 - Groups.MAX_REASONS


# The command line


def test_positions_are_read_as_documented() -> None:
    assert parse_positions("0:17, 2:5") == {Position(0, 17), Position(2, 5)}
    for text in ("", "0", "0:", "a:1", "0:1,", "0:1-5", "-1:0", "0:١"):
        with pytest.raises(ValueError, match="PARTITION:OFFSET"):
            parse_positions(text)


def test_the_reasons_of_the_command_are_those_of_the_contract() -> None:
    assert set(get_args(ReasonName)) == {reason.value for reason in Reason}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay"], "say which: --reason, --offsets, --last, --since, --repaired or --all"),
        (["replay", "--dry-run"], "say which"),
        (["replay", "--all", "--last", "1h"], "--all does not go with"),
        (["replay", "--offsets", "7"], "PARTITION:OFFSET"),
        (["replay", "--reason", "nonsense"], "nonsense"),
        (["list", "--last", "soon"], "no duration"),
        (["list", "--last", "1h", "--since", "2026-01-01"], "not both"),
        (["list", "--limit", "0"], "limit"),
    ],
)
def test_usage_errors_name_the_trouble(arguments: list[str], says: str) -> None:
    done = nextclick("dead-letters", *arguments)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize("command", ["dead-letters list", "dead-letters replay"])
def test_help_teaches_with_an_example(command: str) -> None:
    done = nextclick(*command.split(), "--help")
    assert done.returncode == 0
    assert f"nextclick {command}" in done.stdout.partition("xample")[2]
