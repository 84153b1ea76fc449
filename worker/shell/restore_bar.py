"""A bar for whoever starts a worker in a terminal: how much of the changelog is restored."""

import sys
from collections.abc import Set as AbstractSet
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class RestoreBar:
    """As a context manager; shows nothing where standard error is no terminal."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def show(self, partitions: AbstractSet[int], done: int, total: int) -> None:
        """Say how far it is; with no partition left the bar goes away."""
        if not partitions:
            self._end()
        elif sys.stderr.isatty():
            text = f"restoring {len(partitions)} partitions"
            if self._progress is None or self._task is None:
                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
                self._progress = Progress(
                    *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True
                )
                self._task = self._progress.add_task(text, completed=done, total=total or None)
                self._progress.start()
            self._progress.update(self._task, description=text, completed=done, total=total or None)

    def _end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
