"""Dead letter: a record of the clicks topic that is no click, kept as it came.

Key, value and headers are the original ones; what went wrong is said in headers with the names that Kafka
Connect gives them (KIP-298), so that tools made for Connect's dead-letter queues read ours.
"""

from collections.abc import Sequence

import msgspec

from schemas.click import InvalidClickError

PREFIX = "__connect.errors."
STAGE = "VALUE_CONVERTER"

Header = tuple[str, str | bytes | None]


class DeadLetterHeaders(msgspec.Struct, frozen=True, rename=lambda name: PREFIX + name.replace("_", ".")):
    """The headers that a dead letter carries beside those of the original record; all values are text."""

    topic: str
    partition: str
    offset: str
    stage: str
    exception_class_name: str
    exception_message: str
    reason: str


def dead_letter_headers(
    topic: str, partition: int, offset: int, error: InvalidClickError, original: Sequence[Header] | None
) -> list[Header]:
    """Headers of the dead letter: the original ones first, then where it came from and why it is here."""
    said = DeadLetterHeaders(
        topic=topic,
        partition=str(partition),
        offset=str(offset),
        stage=STAGE,
        exception_class_name=type(error).__name__,
        exception_message=error.detail,
        reason=error.reason.value,
    )
    fields: dict[str, str] = msgspec.to_builtins(said)
    return [*(original or ()), *((name, text.encode()) for name, text in fields.items())]


def read_dead_letter_headers(headers: Sequence[Header]) -> DeadLetterHeaders:
    """Read back what `dead_letter_headers` wrote; where a name stands twice the last one wins.

    Raises:
        msgspec.ValidationError: a header is missing, so this record is no dead letter of ours.
    """
    texts = {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for name, value in headers
        if name.startswith(PREFIX)
    }
    return msgspec.convert(texts, DeadLetterHeaders)
