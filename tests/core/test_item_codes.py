"""Codes of items: what is multiplied is what they say, and nothing is off by more than the margin."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from worker.core.code_products import AT_ONCE, CAN_MULTIPLY_CODES, GROUP, LANES
from worker.core.item_codes import LARGEST, SHIFT, ItemCodes, approximate, encode_query, write_margins

pytestmark = pytest.mark.skipif(not CAN_MULTIPLY_CODES, reason="this processor has no AVX-512 VNNI")

Floats = NDArray[np.float32]


def drawn(seed: int, *shape: int) -> Floats:
    """Numbers of very different sizes."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) * 10 ** generator.uniform(-3, 1, shape)).astype(np.float32)


def plain_codes(items: ItemCodes, count: int, width: int) -> NDArray[np.int64]:
    """c as whole numbers [V, H], out of the order in which they lie."""
    blocks, groups, _ = items.codes.shape
    by_item = items.codes.reshape(blocks, groups, LANES, GROUP).transpose(0, 2, 1, 3)
    return by_item.reshape(blocks * LANES, groups * GROUP)[:count, :width].astype(np.int64) - SHIFT


def approximated(
    items: Floats, queries: Floats
) -> tuple[ItemCodes, NDArray[np.int8], Floats, Floats, Floats]:
    """Codes of items and queries, the scales of these; scores [B, V], and the best of each block."""
    codes = ItemCodes.of(items)
    blocks, groups, _ = codes.codes.shape
    coded = np.full((len(queries), groups * GROUP), 99, np.int8)
    scales = np.array(
        [encode_query(query, to)[0] for query, to in zip(queries, coded, strict=True)], np.float32
    )
    scores = np.full((len(queries), blocks * LANES), np.nan, np.float32)
    highest = np.full((len(queries), blocks), np.nan, np.float32)
    approximate(codes, coded, scales, scores, highest)
    return codes, coded, scales, scores[:, : len(items)], highest


def margins_of(codes: ItemCodes, query: Floats) -> Floats:
    """Of each item, [V]."""
    _, length, off = encode_query(query, np.empty(codes.codes.shape[1] * GROUP, np.int8))
    margins = np.full(len(codes.codes), np.nan, np.float32)
    write_margins(codes, length, off, margins)
    return margins.repeat(LANES)[: len(codes.rows)]


@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 3 * AT_ONCE), st.integers(0, 2**31))
@settings(deadline=None, max_examples=80)
def test_scores_are_the_products_of_the_codes(items: int, width: int, queries: int, seed: int) -> None:
    codes, coded, scales, scores, highest = approximated(
        drawn(seed, items, width), drawn(seed + 1, queries, width)
    )
    products = coded[:, :width].astype(np.int64) @ plain_codes(codes, items, width).T
    expected = products * (codes.scales[:items].astype(float) * scales[:, None].astype(float))
    assert np.allclose(scores, expected, rtol=1e-6, atol=0)
    assert not coded[:, width:].any()
    blocks = [scores[:, begin : begin + LANES].max(axis=1) for begin in range(0, items, LANES)]
    assert np.array_equal(highest, np.stack(blocks, axis=1))


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_codes_do_not_overflow(sign: int) -> None:
    """4,096 columns, of which each product is the largest there is; each second item is the opposite."""
    items, queries = np.ones((2 * LANES, 4_096), np.float32), np.full((1, 4_096), sign, np.float32)
    items[1::2] = -1
    codes, coded, *_, scores, _ = approximated(items, queries)
    assert (coded == sign * LARGEST).all()
    assert (plain_codes(codes, len(items), 4_096) == items * LARGEST).all()
    assert np.allclose(scores, sign * items.sum(axis=1), rtol=1e-6)


@given(st.integers(1, 60), st.integers(1, 150), st.integers(1, 6), st.integers(0, 2**31))
@settings(deadline=None, max_examples=80)
def test_no_score_is_off_by_more_than_the_margin(items: int, width: int, queries: int, seed: int) -> None:
    catalogue, asked = drawn(seed, items, width), drawn(seed + 1, queries, width)
    codes, *_, scores, _ = approximated(catalogue, asked)
    exact = asked.astype(float) @ (catalogue - catalogue.mean(axis=0, dtype=float)).T
    for row in range(queries):
        assert (np.abs(scores[row] - exact[row]) <= margins_of(codes, asked[row])).all()


@pytest.mark.parametrize(("item", "query"), [((0, 1), (127, 10.49)), ((127, 10.49), (0, 1))])
def test_the_margin_is_reached(item: tuple[float, float], query: tuple[float, float]) -> None:
    """All of the rounding of one lies where the other does: each of the two terms is needed, and whole."""
    items, queries = np.array([item, item], np.float32), np.array([query], np.float32)
    items[1] *= -1
    codes, *_, scores, _ = approximated(items, queries)
    missed = abs(float(scores[0, 0]) - float(items[0] @ queries[0]))
    assert 0.48 < missed <= margins_of(codes, queries[0])[0] < 0.51


CATALOGUES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "of trained size": lambda items: items,
    "one item is long": lambda items: np.concatenate([items[:1] * 100, items[1:]]),
    "one column is large": lambda items: items + np.eye(1, items.shape[1]) * 40,
    "all near one vector": lambda items: items[:1] + items / 20,
}


@pytest.mark.parametrize("kind", CATALOGUES)
def test_few_items_have_to_be_scored_exactly(kind: str) -> None:
    """Else codes would be right and of no use: slower than to score every item."""
    generator = np.random.default_rng(1)
    items = CATALOGUES[kind](generator.standard_normal((3_000, 128)) / 128**0.5).astype(np.float32)
    query = generator.standard_normal((1, 128)).astype(np.float32)
    codes, *_, scores, highest = approximated(items, query)
    margins = margins_of(codes, query[0])
    surely = np.sort(highest[0] - margins[::LANES][: highest.shape[1]])
    assert 20 <= (scores[0] + margins >= surely[-20]).sum() < 150
