"""SessionHistory: a record of the changelog topic. Key = session id, value = JSON; a tombstone forgets.

A tombstone says in a header (`ENDED_AT`) of which source offset its session was.

It stores what the user did, never what a model made of it: the last clicks of the session as item ids. A
hidden state is derived from it by whichever model serves, so the record outlives every model.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.identifiers import IdText

FORMAT_VERSION = 1

MAX_HISTORY_ITEMS = 1_024
"""Far above the default of 32: what lies further back hardly moves a GRU's state."""


EVENT_HASH_BYTES = 8
"""A click is taken for another one by mistake once in 2^64 / 8 comparisons: never."""

MAX_RECENT_EVENTS = 64

MAX_DIGITS = 19
"""Of an offset, which has 63 bits."""


def event_hash(event_id: str) -> bytes:
    """What stands for an event id in a history: its BLAKE2b of `EVENT_HASH_BYTES`."""
    return blake2b(event_id.encode(), digest_size=EVENT_HASH_BYTES).digest()


class SessionHistory(msgspec.Struct, frozen=True, gc=False):
    """The last clicks of one session, oldest first."""

    format_version: Annotated[int, Meta(ge=1)]
    session_id: IdText
    items: Annotated[list[IdText], Meta(max_length=MAX_HISTORY_ITEMS)]
    last_activity_ms: Annotated[int, Meta(ge=0, le=2**63 - 1, description="event time of the latest click")]
    source_partition: Annotated[int, Meta(ge=0, description="partition of the clicks topic")]
    source_offset: Annotated[
        int, Meta(ge=0, le=2**63 - 1, description="offset of the last click that was applied")
    ]
    recent_events: Annotated[
        str,
        Meta(
            max_length=MAX_RECENT_EVENTS * EVENT_HASH_BYTES * 2,
            extra_json_schema={"pattern": "^([0-9a-f]{16})*$"},  # checked below, in less time
            description="BLAKE2b-64 of the last few event ids in hex, oldest first, one after the other",
        ),
    ] = ""


ENDED_AT = "nextclick_source_offset"
"""Header of a tombstone: offset of the last click of the session that it ends, in decimal digits."""

NOT_TOLD = -1


def tombstone_headers(ended_at: int) -> list[tuple[str, str | bytes | None]]:
    """Headers of a tombstone that ends a session as it was at this source offset, or `NOT_TOLD`."""
    return [] if ended_at == NOT_TOLD else [(ENDED_AT, b"%d" % ended_at)]


def ended_at(headers: Iterable[tuple[str, str | bytes | None]]) -> int:
    """What `tombstone_headers` wrote; `NOT_TOLD` where it is missing or no offset."""
    for name, value in headers:
        if name == ENDED_AT and isinstance(value, bytes) and len(value) <= MAX_DIGITS and value.isdigit():
            return int(value)
    return NOT_TOLD


class UnsupportedFormatError(ValueError):
    """The record was written by a newer version: upgrade this worker before it takes over the partition."""


class _Version(msgspec.Struct):
    format_version: int = 0


_decode = msgspec.json.Decoder(SessionHistory).decode
_decode_version = msgspec.json.Decoder(_Version).decode
_encode = msgspec.json.Encoder().encode


def encode_session_history(history: SessionHistory) -> bytes:
    """Encode a history as the value of a changelog record."""
    return _encode(history)


def decode_session_history(value: bytes) -> SessionHistory:
    """Decode the value of a changelog record.

    Raises:
        UnsupportedFormatError: its `format_version` is newer than `FORMAT_VERSION`.
        UnicodeDecodeError, RecursionError: the bytes are no JSON that can be read.
        msgspec.DecodeError: the bytes are no session history.
    """
    return decode_session_histories([value])[0]


def decode_session_histories(values: Sequence[bytes]) -> list[SessionHistory]:
    """The same of many, in less time than one by one; all or none.

    Raises:
        UnsupportedFormatError, UnicodeDecodeError, RecursionError, msgspec.DecodeError: of one of them.
    """
    try:
        histories = list(map(_decode, values))
    except msgspec.ValidationError:
        for value in values:  # a newer format may well have another shape
            _refuse_newer(_decode_version(value).format_version)
        raise
    _refuse_newer(max((history.format_version for history in histories), default=FORMAT_VERSION))
    hashes = [history.recent_events for history in histories]
    is_whole = not any(len(some) % (2 * EVENT_HASH_BYTES) for some in hashes)
    if not is_whole or "".join(hashes).encode().translate(None, b"0123456789abcdef"):
        raise msgspec.ValidationError("Expected event hashes in hex - at `$.recent_events`")
    return histories


def _refuse_newer(format_version: int) -> None:
    if format_version > FORMAT_VERSION:
        raise UnsupportedFormatError(
            f"session history of format {format_version}; this version reads up to {FORMAT_VERSION}"
        )
