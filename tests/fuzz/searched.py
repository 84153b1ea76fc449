"""Records that hypothesis makes up: documents, texts and damages that nobody thought of when `hostile` was
written. They go through the same checks. In one version of the code a seed and a count say all of them.
"""

import json
from collections.abc import Callable, Iterable

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from schemas.click import MIN_TIMESTAMP_MS
from schemas.dead_letter import PREFIX, Header
from tests.fuzz.hostile import SAMPLES, Record

FIELDS = ("event_id", "session_id", "item_id", "timestamp_ms", "user_id", "event_type", "dwell_ms")

SLICE = 1_000
"""Examples of one search: hypothesis remembers all that it has tried, and a long search would grow large."""

_texts = st.text(st.characters(), max_size=140)  # surrogates too, and lengths around the bound on identifiers
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**80), 2**80), st.floats(), _texts
)
_documents = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=8,
)


def _json(document: object, ascii_only: bool) -> bytes:
    return json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def _object(fields: Iterable[tuple[str, object]], ascii_only: bool) -> bytes:
    """A JSON object in which names may come twice."""
    pairs = (_json(name, ascii_only) + b":" + _json(value, ascii_only) for name, value in fields)
    return b"{" + b",".join(pairs) + b"}"


def _good_fields(now_ms: int) -> st.SearchStrategy[list[tuple[str, object]]]:
    """Of a click that is mostly one."""
    identifiers = st.integers() | st.text(min_size=1, max_size=40)
    return st.tuples(
        st.tuples(st.just("event_id"), identifiers),
        st.tuples(st.just("session_id"), identifiers),
        st.tuples(st.just("item_id"), identifiers),
        st.tuples(st.just("timestamp_ms"), st.integers(MIN_TIMESTAMP_MS, now_ms)),
    ).map(list)


def _damaged(sample: bytes, damages: list[tuple[int, int, bytes]]) -> bytes:
    """Bytes cut out, and others put in their place, at one place after the other."""
    for at, cut, put in damages:
        place = at % (len(sample) + 1)
        sample = sample[:place] + put + sample[place + cut :]
    return sample


def _values(now_ms: int) -> st.SearchStrategy[bytes]:
    odd_fields = st.lists(st.tuples(st.sampled_from(FIELDS) | _texts, _documents), max_size=3)
    clicks = st.builds(
        lambda good, odd, ascii_only: _object([*good, *odd], ascii_only),
        _good_fields(now_ms),
        odd_fields,
        st.booleans(),
    )
    damages = st.lists(
        st.tuples(st.integers(0, 2**16), st.integers(0, 20), st.binary(max_size=8)), min_size=1, max_size=4
    )
    return st.one_of(
        st.binary(max_size=300),
        st.builds(_json, _documents, st.booleans()),
        st.builds(
            _object, st.lists(st.tuples(st.sampled_from(FIELDS), _documents), max_size=8), st.booleans()
        ),
        clicks,
        st.builds(_damaged, st.sampled_from(SAMPLES) | clicks, damages),
    )


def _headers() -> st.SearchStrategy[list[Header]]:
    names = st.text(max_size=20) | st.sampled_from(["traceparent", "ce_id", PREFIX + "reason"])
    return st.just([]) | st.lists(st.tuples(names, st.none() | st.binary(max_size=40)), max_size=3)


def search(
    count: int, of_seed: int, now_ms: int, examine: Callable[[int, Record], None], at_once: int = SLICE
) -> None:
    """Make up exactly so many records, and hand each to `examine`.

    Args:
        count: of the records.
        of_seed: says, with the count, which records these are.
        now_ms: wall clock of who reads them, ms since the epoch.
        examine: gets the number from 0 and the record, and raises nothing.
        at_once: examples of one search; the next has a seed of its own.
    """
    records = st.builds(
        Record, st.just("searched"), st.none() | st.binary(max_size=40), _values(now_ms), _headers()
    )
    done = 0
    while done < count:
        for record in _examples(records, min(at_once, count - done), of_seed << 32 | done):
            examine(done, record)
            done += 1


def _examples(records: st.SearchStrategy[Record], count: int, of_seed: int) -> list[Record]:
    """At most so many, at least one."""
    found: list[Record] = []

    @seed(of_seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(records)
    def collect(record: Record) -> None:
        found.append(record)

    collect()
    return found[:count]
