"""Shows a chaos run: a bar that keeps itself fresh on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class ChaosView:
    """A context manager; `say` for what happens, `advance` when a round is over."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._rounds = rounds
        self._done = 0
        self._clicks = 0
        self._began_s = time.monotonic()
        self._progress = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[clicks]:,} clicks  {task.fields[text]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("rounds", total=rounds, clicks=0, text="starting")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """What was just done, or is waited for."""
        self._progress.update(self._task, text=text)
        if not self._console.is_terminal:
            spent_s = time.monotonic() - self._began_s
            line = f"{spent_s:6.1f} s  round {self._done}/{self._rounds}  {self._clicks:,} clicks  {text}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def advance(self, clicks: int) -> None:
        """A round is over; so many clicks were sent by now."""
        self._done += 1
        self._clicks = clicks
        self._progress.update(self._task, completed=self._done, clicks=clicks)
