"""Identifiers as they travel: non-empty strings of at most 128 UTF-8 bytes; integers become decimal strings.

The JSON Schema can only bound characters, so the bound in bytes, which is what a broker stores, is checked
here as well.
"""

from typing import Annotated

from msgspec import Meta

MAX_ID_BYTES = 128
"""A UUID has 36 bytes, a URL-like SKU rarely 100; what is longer is a payload in the wrong field."""

IdText = Annotated[
    str, Meta(min_length=1, max_length=MAX_ID_BYTES, description=f"at most {MAX_ID_BYTES} bytes in UTF-8")
]
IdNumber = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Id = IdText | IdNumber
"""What a producer may send: a string, or an integer that is read as its decimal string."""

_ALWAYS_FITS = MAX_ID_BYTES // 4
"""A string of so few characters cannot exceed the bound: UTF-8 takes at most four bytes for one."""


def id_text(value: str | int) -> str:
    """Return the identifier as text: an integer as its decimal string, a string as it is.

    Raises:
        ValueError: the text has more than `MAX_ID_BYTES` bytes in UTF-8.
    """
    text = value if isinstance(value, str) else str(value)
    if len(text) > _ALWAYS_FITS and is_overlong(text):
        raise ValueError(f"identifier of more than {MAX_ID_BYTES} UTF-8 bytes: {text[:32]}…")
    return text


def is_overlong(text: str) -> bool:
    """Whether the text has more than `MAX_ID_BYTES` bytes in UTF-8."""
    return len(text.encode()) > MAX_ID_BYTES
