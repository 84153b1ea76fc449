"""Repaired dead letters: JSON lines as `nextclick dead-letters list --json` gives them, edited by hand."""

from collections.abc import Iterator
from typing import Annotated, BinaryIO

import msgspec
from msgspec import Meta

from deploy.click_file import opened
from deploy.dead_letters import DeadLetterError, Position

MAX_REPAIRS = 100_000
"""Letters in one file; they are held in memory. At a click's largest size that is 1.6 GB, usually 30 MB."""

MAX_LINE_BYTES = 8_000_000
"""A letter of 900 kB, as escaped text and in base64."""

Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Line(msgspec.Struct):
    """What is read of a line; all other fields only help whoever edits it."""

    partition: Offset
    offset: Offset
    value: msgspec.Raw


_decode = msgspec.json.Decoder(_Line).decode
_decode_text = msgspec.json.Decoder(str).decode


def read_repairs(file: str) -> dict[Position, bytes]:
    """The new values by position on the dead-letter topic.

    `value` is a click as a JSON object, sent byte for byte as it stands in the line, or a text that holds
    one. Whether it is a click is not asked here.

    Args:
        file: its name, also with .gz; `-` is standard input.

    Raises:
        DeadLetterError: a line is broken or names a letter a second time, or there are too many.
        UnreadableClicksError: the file cannot be read.
    """
    repairs: dict[Position, bytes] = {}
    with opened(file) as stream:
        for number, line in _lines(stream, file):
            try:
                read = _decode(line)
                value = bytes(read.value)
                if value.startswith(b'"'):
                    value = _decode_text(value).encode()
            except (ValueError, RecursionError) as error:  # all that msgspec raises is a ValueError
                raise DeadLetterError(f"{file}, line {number}: {error}") from None
            position = Position(read.partition, read.offset)
            if position in repairs:
                raise DeadLetterError(f"{file}, line {number}: letter {position} stands there already")
            if len(repairs) == MAX_REPAIRS:
                raise DeadLetterError(f"{file} holds more than {MAX_REPAIRS:,} letters: split it")
            repairs[position] = value
    return repairs


def _lines(stream: BinaryIO, file: str) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers from 1."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DeadLetterError(f"{file}, line {number}: longer than {MAX_LINE_BYTES:,} bytes")
        if stripped := line.strip():
            yield number, stripped
