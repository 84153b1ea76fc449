"""Top-k against an exhaustive sort."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from worker.core import scoring
from worker.core.best import CHUNK
from worker.core.code_products import CAN_MULTIPLY_CODES, LANES
from worker.core.item_codes import ItemCodes
from worker.core.lanes import dot
from worker.core.scoring import Columns, Scorer


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scorer(catalogue: Tensor, k: int, by_codes: bool) -> Scorer:
    return Scorer(ItemCodes.of(catalogue.numpy()) if by_codes else Columns(catalogue.t().contiguous()), k)


needs_codes = pytest.mark.skipif(not CAN_MULTIPLY_CODES, reason="this processor has no AVX-512 VNNI")
WAYS = [False, True] if CAN_MULTIPLY_CODES else [False]
"""By products, and by codes where this processor can."""


def check(catalogue: Tensor, queries: Tensor, k: int) -> None:
    """Scores are those of a full sort; each item really has the score beside it; none stands twice."""
    for by_codes in WAYS:
        check_found(scorer(catalogue, k, by_codes).top_k(queries), catalogue, queries, k)


def check_found(
    found: tuple[NDArray[np.float32], NDArray[np.int64]], catalogue: Tensor, queries: Tensor, k: int
) -> None:
    scores, items = (torch.from_numpy(array) for array in found)
    k = min(k, len(catalogue))
    everything = queries.double() @ catalogue.double().t()
    best = everything.sort(dim=1, descending=True).values[:, :k]
    assert scores.shape == items.shape == (len(queries), k)
    assert scores.dtype == torch.float32
    assert items.dtype == torch.int64
    assert torch.allclose(scores.double(), best, rtol=0, atol=1e-4)
    assert torch.allclose(everything.gather(1, items), scores.double(), rtol=0, atol=1e-4)
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    assert all(len(set(row)) == k for row in items.tolist())


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 40), st.integers(1, 70), st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_top_k_equals_an_exhaustive_sort(items: int, width: int, queries: int, k: int, seed: int) -> None:
    check(drawn(seed, items, width), drawn(seed + 1, queries, width), k)


@pytest.mark.parametrize("more", [-1, 0, 1, 16, 35])
def test_across_the_boundary_of_its_blocks(more: int) -> None:
    """A catalogue so large that a block holds `MIN_BLOCK` queries; several blocks, the last one not full."""
    items = scoring.BUFFER_BYTES // (4 * scoring.MIN_BLOCK) + 1
    check(drawn(1, items, 4), drawn(2, scoring.MIN_BLOCK + more, 4), 20)


def test_across_the_boundary_of_a_larger_block() -> None:
    items = 40_000
    block = scoring.BUFFER_BYTES // (4 * items)
    assert block > scoring.MIN_BLOCK
    check(drawn(1, items, 4), drawn(2, 2 * block + 1, 4), 7)


@given(st.integers(0, 2**31), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_wherever_the_best_stand(seed: int, ties: int) -> None:
    """The best of a query may all be of one chunk, or of the last few items, or equal."""
    k, items = 20, 80 * CHUNK + 9
    catalogue = drawn(seed, items, 3)
    chunk = k + seed % 78 * CHUNK
    catalogue[chunk : chunk + CHUNK] += 5
    catalogue[-9:] -= 4
    if ties:
        catalogue = catalogue.round(decimals=ties - 1)
    check(catalogue, drawn(seed + 1, 40, 3), k)


@pytest.mark.parametrize("by_codes", WAYS)
def test_results_stay_when_the_next_queries_come(by_codes: bool) -> None:
    """The buffer is the scorer's own and is used again."""
    one = scorer(drawn(1, 50, 4), 5, by_codes)
    scores, items = one.top_k(drawn(2, 3, 4))
    kept = scores.copy(), items.copy()
    one.top_k(drawn(3, 3, 4))
    assert np.array_equal(scores, kept[0])
    assert np.array_equal(items, kept[1])


@pytest.mark.parametrize(("items", "k"), [(9, 5), (1, 1), (100, 20), (100, 100)])
def test_of_equal_items_the_first(items: int, k: int) -> None:
    check(torch.ones(items, 3), torch.ones(4, 3), k)
    for by_codes in WAYS:
        found = scorer(torch.ones(items, 3), k, by_codes).top_k(torch.ones(2, 3))
        assert found[1].tolist() == [list(range(k))] * 2


def exactly(catalogue: Tensor, queries: Tensor, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The best by the exact score of every item, as the candidates are scored."""
    rows = catalogue.numpy()
    exact = np.array([[dot(row, query) for row in rows] for query in queries.numpy()])
    best = np.argsort(-exact, kind="stable")[:, :k]
    return np.take_along_axis(exact, best, 1), best


def check_codes(catalogue: Tensor, queries: Tensor) -> None:
    """By codes the 20 best are, byte for byte, those of scoring every item."""
    found, expected = scorer(catalogue, 20, by_codes=True).top_k(queries), exactly(catalogue, queries, 20)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


@needs_codes
@pytest.mark.parametrize("apart", [1e-2, 1e-3, 1e-5, 0])
@pytest.mark.parametrize("queries", [1, 6])
def test_codes_lose_no_item_that_they_cannot_tell_apart(apart: float, queries: int) -> None:
    """Items that differ by less than their codes are rounded by: the best are still those of exact scores."""
    catalogue = drawn(3, 1, 96) + apart * drawn(4, 2_000, 96)
    asked = drawn(5, queries, 96)
    check_codes(catalogue, asked)


@needs_codes
def test_codes_that_err_both_ways_by_all_of_the_margin() -> None:
    """The best item looks worse than it is and one of another block better: twice the margin lies between."""
    catalogue = torch.tensor([[127, 0.0]]).repeat(2 * LANES, 1)
    catalogue[3] = torch.tensor([127, 10.49])  # taken for 10
    # Of 126.6 / 127 each 10.513: taken for 11, which is 10.97.
    catalogue[LANES + 5] = torch.tensor([126.6, 10.48])
    catalogue = torch.cat([catalogue, -catalogue])  # nothing in common
    scores, items = scorer(catalogue, 1, by_codes=True).top_k(torch.tensor([[0, 1.0]]))
    assert items.tolist() == [[3]]
    assert scores.item() == np.float32(10.49)


@needs_codes
@pytest.mark.parametrize("stretch", [1e-18, 1e-3, 1e3, 1e15])
def test_codes_do_not_care_how_long_vectors_are(stretch: float) -> None:
    """Some items a thousand times as long as others; one of length 0, and one query."""
    catalogue = drawn(6, 900, 30) * torch.logspace(-3, 0, 900)[:, None]
    catalogue[7] = 0
    asked = drawn(7, 5, 30)
    asked[3] = 0
    check_codes(catalogue * stretch, asked * stretch)


@needs_codes
@pytest.mark.parametrize("stretch", [1e-21, 2e-21, 3e-21, 5e-21])
def test_codes_of_numbers_near_the_smallest_there_are(stretch: float) -> None:
    """Scores of some 1e-40, of which float32 keeps a few digits."""
    check_codes(drawn(8, 2_000, 128) * stretch, drawn(9, 3, 128) * stretch)


@needs_codes
def test_queries_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="of width 9, items of 8"):
        scorer(drawn(1, 50, 8), 5, by_codes=True).top_k(drawn(2, 3, 9))


@needs_codes
def test_queries_may_lie_anyhow() -> None:
    catalogue, asked = drawn(1, 500, 8), drawn(2, 8, 7)
    with torch.inference_mode():
        found = scorer(catalogue, 20, by_codes=True).top_k((asked * 1).t())
    assert np.array_equal(found[1], exactly(catalogue, asked.t().contiguous(), 20)[1])


def test_without_the_instruction_all_items_are_multiplied() -> None:
    """numba can be told to compile for an older processor than this one."""
    program = (
        "import torch; from worker.core.scoring import *; from tests.core.models import random_model;"
        "model = random_model(['a', 'b', 'c'], 4, 1);"
        "print(type(model.catalogue).__name__);"
        "print(Scorer(catalogue_of(torch.eye(9)), 2).top_k(torch.eye(9)[4:5])[1][0, 0])"
    )
    environment = {**os.environ, "NUMBA_ENABLE_AVX": "0"}
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert (said.stdout.split(), said.returncode) == (["Columns", "4"], 0), said.stderr
