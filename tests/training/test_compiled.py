"""Compiled loops and the threads that run them."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from training.compiled import compiled, in_chunks


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    """Of torch, whatever tests before have left, and as it was afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_every_piece_is_done_once_and_reported_from_here() -> None:
    done = np.zeros(103, np.int64)
    told: list[tuple[int, int]] = []

    def work(begin: int, end: int) -> None:
        assert torch.get_num_threads() == 1
        done[begin:end] += 1

    in_chunks(work, len(done), 10, lambda at, of: told.append((at, of)))
    assert (done == 1).all()
    assert told[-1] == (103, 103)
    assert len(told) == 11
    assert torch.get_num_threads() == 2


def test_what_a_piece_raises_gets_out() -> None:
    def work(begin: int, end: int) -> None:
        raise ValueError(f"{begin}")

    with pytest.raises(ValueError, match="0"):
        in_chunks(work, 5, 5, lambda _at, _of: None)
    assert torch.get_num_threads() == 2


def test_nothing_to_do() -> None:
    in_chunks(lambda _begin, _end: None, 0, 5, lambda _at, _of: None)


def test_without_a_place_to_keep_it_it_is_compiled_all_the_same() -> None:
    """A function without a file stands for an installation where no folder can be written."""
    made: dict[str, object] = {}
    exec("def add(a, b):\n    return a + b\n", made)  # noqa: S102
    add = made["add"]
    assert callable(add)
    assert compiled(add)(2, 3) == 5
