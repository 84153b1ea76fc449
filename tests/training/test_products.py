"""Products within kernels: torch's BLAS and our own loops compute the same, whichever way the factors lie."""

import ctypes
import platform
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from training.products import BFLOAT16, BLAS, OWN, PREFIX, make_known, product
from training.workspace import tensor_of

KINDS = [pytest.param(np.float32, id="float32"), pytest.param(np.uint16, id="bfloat16")]
WAYS = [(turn_a, turn_b) for turn_a in (False, True) for turn_b in (False, True)]


@njit(nogil=True)
def in_a_kernel(a: Any, b: Any, out: Any, turn_a: bool, turn_b: bool, add: bool) -> None:
    """A kernel of one product."""
    product(a, b, out, turn_a, turn_b, add)


@pytest.fixture
def names_kept() -> Iterator[None]:
    """Afterwards LLVM knows torch's routines by these names, as before."""
    before = {name: llvm.address_of_symbol(PREFIX + name) for name in BLAS}
    yield
    for name, address in before.items():
        llvm.add_symbol(PREFIX + name, address)


def widths(*matrices: NDArray[Any]) -> tuple[int, ...]:
    """Entries of a row."""
    return tuple(matrix.shape[1] for matrix in matrices)


def some(kind: type[np.generic], rows: int, columns: int) -> NDArray[Any]:
    """Small whole numbers: exact in bfloat16, and so are their products' sums in float32."""
    values = np.random.default_rng(rows).integers(-9, 10, (rows, columns)).astype(np.float32)
    if kind is np.float32:
        return values
    low = np.empty(values.shape, np.uint16)
    tensor_of(low).copy_(tensor_of(values))
    return low


def check(
    multiply: Callable[..., None],
    kind: type[np.generic],
    turns: tuple[bool, bool],
    sizes: tuple[int, int, int],
) -> None:
    """Against torch, on rows in the middle of larger arrays; what lies around them stays."""
    (turn_a, turn_b), (rows, inner, columns) = turns, sizes
    a = some(kind, *((inner + 2, rows) if turn_a else (rows + 2, inner)))[1:-1]
    b = some(kind, *((columns + 2, inner) if turn_b else (inner + 2, columns)))[1:-1]
    left, right = (tensor_of(factor).float() for factor in (a, b))
    expected = ((left.t() if turn_a else left) @ (right.t() if turn_b else right)).numpy()
    for held in (np.nan, 5):
        out = np.full((rows + 2, columns), held, np.float32)
        multiply(a, b, out[1:-1], turn_a, turn_b, held == 5)
        np.testing.assert_array_equal(out[1:-1], expected + (5 if held == 5 else 0))
        np.testing.assert_array_equal(out[[0, -1]], np.full((2, columns), held, np.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turns", WAYS)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 7, 3), (70, 33, 130), (0, 4, 4)])
def test_product_equals_torchs(
    kind: type[np.generic], turns: tuple[bool, bool], sizes: tuple[int, int, int]
) -> None:
    check(in_a_kernel, kind, turns, sizes)


@pytest.mark.parametrize(("kind", "name"), [(np.float32, "sgemm_"), (np.uint16, BFLOAT16)])
def test_where_torch_has_no_such_routine_our_own_takes_its_place(
    kind: type[np.generic], name: str, names_kept: None
) -> None:
    own = make_known(None)
    assert {n: llvm.address_of_symbol(PREFIX + n) for n in BLAS} == {n: own[n].address for n in own}

    def by_address(
        a: NDArray[Any], b: NDArray[Any], out: NDArray[Any], turn_a: bool, turn_b: bool, add: bool
    ) -> None:
        """As Fortran calls it: outᵀ = bᵀ·aᵀ by columns."""
        letters = [np.frombuffer(b"T" if turned else b"N", np.uint8) for turned in (turn_b, turn_a)]
        inner = len(a) if turn_a else a.shape[1]
        n, m, k, ldb, lda = (np.array([size], np.int32) for size in (*out.shape[::-1], inner, *widths(b, a)))
        one, start = np.ones(1, np.float32), np.array([add], np.float32)
        given: list[NDArray[Any]] = [*letters, n, m, k, one, b, ldb, a, lda, start, out, n]
        routine = own[name].ctypes
        routine(*(g.ctypes.data_as(to) for g, to in zip(given, routine.argtypes, strict=True)))

    for turns in WAYS:
        for sizes in [(1, 1, 1), (5, 7, 3)]:
            check(by_address, kind, turns, sizes)


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="other builds of torch have another BLAS",
)
def test_the_torch_that_is_pinned_has_both() -> None:
    assert OWN == {}, "training takes many times as long: see training/products.py"


def test_what_a_library_has_is_taken_from_it(names_kept: None) -> None:
    class Half:
        """Has one of the routines."""

        sgemm_ = ctypes.CFUNCTYPE(None)(lambda: None)

    assert set(make_known(Half())) == {BFLOAT16}  # type: ignore[arg-type]


def test_only_compiled_code_can_call_it() -> None:
    one = np.ones((1, 1), np.float32)
    with pytest.raises(NotImplementedError, match="compiled code"):
        product(one, one, one, False, False, False)
