"""Numba: what the fused kernels are made of. bfloat16 without a type for it, and an exp that vectorises.

numba knows no bfloat16 and, without Intel's SVML beside it, calls the C library for every exp. Both are a few
integer operations, which LLVM turns into vector code within the loops that use them.

A bfloat16 is the upper half of a float32, kept as uint16; `widen` and `narrow` take either kind, so that one
kernel serves both precisions.

numba keeps compiled code beside the source and compiles again when that file changes, not when a file that it
imports from does: after a change here, delete training/__pycache__/*.nb?.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite.ir import FloatType, IntType  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from worker.core.compiled import compiled_with

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

REASSOCIATE = {"reassoc", "contract", "arcp", "nsz", "afn"}
"""Sums in vector lanes; still the same order on every run. NaN and infinity keep their meaning."""


def kernel(function: Kernel) -> Kernel:
    """Compile at first use, kept on disk beside the source; runs without Python's lock."""
    return compiled_with(function, fastmath=REASSOCIATE, error_model="numpy")


def part_of_kernel(function: Kernel) -> Kernel:
    """A piece of a kernel with a name of its own, put in where it is called.

    Of a kernel that another calls there are two versions, optimised alone and once more within the other.
    Which ran depended on whether the process compiled them or had them from disk, and their sums differed.
    """
    return cast(Kernel, njit(inline="always")(function))


def _float_of_bits(_context: Any, _bits: Any) -> Any:
    """Float32 with these bits (uint32)."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], FloatType())

    return types.float32(types.uint32), build


def _widen(_context: Any, value: Any) -> Any:
    """Float32 of a number kept in either precision."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        if value == types.float32:
            return arguments[0]
        bits = builder.shl(builder.zext(arguments[0], IntType(32)), IntType(32)(16))
        return builder.bitcast(bits, FloatType())

    return types.float32(value), build


def _narrow(_context: Any, value: Any, like: Any) -> Any:
    """A float32 as the array `like` keeps it: where that is uint16, the nearest bfloat16, ties go up."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        if like.dtype == types.float32:
            return arguments[0]
        word = IntType(32)
        bits = builder.bitcast(arguments[0], word)
        bits = builder.add(bits, word(0x8000))
        return builder.trunc(builder.lshr(bits, word(16)), IntType(16))

    return like.dtype(value, like), build


def _wide_vectors(_context: Any) -> Any:
    """Tells LLVM that vectors of 512 bits are welcome; it holds that the processor prefers 256.

    llvmlite's set of attributes takes only those that it knows, hence `set.add`.
    """

    def build(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        attributes = builder.function.attributes
        if isinstance(attributes, set):  # else slower, and the same numbers
            set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), build


_float_of: Any = intrinsic(_float_of_bits)
widen: Any = intrinsic(_widen)
narrow: Any = intrinsic(_narrow)
use_wide_vectors: Any = intrinsic(_wide_vectors)

LOG2_E = np.float32(1.4426950408889634)
BIAS = np.float32(127)
_LOWEST, _HIGHEST = np.float32(1), np.float32(253)
# 2^f on [0, 1): minimax, relative error below 3e-7.
_C0 = np.float32(0.99999994)
_C1 = np.float32(0.69315308)
_C2 = np.float32(0.24015361)
_C3 = np.float32(0.055826318)
_C4 = np.float32(0.0089893397)
_C5 = np.float32(0.0018775767)


@part_of_kernel
def power_of_two(shifted: np.float32) -> np.float32:
    """2^(shifted − 127), held above 2^−126. What is shifted by 254 or more is nonsense.

    2^x = 2^k · 2^f with k whole: k goes into the exponent bits, 2^f is a polynomial.
    """
    held = max(shifted, _LOWEST)
    whole = np.int32(held)
    f = held - np.float32(whole)
    power: np.float32 = _C0 + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * _C5))))
    scale: np.float32 = _float_of(np.uint32(np.uint32(whole) << np.uint32(23)))
    return power * scale


@part_of_kernel
def exp(x: np.float32) -> np.float32:
    """e^x of a float32, relative error below 1e-5; held within e^±87."""
    return power_of_two(min(x * LOG2_E + BIAS, _HIGHEST))


@part_of_kernel
def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + e^−x)."""
    return np.float32(1) / (np.float32(1) + exp(-x))
