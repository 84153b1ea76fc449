"""Hostile records for the clicks topic: what broken, careless and malicious producers send.

`Hostile(seed, now_ms).record(number)` depends on nothing but its arguments, so that whatever went wrong in a
run can be looked at again, alone. Each kind is one small function; `KINDS` says how often it comes.
"""

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import schemas
from schemas.click import MAX_AHEAD_MS, MAX_CLICK_BYTES, MIN_TIMESTAMP_MS
from schemas.dead_letter import PREFIX, Header

SAMPLES = [
    path.read_bytes() for path in sorted((Path(schemas.__file__).parent / "samples/click").rglob("*.json"))
]
"""The golden samples of clicks, good and bad: seeds for mutation."""

SESSIONS = 300
ITEMS = 10_000
"""So many sessions and items (the benchmark's ids) share the good clicks: sessions get long histories."""

_SCATTER = 7_919
"""A prime that does not divide `SESSIONS`: events that follow each other belong to different sessions."""

REPEATED_EVENT = 0.05
"""Share of the clicks whose event was sent before, as a producer that retries does."""

LARGEST_BYTES = 3_000_000
"""Of a value that unfolds: what a broker takes compressed may be larger than what it takes plain."""

_ID_FIELDS = ("event_id", "session_id", "item_id", "user_id")
_FIELDS = (*_ID_FIELDS, "timestamp_ms", "event_type", "dwell_ms", "other")

_ODD_TEXTS = (
    "", " ", "\x00", "a\x00b", "\n", "\u202eabc", "\u200b", "\ufeff", "\uffff", "\U0010ffff", "\x1b[31m",
    "é" * 64, "é" * 65, "漢" * 43, "🛒" * 32, "🛒" * 33, "x" * 128, "x" * 129, "e\u0301" * 40, "\ufdfa" * 30,
    "Z\u0351\u036b\u0343a\u0334", "\U0001f469\u200d\U0001f467", "\u0661\u0662\u0663", "\U0001d7d9",
    "null", "NaN", "../../etc", "' OR 1=1", "{}", "%s%n",
)  # fmt: skip
_RAW_NUMBERS = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "0", "-1", "1.0", "0.1", "1e3", "1E3",
    "007", "+1", "0x1F", "1_000", ".5", "5.", "--1", "1e", "9" * 400, "-" + "9" * 5_000, "1" * 10_000,
    "1." + "0" * 3_000, *map(str, (2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64)),
)  # fmt: skip
_RAW_STRINGS = (
    rb'"\ud800"', rb'"\udfff"', rb'"\udc00\ud800"', rb'"\ud83d\uded2"', rb'"\u0000"', rb'"\u202e"',
    rb'"\x41"', rb'"\u12"', rb'"\u"', rb'"\"', b'"\x01"', b'"\n"', b'"\xff"', b'"\xc0\xaf"',
    b'"\xed\xa0\x80"', b'"\xf5\x80\x80\x80"', b'"\xe2\x82"', b'"\xef\xbf\xbe"', b"'x'", b'"x', b"x",
)  # fmt: skip
_WRONG_TYPES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 1e308, [], [[]], {}, "", "1700000000000", ["x"], {"id": "x"}),
    *({"$oid": "x"}, [1, 2, 3], 10**18, "true", "2026-11-21T00:00:00Z"),
)
_ENCODINGS = ("utf-16", "utf-16-be", "utf-32", "utf-8-sig", "latin-1", "cp037", "utf-7", "shift_jis")


class Record(NamedTuple):
    """One record as a producer sends it, and the kind that it was made as (a name of `KINDS`)."""

    kind: str
    key: bytes | None
    value: bytes | None
    headers: list[Header]


class Hostile:
    """A reproducible sequence of hostile records.

    Args:
        seed: of the sequence.
        now_ms: wall clock of who reads them, ms since the epoch; event times lie around it.
    """

    def __init__(self, seed: int, now_ms: int) -> None:
        self._seed = seed
        self._random = Random()
        self._now_ms = now_ms

    def record(self, number: int) -> Record:
        """Record `number` of the sequence, from 0; the same whenever it is asked for."""
        random = self._random
        random.seed(self._seed << 64 | number)
        kind = random.choices(_NAMES, cum_weights=_CUMULATIVE)[0]
        fields = self._click(random, number)
        key = _key(random, fields["session_id"])
        return Record(kind, key, KINDS[kind].make(random, fields), _headers(random))

    def _click(self, random: Random, number: int) -> dict[str, Any]:
        """The fields of a good click, from which most kinds start."""
        repeated = random.random() < REPEATED_EVENT
        event = max(number - random.randrange(1, 50), 0) if repeated else number
        fields: dict[str, Any] = {
            "event_id": f"e-{event}",
            "session_id": f"s-{event * _SCATTER % SESSIONS}",  # so that a repeated event has its session
            "item_id": f"item-{random.randrange(ITEMS):05}",
            "timestamp_ms": self._now_ms - random.randrange(100_000),
        }
        if random.random() < 0.3:
            fields["user_id"] = random.choice(["u-1", 7, None, "ü"])
            fields["event_type"] = random.choice(["view", None, "", "x" * 64])
            fields["dwell_ms"] = random.choice([0, 2**53, None, 1_200])
        return fields


def _json(fields: object) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _with_raw(fields: dict[str, Any], name: str, raw: bytes) -> bytes:
    """The click with one field written just so; it stands last, so it wins over one of the same name."""
    rest = _json({field: value for field, value in fields.items() if field != name})
    return rest[:-1] + b',"' + name.encode() + b'":' + raw + b"}"


def _good(random: Random, fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=random.random() < 0.5).encode()


def _extra_fields(random: Random, fields: dict[str, Any]) -> bytes:
    for _ in range(random.randrange(1, 6)):
        fields[f"x-{random.randrange(1_000)}"] = random.choice(_WRONG_TYPES)
    return _json(fields)


def _odd_text(random: Random, fields: dict[str, Any]) -> bytes:
    fields[random.choice(_FIELDS)] = random.choice(_ODD_TEXTS) * random.randrange(1, 3)
    return _good(random, fields)


def _raw_string(random: Random, fields: dict[str, Any]) -> bytes:
    return _with_raw(fields, random.choice(_FIELDS), random.choice(_RAW_STRINGS))


def _raw_number(random: Random, fields: dict[str, Any]) -> bytes:
    return _with_raw(fields, random.choice(_FIELDS), random.choice(_RAW_NUMBERS).encode())


def _random_number(random: Random, fields: dict[str, Any]) -> bytes:
    number = random.randrange(-(2**70), 2**70) >> random.randrange(70)
    return _with_raw(fields, random.choice(_FIELDS), str(number).encode())


def _wrong_type(random: Random, fields: dict[str, Any]) -> bytes:
    fields[random.choice(_FIELDS)] = random.choice(_WRONG_TYPES)
    return _json(fields)


def _missing(random: Random, fields: dict[str, Any]) -> bytes:
    for name in random.sample(sorted(fields), random.randrange(1, len(fields) + 1)):
        del fields[name]
    return _json(fields)


def _duplicate_field(random: Random, fields: dict[str, Any]) -> bytes:
    name = random.choice(_FIELDS)
    first, last = (
        random.choice([_json(random.choice(_WRONG_TYPES)), _json(fields.get(name, "x"))]) for _ in range(2)
    )
    return b'{"' + name.encode() + b'":' + first + b"," + _with_raw(fields, name, last)[1:]


def _time(random: Random, fields: dict[str, Any]) -> bytes:
    now_ms = fields["timestamp_ms"]
    edges = (
        MIN_TIMESTAMP_MS,
        now_ms,
        now_ms + MAX_AHEAD_MS,
        2**53,
        2**63,
        0,
        now_ms // 1_000,
        now_ms * 1_000,
    )
    fields["timestamp_ms"] = random.choice(edges) + random.choice([-86_400_000, -1, 0, 1, 86_400_000])
    return _json(fields)


def _truncated(random: Random, fields: dict[str, Any]) -> bytes:
    whole = _json(fields)
    return whole[: random.randrange(len(whole))]


def _mutated(random: Random, fields: dict[str, Any]) -> bytes:
    """A good click or a golden sample, damaged at one to four places."""
    data = bytearray(_good(random, fields) if random.random() < 0.7 else random.choice(SAMPLES))
    for _ in range(random.randrange(1, 5)):
        at = random.randrange(len(data) + 1)
        damage = random.randrange(5)
        if damage == 0:
            data[at : at + 1] = random.randbytes(1)
        elif damage == 1:
            data[at:at] = random.randbytes(random.randrange(1, 5))
        elif damage == 2:
            del data[at : at + random.randrange(1, 9)]
        elif damage == 3:
            data[at:at] = data[at : at + 40]
        elif at < len(data):
            data[at] ^= 1 << random.randrange(8)
    return bytes(data)


def _spliced(random: Random, fields: dict[str, Any]) -> bytes:
    first, second = _json(fields), random.choice(SAMPLES)
    return first[: random.randrange(len(first))] + second[random.randrange(len(second)) :]


def _deep(random: Random, fields: dict[str, Any]) -> bytes:
    depth = random.choice([5, 100, 500, 1_000, 2_500, 8_000])
    left, right = random.choice([(b"[", b"]"), (b'{"a":', b"}")])
    depth = min(depth, (MAX_CLICK_BYTES - 400) // len(left + right))
    raw = left * depth + b"1" + right * (depth if random.random() < 0.7 else 0)
    return raw if random.random() < 0.3 else _with_raw(fields, random.choice(_FIELDS), raw)


def _random_bytes(random: Random, fields: dict[str, Any]) -> bytes:
    return random.randbytes(random.randrange(1, 300))


def _other_encoding(random: Random, fields: dict[str, Any]) -> bytes:
    fields["item_id"] = random.choice(["é", "item-00001", "日本"])
    text = json.dumps(fields, ensure_ascii=False)
    return text.encode(random.choice(_ENCODINGS), "replace")


def _other_format(random: Random, fields: dict[str, Any]) -> bytes:
    """What lands on a topic when somebody names the wrong one."""
    plain = _json(fields)
    others: list[Callable[[], bytes]] = [
        lambda: b"\x00\x00\x00\x00\x2a" + plain,  # a schema registry's frame
        lambda: gzip.compress(plain, 1, mtime=0),
        lambda: pickle.dumps(fields, protocol=2),
        lambda: ",".join(map(str, fields.values())).encode(),
        lambda: b"<click>" + plain + b"</click>",
        lambda: plain + b"\n" + plain,
        lambda: b"[" + plain + b"]",
        lambda: json.dumps(plain.decode()).encode(),
        lambda: plain.replace(b'"', b"'"),
        lambda: plain[:-1] + b",}",
        lambda: b"/* click */" + plain,
        lambda: plain + b"\x00",
        lambda: b" \t\r\n" + plain + b" \t\r\n",
    ]
    return random.choice(others)()


def _scalar(random: Random, fields: dict[str, Any]) -> bytes:
    return random.choice([_json(random.choice(_WRONG_TYPES)), random.choice(_RAW_NUMBERS).encode()])


def _nothing(random: Random, fields: dict[str, Any]) -> bytes | None:
    return random.choice([None, b"", b" ", b"\x00", b"\n"])


def _large(random: Random, fields: dict[str, Any]) -> bytes:
    """Around the bound of what is read, good but for its size."""
    data = _json(fields)
    size = MAX_CLICK_BYTES + random.choice([-1, 0, 1, 100, 16_384])
    return data + b" " * (size - len(data))


def _unfolding(random: Random, fields: dict[str, Any]) -> bytes:
    """Small when it is compressed; more than a dead letter can hold."""
    return b'{"pad":"' + b"x" * random.randrange(800_000, LARGEST_BYTES) + b'"}'


class Kind(NamedTuple):
    """How often a kind comes, as a share among the weights of all, and what makes its value."""

    weight: float
    make: Callable[[Random, dict[str, Any]], bytes | None]


KINDS: dict[str, Kind] = {
    "good": Kind(10, _good),
    "extra_fields": Kind(4, _extra_fields),
    "odd_text": Kind(10, _odd_text),
    "raw_string": Kind(8, _raw_string),
    "raw_number": Kind(8, _raw_number),
    "random_number": Kind(5, _random_number),
    "wrong_type": Kind(8, _wrong_type),
    "missing": Kind(4, _missing),
    "duplicate_field": Kind(6, _duplicate_field),
    "time": Kind(5, _time),
    "truncated": Kind(6, _truncated),
    "mutated": Kind(16, _mutated),
    "spliced": Kind(4, _spliced),
    "deep": Kind(2, _deep),
    "random_bytes": Kind(5, _random_bytes),
    "other_encoding": Kind(3, _other_encoding),
    "other_format": Kind(4, _other_format),
    "scalar": Kind(2, _scalar),
    "nothing": Kind(2, _nothing),
    "large": Kind(0.5, _large),
    "unfolding": Kind(0.05, _unfolding),  # megabytes each: one in some thousands
}
_NAMES = list(KINDS)
_CUMULATIVE = [sum(kind.weight for kind in list(KINDS.values())[: place + 1]) for place in range(len(KINDS))]


def _key(random: Random, session_id: str) -> bytes | None:
    """Mostly the session id, as it should be; else another one's, none, empty, long or no text."""
    if random.random() < 0.8:
        return session_id.encode()
    other = b"s-%d" % random.randrange(SESSIONS)
    return random.choice(
        [other, None, b"", b"\x00", b"\xff\xfe", "ключ".encode(), b"k" * 2_000, random.randbytes(9)]
    )


def _headers(random: Random) -> list[Header]:
    """Mostly none; else some that are odd, forged or many. Names are text: our client sends no others."""
    if random.random() < 0.8:
        return []
    chosen: list[Header] = random.choices(_HEADERS, k=random.randrange(1, 5))
    return chosen * 20 if random.random() < 0.02 else chosen


_HEADERS: tuple[Header, ...] = (
    ("shop", b"north"),
    ("shop", None),
    ("shop", b""),
    ("Größe", "ü".encode()),
    ("bytes", b"\xff\x00\xfe"),
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("traceparent", b"\xff" * 40),
    ("traceparent", b"t" * 5_000),
    ("traceparent", None),
    ("ce_id", b"forged"),
    (PREFIX + "reason", b"forged"),
    (PREFIX + "offset", None),
    (PREFIX + "topic", b"\xff"),
    ("n" * 300, b"v" * 300),
)
