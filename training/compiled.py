"""Loops over arrays, compiled when they are first called and kept on disk; and threads to run them.

What is compiled holds no lock of Python's, so threads of one process run it side by side.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar, cast

import numba
import torch

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers; without fast-math, so that NaN and order of sums stay."""
    return compiled_with(function)


def compiled_with(function: Function, **options: object) -> Function:
    """As `compiled`, with these options of numba's."""
    njit: Any = numba.njit
    try:
        made = njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # no folder that the compiled code could be kept in: a read-only installation
        made = njit(nogil=True, **options)(function)
    return cast(Function, made)


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
