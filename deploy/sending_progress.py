"""A progress bar for sending clicks, on terminals only."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_REFRESH_S = 0.1


@contextmanager
def shown_sending(console: Console, total: int | None) -> Iterator[Callable[[int], None]]:
    """Give the callback that takes the number of clicks sent so far; `total` None: nobody knows."""
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("send"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} clicks  {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("send", total=total, rate=0.0)
        started_s = shown_s = time.monotonic()

        def show(sent: int) -> None:
            nonlocal shown_s
            now_s = time.monotonic()
            if now_s - shown_s >= _REFRESH_S or sent == total:
                shown_s = now_s
                bars.update(task, completed=sent, rate=sent / max(now_s - started_s, _REFRESH_S))

        yield show
