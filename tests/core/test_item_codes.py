"""Codes of items: what is multiplied is what they say, and nothing is off by more than the margin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from worker.core.code_products import AT_ONCE, CAN_MULTIPLY_CODES, GROUP, LANES
from worker.core.item_codes import LARGEST, SHIFT, ItemCodes, approximate, encode_query, margin

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
    approximate(codes, coded, scales, scores, highest, len(items))
    return codes, coded, scales, scores[:, : len(items)], highest


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
    """4,096 columns, of which each product is the largest there is."""
    items, queries = np.ones((LANES + 1, 4_096), np.float32), np.full((1, 4_096), sign, np.float32)
    codes, coded, *_, scores, _ = approximated(items, queries)
    assert (coded == sign * LARGEST).all()
    assert (plain_codes(codes, len(items), 4_096) == LARGEST).all()
    assert np.allclose(scores, sign * 4_096, rtol=1e-6)


@given(st.integers(1, 60), st.integers(1, 150), st.integers(1, 6), st.integers(0, 2**31))
@settings(deadline=None, max_examples=80)
def test_no_score_is_off_by_more_than_the_margin(items: int, width: int, queries: int, seed: int) -> None:
    catalogue, asked = drawn(seed, items, width), drawn(seed + 1, queries, width)
    codes, coded, _, scores, _ = approximated(catalogue, asked)
    exact = asked.astype(float) @ catalogue.T.astype(float)
    for row in range(queries):
        _, length, off = encode_query(asked[row], coded[row])
        assert length == pytest.approx(np.linalg.norm(asked[row].astype(float)), rel=1e-6)
        assert np.abs(scores[row] - exact[row]).max() <= margin(codes, width, length, off)


@pytest.mark.parametrize(("item", "query"), [((0, 1), (127, 10.49)), ((127, 10.49), (0, 1))])
def test_the_margin_is_reached(item: tuple[float, float], query: tuple[float, float]) -> None:
    """All of the rounding of one lies where the other does: each of the two terms is needed, and whole."""
    items, queries = np.array([item], np.float32), np.array([query], np.float32)
    codes, coded, _, scores, _ = approximated(items, queries)
    _, length, off = encode_query(queries[0], coded[0])
    missed = abs(float(scores[0, 0]) - float(items[0] @ queries[0]))
    assert 0.48 < missed <= margin(codes, 2, length, off) < 0.51


def test_the_margin_of_a_trained_size_tells_most_items_apart() -> None:
    """Else the codes would be right and of no use: 128 columns, unit length."""
    items, queries = np.random.default_rng(1).standard_normal((2, 2_000, 128)).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    codes, coded, *_ = approximated(items, queries[:1])
    _, length, off = encode_query(queries[0], coded[0])
    assert margin(codes, 128, length, off) < 0.025 * length
