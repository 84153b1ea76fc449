"""Shows the letters of the dead-letter topic: by reason with samples, or each whole as a JSON line."""

import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from deploy.dead_letter_progress import shown_reading
from deploy.dead_letter_reader import Part, read_dead_letters
from deploy.dead_letters import (
    FOREIGN,
    DeadLetter,
    Group,
    Groups,
    excerpt,
    instant,
    json_line,
    printable,
    said_message,
)
from deploy.stop_signals import stop_signals

DEFAULT_SAMPLES = 3
_MAX_REASON_CHARACTERS = 60
_MAX_SOURCE_CHARACTERS = 300
_MAX_PARTITIONS_SHOWN = 12


@dataclass(frozen=True)
class ListOptions:
    """What was asked for; see `deploy.commands.dead_letters`.

    Attributes:
        from_ms: only letters of this time or later, ms since the epoch.
        reasons: only these; empty: all.
        limit: samples of each reason; with `json`, letters of each reason.
        json: each letter as a line instead of groups.
    """

    from_ms: int | None = None
    reasons: AbstractSet[str] = frozenset()
    limit: int | None = None
    json: bool = False


def run_list(options: ListOptions, client_config: Mapping[str, str], topic: str) -> None:
    """Show the letters that are there now, on standard output.

    Raises:
        DeadLetterError: no broker answers, or the topic does not exist.
        BrokenPipeError: the reader of standard output has left.
        Stopped: Ctrl-C or SIGTERM came.
    """
    groups = Groups(DEFAULT_SAMPLES if options.limit is None else options.limit)
    written: dict[str, int] = {}
    with (
        stop_signals(),
        shown_reading(Console(stderr=True), options.json) as report,
        closing(read_dead_letters(client_config, topic, Part(options.from_ms), report)) as letters,
    ):
        for letter in letters:
            if options.reasons and letter.reason not in options.reasons:
                continue
            if not options.json:
                groups.add(letter)
            elif options.limit is None or written.get(letter.reason, 0) < options.limit:
                sys.stdout.buffer.write(json_line(letter))
                if options.limit is not None:
                    written[letter.reason] = written.get(letter.reason, 0) + 1
    if options.json:
        sys.stdout.buffer.flush()
    else:
        _show(groups.by_count(), topic)


def _show(groups: list[tuple[str, Group]], topic: str) -> None:
    console = Console(highlight=False)
    if not groups:
        console.print(f"no dead letters on {topic}", markup=False, soft_wrap=True)
        return
    if console.is_terminal:
        console.print(_table(groups))
    for reason, group in groups:
        if not console.is_terminal:
            cells = (_cell(reason), *_figures(group))
            console.print("  ".join(cells), markup=False, soft_wrap=True)
        elif group.samples:
            console.print(f"\n{_cell(reason)}", markup=False, style="bold")
        for letter in group.samples:
            _sample(console, letter)
    known = [reason for reason, _ in groups if reason not in {FOREIGN, Groups.OTHER}]
    if console.is_terminal and known:
        command = f"nextclick dead-letters replay --reason {_cell(known[0])} --dry-run"
        console.print(f"\nNext: {command}", markup=False, style="dim", soft_wrap=True)


def _table(groups: list[tuple[str, Group]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("reason", no_wrap=True, overflow="fold")
    table.add_column("letters", justify="right")
    for heading in ("first (UTC)", "last (UTC)", "partitions"):
        table.add_column(heading)
    for reason, group in groups:
        table.add_row(_cell(reason).replace("[", "\\["), *_figures(group))
    return table


def _cell(reason: str) -> str:
    return printable(reason, _MAX_REASON_CHARACTERS)


def _figures(group: Group) -> tuple[str, str, str, str]:
    partitions = sorted(group.partitions)
    shown = ",".join(str(one) for one in partitions[:_MAX_PARTITIONS_SHOWN])
    more = "…" if len(partitions) > _MAX_PARTITIONS_SHOWN else ""
    return f"{group.count:,}", instant(group.first_ms), instant(group.last_ms), shown + more


def _sample(console: Console, letter: DeadLetter) -> None:
    source = f"  from {printable(letter.source, _MAX_SOURCE_CHARACTERS)}" if letter.said is not None else ""
    cut = "  (cut)" if letter.cut_from_bytes is not None else ""
    for line in (
        f"  {letter.position}  {instant(letter.timestamp_ms)}{source}{cut}",
        f"    {said_message(letter)}",
        f"    {excerpt(letter.value)}",
    ):
        console.print(line, markup=False, soft_wrap=True)
