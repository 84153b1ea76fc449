"""Numba: products of small matrices within a kernel, by the BLAS that torch brings along.

A product that Python calls costs more than itself where it is small: it waits for Python's lock when it comes
back, and a time step of a few dozen sessions is small. numba's own `np.dot` wants scipy, whose BLAS has
threads of its own and knows no bfloat16.

The routines are `sgemm` and Intel MKL's `gemm_bf16bf16f32`, with the Fortran interface of BLAS: matrices lie
by columns, everything is handed over by address. Where torch has none of that name, `plain_product` takes its
place: as right, and many times slower. Such torch is asked for no bfloat16 unless the user does
(`training.precision`).

Compiled code on disk knows the routines by name and finds them at each start. It holds what stands here, too:
after a change, delete training/__pycache__/*.nb?, as for `training.kernels`.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numpy as np
import torch
from numba import carray, cfunc, types  # type: ignore[attr-defined]
from numba.extending import overload

from training.kernels import kernel, widen

BFLOAT16 = "gemm_bf16bf16f32_"
BLAS = {"sgemm_": types.float32, BFLOAT16: types.uint16}
"""Routines, and how the factors are kept."""

PREFIX = "nextclick_"
"""Of the names that compiled code knows them by: what lies on disk finds either, the BLAS's or our own."""

_POINTER: Any = types.CPointer
_INTS, _FLOATS, _BYTES = map(_POINTER, (types.int32, types.float32, types.uint8))


def _signature(factor: Any) -> Any:
    """Letters, sizes m, n, k, α, the factors and their widths, β, the product and its width."""
    factors = (_POINTER(factor), _INTS) * 2
    return types.void(_BYTES, _BYTES, _INTS, _INTS, _INTS, _FLOATS, *factors, _FLOATS, _FLOATS, _INTS)


_call_float32 = types.ExternalFunction(PREFIX + "sgemm_", _signature(types.float32))
_call_bfloat16 = types.ExternalFunction(PREFIX + BFLOAT16, _signature(types.uint16))
_AS_IT_LIES, _TURNED = (np.frombuffer(letter, np.uint8) for letter in (b"N", b"T"))


def product(a: Any, b: Any, out: Any, turn_a: bool, turn_b: bool, add: bool) -> None:
    """out = a·b, or out += a·b; for kernels alone.

    Args:
        a: float32, or bfloat16 as uint16, [m, k]; `turn_a`: [k, m]. Rows in one piece, as those of all three.
        b: of the same kind, [k, n]; `turn_b`: [n, k].
        out: float32 [m, n]; sums are float32, too.
        turn_a, turn_b: multiply with what lies the other way round.
        add: to what `out` holds.
    """
    raise NotImplementedError("only compiled code can call this")


@overload(product)
def _product(a: Any, b: Any, out: Any, turn_a: bool, turn_b: bool, add: bool) -> Callable[..., None]:  # noqa: ARG001
    call: Any = _call_float32 if a.dtype == types.float32 else _call_bfloat16

    def build(a: Any, b: Any, out: Any, turn_a: bool, turn_b: bool, add: bool) -> None:
        rows, columns = out.shape
        inner = a.shape[0] if turn_a else a.shape[1]
        if rows == 0 or columns == 0:
            return
        # By columns, what lies by rows is turned already: outᵀ = bᵀ·aᵀ needs nothing else.
        sizes = np.array([columns, rows, inner, b.shape[1], a.shape[1], columns], np.int32)
        factors = np.array([1, 1 if add else 0], np.float32)
        call(
            (_TURNED if turn_b else _AS_IT_LIES).ctypes,
            (_TURNED if turn_a else _AS_IT_LIES).ctypes,
            sizes[0:].ctypes,
            sizes[1:].ctypes,
            sizes[2:].ctypes,
            factors[0:].ctypes,
            b.ctypes,
            sizes[3:].ctypes,
            a.ctypes,
            sizes[4:].ctypes,
            factors[1:].ctypes,
            out.ctypes,
            sizes[5:].ctypes,
        )

    return build


@kernel
def plain_product(a: Any, b: Any, out: Any, turn_a: bool, turn_b: bool, start: float) -> None:
    """out = a·b + start · out in loops of our own; shapes as in `product`."""
    rows, columns = out.shape
    inner = a.shape[0] if turn_a else a.shape[1]
    for i in range(rows):
        to = out[i]
        for j in range(columns):
            to[j] = to[j] * start if start != 0 else np.float32(0)
        for step in range(inner):
            factor = widen(a[step, i] if turn_a else a[i, step])
            if turn_b:
                for j in range(columns):
                    to[j] += factor * widen(b[j, step])
            else:
                row = b[step]
                for j in range(columns):
                    to[j] += factor * widen(row[j])


def _plain(factor: Any) -> Any:
    """`plain_product` behind the interface of BLAS."""

    def routine(
        turn_b: Any, turn_a: Any, n: Any, m: Any, k: Any, _one: Any, b: Any, ldb: Any, a: Any, lda: Any,
        start: Any, out: Any, ldc: Any,
    ) -> None:  # fmt: skip
        rows, columns, inner = m[0], n[0], k[0]
        a_turned, b_turned = turn_a[0] == ord("T"), turn_b[0] == ord("T")
        plain_product(
            carray(a, (inner if a_turned else rows, lda[0])),
            carray(b, (columns if b_turned else inner, ldb[0])),
            carray(out, (rows, ldc[0]))[:, :columns],
            a_turned,
            b_turned,
            start[0],
        )

    return cfunc(_signature(factor))(routine)


def _torchs_blas() -> ctypes.CDLL | None:
    """The library of torch that has it, or depends on one that has."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("*torch_cpu.*")):
        if path.suffix in (".so", ".dylib", ".dll"):
            return ctypes.CDLL(str(path))
    return None


def make_known(library: ctypes.CDLL | None) -> dict[str, Any]:
    """Tell LLVM where the routines are; returns those of our own, to be kept as long as they are called."""
    own = {}
    for name, factor in BLAS.items():
        try:
            address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        except AttributeError:
            own[name] = _plain(factor)
            address = own[name].address
        llvm.add_symbol(PREFIX + name, address)
    return own


OWN = make_known(_torchs_blas())
"""Routines that torch has not."""
