"""A progress bar for reading dead letters: on terminals only, and only once it takes a while."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from deploy.dead_letter_reader import Report

_PATIENCE_S = 2.0


@contextmanager
def shown_reading(console: Console, writes_lines: bool) -> Iterator[Report]:
    """Give the callback that takes how many offsets are read, and of how many.

    Args:
        console: standard error.
        writes_lines: lines come on standard output meanwhile; if that is a terminal they show how it goes.
    """
    if not console.is_terminal or (writes_lines and sys.stdout.isatty()):
        yield lambda _, __: None
        return
    columns = (TextColumn("read"), BarColumn(), TextColumn("{task.percentage:.0f}%"), TimeRemainingColumn())
    # Standard output stays as it is: it may be a file, which rich would overlook.
    bars = Progress(*columns, console=console, transient=True, redirect_stdout=False)
    started_s = time.monotonic()
    task: TaskID | None = None

    def report(done: int, total: int) -> None:
        nonlocal task
        if task is None:
            if time.monotonic() - started_s < _PATIENCE_S:
                return
            shown.enter_context(bars)
            task = bars.add_task("read", total=total)
        bars.update(task, completed=done)

    with ExitStack() as shown:
        yield report
