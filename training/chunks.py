"""Threads for work that is done piece by piece and lets go of Python's lock, as compiled loops do."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

import torch


def in_chunks(
    work: Callable[[int, int], None], total: int, chunk: int, report: Callable[[int, int], None]
) -> None:
    """Call `work(begin, end)` for pieces of range(total), on as many threads as torch has been given.

    Meanwhile torch has one thread in each of them.

    Args:
        work: does one piece; must write to places of its own only. What it raises is passed on.
        total: how many there are.
        chunk: how many make a piece.
        report: called in this thread with the number done and in all.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads)
    try:
        pieces = {}
        for begin in range(0, total, chunk):
            end = min(begin + chunk, total)
            pieces[pool.submit(work, begin, end)] = end - begin
        done = 0
        for piece in as_completed(pieces):
            piece.result()
            done += pieces[piece]
            report(done, total)
    finally:  # after Ctrl-C what has not begun need not begin
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
