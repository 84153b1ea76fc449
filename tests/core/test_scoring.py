"""Top-k against an exhaustive sort."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worker.core import scoring
from worker.core.scoring import Scorer


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def check(catalogue: Tensor, queries: Tensor, k: int) -> None:
    """Scores are those of a full sort; each item really has the score beside it; none stands twice."""
    found = Scorer(catalogue, k).top_k(queries)
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
    k, items = 20, 80 * scoring.CHUNK + 9
    catalogue = drawn(seed, items, 3)
    chunk = k + seed % 78 * scoring.CHUNK
    catalogue[chunk : chunk + scoring.CHUNK] += 5
    catalogue[-9:] -= 4
    if ties:
        catalogue = catalogue.round(decimals=ties - 1)
    check(catalogue, drawn(seed + 1, 40, 3), k)


def test_results_stay_when_the_next_queries_come() -> None:
    """The buffer is the scorer's own and is used again."""
    scorer = Scorer(drawn(1, 50, 4), 5)
    scores, items = scorer.top_k(drawn(2, 3, 4))
    kept = scores.copy(), items.copy()
    scorer.top_k(drawn(3, 3, 4))
    assert np.array_equal(scores, kept[0])
    assert np.array_equal(items, kept[1])


@pytest.mark.parametrize(("items", "k"), [(9, 5), (1, 1), (100, 20), (100, 100)])
def test_of_equal_items_the_first(items: int, k: int) -> None:
    check(torch.ones(items, 3), torch.ones(4, 3), k)
    assert Scorer(torch.ones(items, 3), k).top_k(torch.ones(2, 3))[1].tolist() == [list(range(k))] * 2
