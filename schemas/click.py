"""Click: one event on the clicks topic. Key = session id, value = JSON, at most `MAX_CLICK_BYTES`.

Required: `event_id`, `session_id`, `item_id`, `timestamp_ms`. Optional: `user_id`, `event_type`,
`dwell_ms`. Unknown fields are ignored. Event time lives here, in the payload, never in the timestamp of the
Kafka record: retention works on that one.
"""

import enum
from typing import Annotated

import msgspec
import orjson
from msgspec import Meta

from schemas.identifiers import Id, id_text, is_overlong

MAX_CLICK_BYTES = 16_384
"""All bounded fields together stay under 1 KiB; the rest is room for fields of the producer's own."""

MIN_TIMESTAMP_MS = 946_684_800_000
"""2000-01-01T00:00:00Z. What is older is seconds taken for milliseconds, or an unset clock."""

MAX_AHEAD_MS = 86_400_000
"""One day: room for a producer in a wrong time zone, too little for microseconds taken for milliseconds."""

MAX_EXACT_INTEGER = 2**53
"""Beyond it, JSON readers that know only doubles lose digits."""


class Reason(enum.StrEnum):
    """Why a record is no click; the `reason` label of the dead-letter metrics."""

    TOMBSTONE = "tombstone"
    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    INVALID = "invalid"
    TIMESTAMP = "timestamp_out_of_range"


class InvalidClickError(ValueError):
    """The record is no click: send it to the dead-letter topic and go on.

    Attributes:
        reason: the class of the trouble, few values.
        detail: one sentence for people, naming the field; holds no payload beyond a short excerpt.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Click(msgspec.Struct, frozen=True, gc=False):
    """One checked click. Identifiers are text of at most 128 UTF-8 bytes, `timestamp_ms` is event time."""

    event_id: str
    session_id: str
    item_id: str
    timestamp_ms: int
    user_id: str | None = None
    event_type: str | None = None
    dwell_ms: int | None = None


class ClickOnTheWire(msgspec.Struct, frozen=True, gc=False):
    """What a producer may send; the published JSON Schema is made from this type."""

    event_id: Annotated[Id, Meta(description="unique per click; recommendations carry it back")]
    session_id: Annotated[Id, Meta(description="also the key of the record")]
    item_id: Annotated[Id, Meta(description="the item that was clicked")]
    timestamp_ms: Annotated[
        int,
        Meta(
            ge=MIN_TIMESTAMP_MS,
            le=MAX_EXACT_INTEGER,
            description="event time, ms since the epoch; at most one day ahead of now",
        ),
    ]
    user_id: Id | None = None
    event_type: Annotated[str, Meta(max_length=64)] | None = None
    dwell_ms: Annotated[int, Meta(ge=0, le=MAX_EXACT_INTEGER)] | None = None


_decode = msgspec.json.Decoder(ClickOnTheWire).decode


def decode_click(value: bytes | None, now_ms: int) -> Click:
    """Decode and check the value of a record of the clicks topic.

    Args:
        value: the bytes of the record, None for a tombstone.
        now_ms: wall clock, ms since the epoch; event times more than one day ahead of it are refused.

    Raises:
        InvalidClickError: with the reason; nothing else is raised, whatever the bytes.
    """
    if not value:
        raise InvalidClickError(Reason.TOMBSTONE, "the record has no value")
    if len(value) > MAX_CLICK_BYTES:
        raise InvalidClickError(Reason.OVERSIZED, f"{len(value)} bytes, at most {MAX_CLICK_BYTES} are read")
    try:
        wire = _decode(value)
        click = Click(
            id_text(wire.event_id),
            id_text(wire.session_id),
            id_text(wire.item_id),
            wire.timestamp_ms,
            None if wire.user_id is None else id_text(wire.user_id),
            wire.event_type,
            wire.dwell_ms,
        )
    except msgspec.ValidationError as error:
        reason = Reason.TIMESTAMP if _is_about_range_of_timestamp(str(error)) else Reason.INVALID
        raise InvalidClickError(reason, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidClickError(Reason.MALFORMED, str(error)) from None
    except ValueError as error:  # from id_text
        raise InvalidClickError(Reason.INVALID, f"{error} - at `$.{_overlong_field(wire)}`") from None
    if wire.timestamp_ms > now_ms + MAX_AHEAD_MS:
        ahead_s = (wire.timestamp_ms - now_ms) // 1000
        raise InvalidClickError(Reason.TIMESTAMP, f"timestamp_ms is {ahead_s} s ahead of the worker's clock")
    return click


def _is_about_range_of_timestamp(message: str) -> bool:
    range_troubles = ("Expected `int` >=", "Expected `int` <=", "Integer value out of range")
    return message.startswith(range_troubles) and message.endswith("`$.timestamp_ms`")


def _overlong_field(wire: ClickOnTheWire) -> str:
    identifiers = {
        "event_id": wire.event_id,
        "session_id": wire.session_id,
        "item_id": wire.item_id,
        "user_id": wire.user_id,
    }
    return next(name for name, value in identifiers.items() if isinstance(value, str) and is_overlong(value))


def encode_click(click: Click) -> bytes:
    """Encode a click as a producer would: JSON without the optional fields that are unset."""
    fields = {name: value for name in click.__struct_fields__ if (value := getattr(click, name)) is not None}
    return orjson.dumps(fields)
