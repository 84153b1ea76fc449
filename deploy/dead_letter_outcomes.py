"""Says what becomes of each letter that was to go back: lines for people, or JSON lines."""

import sys
from typing import NamedTuple, Protocol

import orjson
from rich.console import Console

from deploy.dead_letter_sender import Outgoing
from deploy.dead_letters import Position, excerpt, printable

_KEY_CHARACTERS = 40


class Refusal(NamedTuple):
    """A letter that is not sent, and why; `source` is empty where it is not known."""

    position: Position
    source: str
    why: str


class Outcomes(Protocol):
    """Told of each letter once, when it is known what becomes of it.

    Attributes:
        refusals: letters refused so far.
    """

    refusals: int

    def would_send(self, letter: Outgoing, /) -> None:
        """A dry run would have sent it."""

    def refused(self, letter: Refusal, /) -> None:
        """It is not sent."""

    def settled(self, letter: Outgoing, error: str | None, /) -> None:
        """It was sent and has been acknowledged, or not: then with the error."""

    def end(self, topic: str, /) -> None:
        """No more will come; `topic` is where they went."""


class LinesForPeople:
    """Refused and failed letters, in a dry run those that would be sent, and a summary."""

    def __init__(self, dry_run: bool) -> None:
        self.refusals = 0
        self._sent = self._failed = 0
        self._dry_run = dry_run
        self._console = Console(highlight=False)

    def would_send(self, letter: Outgoing, /) -> None:
        self._sent += 1
        key = printable(letter.key.decode("utf-8", "backslashreplace"), _KEY_CHARACTERS)
        self._say(f"would send  {letter.position}  key {key}  {excerpt(letter.value)}")

    def refused(self, letter: Refusal, /) -> None:
        self.refusals += 1
        self._say(f"refused  {letter.position}  {letter.why}")

    def settled(self, letter: Outgoing, error: str | None, /) -> None:
        if error is None:
            self._sent += 1
        else:
            self._failed += 1
            self._say(f"not acknowledged  {letter.position}  {error}")

    def end(self, topic: str, /) -> None:
        failed = f", not acknowledged {self._failed:,}" if self._failed else ""
        did = "would send" if self._dry_run else "sent"
        self._say(f"{did} {self._sent:,} letters to {topic}, refused {self.refusals:,}{failed}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


class JsonLines:
    """Each letter as one object: where it lies, where it came from, what became of it and why."""

    def __init__(self) -> None:
        self.refusals = 0

    def would_send(self, letter: Outgoing, /) -> None:
        self._line(letter.position, letter.source, "would_send", None)

    def refused(self, letter: Refusal, /) -> None:
        self.refusals += 1
        self._line(letter.position, letter.source, "refused", letter.why)

    def settled(self, letter: Outgoing, error: str | None, /) -> None:
        self._line(letter.position, letter.source, "sent" if error is None else "not_acknowledged", error)

    def end(self, _: str, /) -> None:
        sys.stdout.buffer.flush()

    @staticmethod
    def _line(position: Position, source: str, outcome: str, why: str | None) -> None:
        fields = {
            "partition": position.partition,
            "offset": position.offset,
            "source": source,
            "outcome": outcome,
            "why": why,
        }
        sys.stdout.buffer.write(orjson.dumps(fields) + b"\n")
