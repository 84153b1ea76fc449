"""Loops over arrays, compiled by numba when they are first called.

The code is kept on disk: beside the source, in the user's cache where that cannot be written, or where
NUMBA_CACHE_DIR says. It is made again when the file of the function changes, but not when a constant or a
compiled function does that the file imports: after that, delete __pycache__/*.nb?.

What is compiled holds no lock of Python's, so threads of one process run it side by side.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

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
