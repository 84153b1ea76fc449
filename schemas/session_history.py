"""SessionHistory: a record of the changelog topic. Key = session id, value = JSON; a tombstone forgets.

It stores what the user did, never what a model made of it: the last clicks of the session as item ids. A
hidden state is derived from it by whichever model serves, so the record outlives every model.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.identifiers import IdText

FORMAT_VERSION = 1

MAX_HISTORY_ITEMS = 1_024
"""Far above the default of 32: what lies further back hardly moves a GRU's state."""


class SessionHistory(msgspec.Struct, frozen=True):
    """The last clicks of one session, oldest first."""

    format_version: Annotated[int, Meta(ge=1)]
    session_id: IdText
    items: Annotated[list[IdText], Meta(min_length=1, max_length=MAX_HISTORY_ITEMS)]
    last_activity_ms: Annotated[int, Meta(description="event time of the latest click")]
    source_partition: Annotated[int, Meta(ge=0, description="partition of the clicks topic")]
    source_offset: Annotated[int, Meta(ge=0, description="offset of the last click that was applied")]


class UnsupportedFormatError(ValueError):
    """The record was written by a newer version: upgrade this worker before it takes over the partition."""


_decode = msgspec.json.Decoder(SessionHistory).decode
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
    history = _decode(value)
    if history.format_version > FORMAT_VERSION:
        raise UnsupportedFormatError(
            f"session history of format {history.format_version}; this version reads up to {FORMAT_VERSION}"
        )
    return history
