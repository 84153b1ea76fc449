"""ModelAnnouncement: a record of the models topic (compacted, one partition). Key = model version.

The newest announcement (highest offset) names the model to serve. The sha256 ties it to one exact manifest,
and the manifest holds the sha256 of every other file, so what was announced is what is served. Announcing an
older version again rolls back to it.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.model_manifest import Sha256, Version

FORMAT_VERSION = 1


class ModelAnnouncement(msgspec.Struct, frozen=True):
    """A model that workers shall take up."""

    format_version: Annotated[int, Meta(ge=1)]
    model_version: Version
    uri: Annotated[str, Meta(min_length=1, max_length=4_096, description="folder of the artefact")]
    manifest_sha256: Sha256
    announced_at_ms: int
    scores: Annotated[dict[str, float], Meta(description="metrics on the slice that the gate looked at")] = {}
    note: Annotated[str, Meta(max_length=1_024)] = ""


_decode = msgspec.json.Decoder(ModelAnnouncement).decode
_encode = msgspec.json.Encoder().encode


def encode_announcement(announcement: ModelAnnouncement) -> bytes:
    """Encode an announcement as the value of a record of the models topic."""
    return _encode(announcement)


def decode_announcement(value: bytes) -> ModelAnnouncement:
    """Decode the value of a record of the models topic.

    Raises:
        UnicodeDecodeError, RecursionError: the bytes are no JSON that can be read.
        msgspec.DecodeError: the bytes are no announcement, or one of a newer format.
    """
    announcement = _decode(value)
    if announcement.format_version > FORMAT_VERSION:
        raise msgspec.ValidationError(
            f"announcement of format {announcement.format_version}; this version reads up to {FORMAT_VERSION}"
        )
    return announcement
