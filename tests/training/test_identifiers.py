"""Identifiers in columns: the same numbers as from sorting a list, whatever the blocks they come in."""

from random import Random

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from training.identifiers import IdColumn, Identifiers

ids_of_clicks = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4) | st.sampled_from(
    ["a", "aa", "é"]
)
blocks_of_ids = st.lists(st.lists(ids_of_clicks, max_size=8), max_size=6)


@given(blocks_of_ids)
def test_clicks_are_numbered_by_the_sorted_identifiers(blocks: list[list[str]]) -> None:
    column = IdColumn()
    for block in blocks:
        column.add(pl.Series(block, dtype=pl.String))
    codes, ids = column.build()
    together = [one for block in blocks for one in block]
    assert list(ids) == sorted(set(together))
    assert [ids[code] for code in codes] == together
    assert codes.dtype == np.int32


@given(blocks_of_ids, st.randoms(use_true_random=False))
def test_identifiers_of_clicks_left_out_are_gone(blocks: list[list[str]], random: Random) -> None:
    good = [np.array([random.random() < 0.5 for _ in block], bool) for block in blocks]
    column = IdColumn()
    for block in blocks:
        column.add(pl.Series(block, dtype=pl.String))
    codes, ids = column.build(good)
    kept = [one for block, mask in zip(blocks, good, strict=True) for one in np.array(block, object)[mask]]
    assert list(ids) == sorted(set(kept))
    assert [ids[code] for code in codes] == kept


def test_two_columns_number_on_their_own() -> None:
    one, other = IdColumn(), IdColumn()
    one.add(pl.Series(["x", "y"]))
    other.add(pl.Series(["y"]))
    assert other.build()[0].tolist() == [0]
    assert one.build()[0].tolist() == [0, 1]


def test_identifiers_are_a_sequence_of_text() -> None:
    ids = Identifiers(pl.Series(["a", "b", "c", "é"]))
    assert (len(ids), ids[np.int32(1)], ids[-1], ids[1:3]) == (4, "b", "é", ["b", "c"])
    assert (ids.index("c"), "b" in ids, "z" in ids) == (2, True, False)
    assert ids.among({"é", "a", "nobody"}).tolist() == [True, False, False, True]
    assert not ids.among(frozenset()).any()
