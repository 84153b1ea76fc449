"""Every contract as its tests see it: the published schema, the samples, and the codec that users call."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jsonschema import Draft202012Validator

import schemas
from schemas.announcement import decode_announcement, encode_announcement
from schemas.click import decode_click, encode_click
from schemas.dead_letter import DeadLetterHeaders, Header, read_dead_letter_headers
from schemas.model_manifest import decode_manifest, encode_manifest
from schemas.recommendation import Recommendation, decode_recommendation, encode_recommendation
from schemas.session_history import decode_session_history, encode_session_history

FOLDER = Path(schemas.__file__).parent
NOW_MS = 1_700_000_000_000
"""The clock that the samples of clicks are read with."""


@dataclass(frozen=True)
class Codec:
    """What reads and writes the values of a contract. Both raise ValueError for what is none."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


def _encode_recommendation(value: Recommendation) -> bytes:
    return encode_recommendation(
        value.session_id,
        value.event_id,
        value.items,
        np.array(value.scores, np.float32),
        value.model_version,
        value.source,
        value.click_timestamp_ms,
        value.generated_at_ms,
    )


def _decode_headers(data: bytes) -> DeadLetterHeaders:
    """The sample is an object of texts; on the wire it is a list of names and bytes."""
    texts: dict[str, Any] = json.loads(data)
    headers: list[Header] = [
        (name, text.encode() if isinstance(text, str) else text) for name, text in texts.items()
    ]
    return read_dead_letter_headers(headers)


CODECS: dict[str, Codec] = {
    "click": Codec(lambda data: decode_click(data, NOW_MS), encode_click),
    "recommendation": Codec(decode_recommendation, _encode_recommendation),
    "dead_letter_headers": Codec(_decode_headers, msgspec.json.encode),
    "session_history": Codec(decode_session_history, encode_session_history),
    "model_announcement": Codec(decode_announcement, encode_announcement),
    "model_manifest": Codec(decode_manifest, encode_manifest),
}


def schema_of(contract: str) -> dict[str, Any]:
    """The published JSON Schema."""
    schema: dict[str, Any] = json.loads((FOLDER / "json" / f"{contract}.json").read_text(encoding="utf-8"))
    return schema


def validator(contract: str) -> Draft202012Validator:
    """Checks values against the published JSON Schema."""
    return Draft202012Validator(schema_of(contract))


def samples(kind: str) -> list[tuple[str, Path]]:
    """Contract and path of every sample of a kind: "" (valid), "invalid" or "codec_only"."""
    return [
        (contract, path)
        for contract in CODECS
        for path in sorted((FOLDER / "samples" / contract / kind).glob("*.json"))
    ]


def sample_id(value: object) -> str:
    """Name of a sample in the report of the tests."""
    return value.stem if isinstance(value, Path) else str(value)
