"""Threads for one step, for work that lets go of Python's lock: products of torch, kernels of numba."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait


class Crew:
    """Runs tasks side by side; which thread takes which makes no difference to what comes out."""

    def __init__(self, threads: int) -> None:
        """The calling thread is one of them."""
        self.threads = threads
        self._others = ThreadPoolExecutor(threads - 1, "nextclick-crew") if threads > 1 else None

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Run all and wait for all, also where one fails; the first failure is raised."""
        if self._others is None:
            for task in tasks:
                task()
            return
        futures = [self._others.submit(task) for task in tasks[1:]]
        try:
            tasks[0]()
        finally:
            wait(futures)
        for future in futures:
            future.result()

    def close(self) -> None:
        """Let the other threads go."""
        if self._others is not None:
            self._others.shutdown()
