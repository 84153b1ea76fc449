"""Recommendation: what the worker publishes for each click. Key = session id, value = JSON.

`items` and `scores` run in parallel, best first. `source` says who chose them: `model`, or `popular` for a
session in which the serving model knows nothing. Scores compare within one recommendation only.
Headers are CloudEvents in binary mode (https://github.com/cloudevents/spec, Kafka protocol binding 1.0.2);
`traceparent` (W3C Trace Context) is passed through from the click.
"""

from typing import Annotated, Literal

import msgspec
import numpy as np
import orjson
from msgspec import Meta
from numpy.typing import NDArray

from schemas.identifiers import IdText

Source = Literal["model", "popular"]

CE_TYPE = "nextclick.recommendation.v1"
CE_SOURCE = "/nextclick/worker"
TRACEPARENT = "traceparent"

MAX_ITEMS = 1_000
"""More than any page shows; keeps a record well below the 1 MB that brokers take by default."""


class Recommendation(msgspec.Struct, frozen=True):
    """The next-item recommendation for a session after one of its clicks."""

    session_id: IdText
    event_id: Annotated[str, Meta(min_length=1, description="event_id of the click that is answered")]
    items: Annotated[list[IdText], Meta(max_length=MAX_ITEMS, description="item ids, best first")]
    scores: Annotated[list[float], Meta(max_length=MAX_ITEMS, description="one score per item, descending")]
    model_version: Annotated[str | None, Meta(description="null while no model serves")]
    source: Source
    click_timestamp_ms: Annotated[int, Meta(description="event time of the click, ms since the epoch")]
    generated_at_ms: Annotated[int, Meta(description="wall clock of the worker, ms since the epoch")]


_decode = msgspec.json.Decoder(Recommendation).decode

_CONSTANT_HEADERS: list[tuple[str, str | bytes | None]] = [
    ("ce_specversion", b"1.0"),
    ("ce_type", CE_TYPE.encode()),
    ("ce_source", CE_SOURCE.encode()),
    ("content-type", b"application/json"),
]


def encode_recommendation(
    session_id: str,
    event_id: str,
    items: list[str],
    scores: NDArray[np.float32],
    model_version: str | None,
    source: Source,
    click_timestamp_ms: int,
    generated_at_ms: int,
) -> bytes:
    """Encode one recommendation; `scores` is float32[k], C-contiguous, parallel to `items`.

    Takes the fields rather than a `Recommendation`: this runs once per click, and building the value first
    would cost as much as the encoding.
    """
    return orjson.dumps(
        {
            "session_id": session_id,
            "event_id": event_id,
            "items": items,
            "scores": scores,
            "model_version": model_version,
            "source": source,
            "click_timestamp_ms": click_timestamp_ms,
            "generated_at_ms": generated_at_ms,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def decode_recommendation(value: bytes) -> Recommendation:
    """Decode the value of a record of the recommendations topic.

    Raises:
        UnicodeDecodeError, RecursionError: the bytes are no JSON that can be read.
        msgspec.DecodeError: the bytes are no recommendation (`msgspec.ValidationError` is one of these).
    """
    return _decode(value)


def cloudevents_headers(event_id: str, traceparent: bytes | None) -> list[tuple[str, str | bytes | None]]:
    """Headers of the recommendation that answers the click `event_id`."""
    headers = [*_CONSTANT_HEADERS, ("ce_id", event_id.encode())]
    if traceparent is not None:
        headers.append((TRACEPARENT, traceparent))
    return headers
