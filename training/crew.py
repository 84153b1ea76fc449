"""Threads for one step, for work that lets go of Python's lock: products of torch, kernels of numba."""

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread

Task = Callable[[], None]


class Crew:
    """Runs tasks side by side; which thread takes which makes no difference to what comes out.

    Simple queues and no executor: there is one waiter, and a short step is run three times in 8 ms.
    """

    def __init__(self, threads: int) -> None:
        """The calling thread is one of them."""
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        self._others = [
            Thread(target=self._work, name=f"nextclick-crew-{number}", daemon=True)
            for number in range(1, threads)
        ]
        for thread in self._others:
            thread.start()

    def run(self, tasks: Sequence[Task]) -> None:
        """Run all; raise a failure, the caller's own first, once nothing runs on another thread."""
        if not self._others:
            for task in tasks:
                task()
            return
        for task in tasks[1:]:
            self._tasks.put(task)
        try:
            tasks[0]()
        finally:
            ends = [self._ends.get() for _ in tasks[1:]]
        for failure in ends:
            if failure is not None:
                raise failure

    def close(self) -> None:
        """Let the other threads go."""
        for _ in self._others:
            self._tasks.put(None)
        for thread in self._others:
            thread.join()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except BaseException as failure:  # noqa: BLE001 - raised where `run` was called
                self._ends.put(failure)
            else:
                self._ends.put(None)
            del task  # and what it holds, until there is another
