"""Sends dead letters back to the clicks topic, as they came or repaired; what is no click is refused."""

import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass

from rich.console import Console

from deploy.dead_letter_outcomes import JsonLines, LinesForPeople, Outcomes, Refusal
from deploy.dead_letter_progress import shown_reading
from deploy.dead_letter_reader import Part, read_dead_letters
from deploy.dead_letter_sender import LetterSender, Outgoing, check_target
from deploy.dead_letters import DeadLetter, Position, printable
from deploy.stop_signals import Stopped, stop_signals
from schemas.click import Click, InvalidClickError, decode_click
from schemas.dead_letter import CUT_HEADER, PREFIX, UNREADABLE_HEADERS, Header

REPLAYED_HEADER = "nextclick.replayed.from"
"""On a click that was sent back: where it lay when it was dead-lettered, as topic-partition@offset."""

_FLUSH_S = 35.0  # a little more than `message.timeout.ms`, after which the client has an answer for each
_STOPPED_FLUSH_S = 5.0  # somebody waits at the terminal
_NOT_OURS = {CUT_HEADER, UNREADABLE_HEADERS[0], REPLAYED_HEADER}


@dataclass(frozen=True)
class Choice:
    """Which letters go back; they must meet all that is said.

    Attributes:
        reasons: empty: any.
        positions: None: any.
        from_ms: dead-lettered at this time or later, ms since the epoch.
        repairs: new values; where there are any, only these letters go back.
    """

    reasons: AbstractSet[str] = frozenset()
    positions: AbstractSet[Position] | None = None
    from_ms: int | None = None
    repairs: Mapping[Position, bytes] | None = None

    def named(self) -> AbstractSet[Position] | None:
        """The letters that are named one by one; None where none are."""
        if self.repairs is None:
            return self.positions
        return self.repairs.keys() if self.positions is None else self.repairs.keys() & self.positions


def prepared(letter: DeadLetter, repair: bytes | None, clicks_topic: str, now_ms: int) -> Outgoing | Refusal:
    """The record to send for a letter, or why none is sent.

    Args:
        letter: the dead letter.
        repair: the value that replaces its own; None: it goes back as it came.
        clicks_topic: where it would go; a letter from another topic is refused.
        now_ms: wall clock, see `decode_click`.
    """
    why = None
    if letter.said is None:
        why = "it lacks the headers of a dead letter, so nothing says where it came from"
    elif letter.said.topic != clicks_topic:
        name = printable(letter.said.topic, 249)
        why = f"it came from the topic {name}: name that one with --clicks-topic"
    elif letter.cut_from_bytes is not None and repair is None:
        size = printable(letter.cut_from_bytes, 20)
        why = (
            f"only the start of its {size} bytes is here; the whole lies at {printable(letter.source, 300)}, "
            "while clicks are kept. Send what it should have been with --repaired"
        )
    if why is not None:
        return Refusal(letter.position, letter.source, why)
    value = letter.value if repair is None else repair
    try:
        click = decode_click(value, now_ms)
    except InvalidClickError as error:
        hint = ". Mend it with --repaired" if repair is None else ""
        return Refusal(letter.position, letter.source, f"still no click, {printable(str(error), 300)}{hint}")
    return _outgoing(letter, click, value)


def _outgoing(letter: DeadLetter, click: Click, value: bytes | None) -> Outgoing:
    headers: list[Header] = [
        (name, text) for name, text in letter.headers if not name.startswith(PREFIX) and name not in _NOT_OURS
    ]
    headers.append((REPLAYED_HEADER, letter.source.encode()))
    key = click.session_id.encode() if letter.key is None else letter.key
    return Outgoing(letter.position, letter.source, key, value, headers)


def run_replay(
    choice: Choice,
    client_config: Mapping[str, str],
    dead_letters_topic: str,
    clicks_topic: str,
    *,
    dry_run: bool,
    json: bool,
) -> int:
    """Send the chosen letters; returns 1 if any was refused or is missing, else 0.

    What becomes of each goes to standard output: with `json` one line for each letter once it is known, else
    refused ones and a summary, with `dry_run` also what would be sent.

    Raises:
        DeadLetterError: letters cannot be read.
        TopicError: no broker answers, or the clicks topic does not exist.
        SendError: brokers did not take a letter; no further ones were sent, and what is said is exact.
        Stopped: Ctrl-C or SIGTERM came; what was sent is acknowledged and told.
    """
    outcomes: Outcomes = JsonLines() if json else LinesForPeople(dry_run)
    check_target(client_config, clicks_topic)
    sender = None if dry_run else LetterSender(client_config, clicks_topic, outcomes.settled)
    replay = _Replay(choice, clicks_topic, sender, outcomes)
    part = Part(choice.from_ms, choice.named())
    console = Console(stderr=True, highlight=False)
    flush_s = _FLUSH_S
    with stop_signals():
        try:
            with (
                shown_reading(console, json or dry_run) as report,
                closing(read_dead_letters(client_config, dead_letters_topic, part, report)) as letters,
            ):
                replay.send_all(letters)
        except Stopped:
            flush_s = _STOPPED_FLUSH_S
            raise
        finally:  # also when stopped or failed: what was handed over is told as what it became
            try:
                if sender is not None:
                    sender.finish(flush_s)
            finally:
                outcomes.end(clicks_topic)
    return 1 if outcomes.refusals else 0


class _Replay:
    """The loop over the letters."""

    def __init__(
        self, choice: Choice, clicks_topic: str, sender: LetterSender | None, outcomes: Outcomes
    ) -> None:
        self._choice = choice
        self._clicks_topic = clicks_topic
        self._sender = sender
        self._outcomes = outcomes

    def send_all(self, letters: Iterator[DeadLetter]) -> None:
        """Send or refuse each letter that is chosen, and refuse those that are named and not there."""
        choice, outcomes = self._choice, self._outcomes
        missing = set(choice.named() or ())
        for letter in letters:
            missing.discard(letter.position)
            if choice.reasons and letter.reason not in choice.reasons:
                continue
            self._one(letter)
        for position in sorted(missing):
            why = "it is not on the dead-letter topic (any more), or came before the time that was named"
            outcomes.refused(Refusal(position, "", why))

    def _one(self, letter: DeadLetter) -> None:
        repair = (self._choice.repairs or {}).get(letter.position)
        ready = prepared(letter, repair, self._clicks_topic, time.time_ns() // 1_000_000)
        if isinstance(ready, Refusal):
            self._outcomes.refused(ready)
        elif self._sender is None:
            self._outcomes.would_send(ready)
        else:
            self._sender.send(ready)
