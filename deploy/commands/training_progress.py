"""Shows the progress of training on standard error: bars in a terminal, a line per epoch in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from training.click_log import LoadedLog
    from training.progress import Progress as Reported
    from training.progress import Report

_TITLES = {
    "read": "read",
    "replay": "replay",
    "fit": "train",
    "evaluate": "evaluate",
    "baselines": "baselines",
}
_LINE_EVERY_S = 5.0


@contextmanager
def shown_progress(console: Console) -> "Iterator[Report]":
    """Give the callback that shows what it is told; what it drew stays on the screen."""
    if not console.is_terminal:
        yield _PlainLines(console).report
        return
    bars = Progress(
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console,
    )
    tasks: dict[str, TaskID] = {}

    def report(at: "Reported") -> None:
        if at.stage not in tasks:
            tasks[at.stage] = bars.add_task(_TITLES[at.stage], total=None, detail="")
        bars.update(tasks[at.stage], completed=at.done, total=at.total or None, detail=_detail(at))

    with bars:
        yield report


def show_log(console: Console, loaded: "LoadedLog") -> None:
    """Say what was read, what was assumed and what was left out."""
    clicks = loaded.clicks
    console.print(
        f"{loaded.name}: {len(clicks):,} clicks, {len(clicks.session_ids):,} sessions,"
        f" {len(clicks.item_ids):,} items",
        markup=False,
        highlight=False,
    )
    for remark in loaded.remarks:
        console.print(remark, markup=False, highlight=False)
    for reason, count in sorted(loaded.skipped.items()):
        console.print(f"left out: {count:,} records, {reason}", markup=False, highlight=False)


def _detail(at: "Reported") -> str:
    if at.stage != "fit":
        return ""
    return f"epoch {at.epoch}/{at.epochs}  {at.events_per_s:,.0f} events/s  loss {at.loss:.3f}"


class _PlainLines:
    """One line per epoch; of the other stages one every few seconds, and none where they are over by then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._epoch = 0
        self._stage = ""
        self._last_line_s = 0.0

    def report(self, at: "Reported") -> None:
        if at.stage == "fit":
            self._report_fit(at)
            return
        if at.stage != self._stage:
            self._stage, self._last_line_s = at.stage, time.monotonic()
        elif time.monotonic() - self._last_line_s >= _LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self._say(f"{_TITLES[at.stage]} {at.done:,}/{at.total:,}")

    def _report_fit(self, at: "Reported") -> None:
        if at.epoch > self._epoch or at.done == at.total:
            self._epoch = at.epoch
            self._say(f"train {at.done:,}/{at.total:,}  {_detail(at)}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)
