"""Rounded hidden states: how far off they may be, and that all who round, round alike."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from worker.core.hidden_states import HiddenStates, rounded

numbers = st.floats(-1, 1, width=32).filter(lambda number: number == 0 or abs(number) > 1e-30)
"""What a GRU's states lie between; where all are next to nothing float32 has no digits left for a scale."""
states = arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=numbers)


@given(states)
@settings(deadline=None)
def test_no_number_is_off_by_more_than_half_a_step(given_states: NDArray[np.float32]) -> None:
    found = rounded(torch.from_numpy(given_states)).numpy()
    largest = np.abs(given_states).max(axis=1, keepdims=True).astype(np.float64)
    assert (np.abs(found.astype(np.float64) - given_states) <= 1.001 * largest / 65_534).all()
    assert found.dtype == np.float32


@given(states)
@settings(deadline=None)
def test_what_is_loaded_is_what_rounding_says(given_states: NDArray[np.float32]) -> None:
    given_rows = torch.from_numpy(given_states)
    hidden = HiddenStates(9)
    hidden.resize(given_states.shape[1])
    hidden.store(np.arange(9), torch.full((9, given_states.shape[1]), 0.5))
    rows = np.array([8, 2, 5, 0])[: len(given_states)]
    hidden.store(rows, given_rows)
    assert torch.equal(hidden.load(rows), rounded(given_rows))
    others = np.setdiff1d(np.arange(9), rows)
    assert torch.equal(hidden.load(others), torch.full((len(others), given_states.shape[1]), 0.5))


@given(states)
@settings(deadline=None)
def test_rounding_again_changes_nothing_but_the_last_bit(given_states: NDArray[np.float32]) -> None:
    once = rounded(torch.from_numpy(given_states))
    assert np.allclose(rounded(once).numpy(), once.numpy(), rtol=3e-7, atol=0)


def test_zero_rows() -> None:
    """A state of nothing but zeros has no scale, and a row that is set to zero loses its own."""
    hidden = HiddenStates(3)
    hidden.resize(2)
    assert hidden.load(np.array([0, 1, 2])).tolist() == [[0, 0]] * 3
    hidden.store(np.array([0, 1]), torch.tensor([[0.0, 0.0], [0.25, -1.0]]))
    assert hidden.load(np.array([0])).tolist() == [[0, 0]]
    hidden.zero(np.array([1]))
    assert hidden.load(np.array([1])).tolist() == [[0, 0]]
    hidden.store(np.array([1]), torch.tensor([[0.5, -0.5]]))
    assert hidden.load(np.array([1])).tolist() == [[0.5, -0.5]]


def test_no_rows() -> None:
    hidden = HiddenStates(3)
    hidden.resize(2)
    none = np.empty(0, np.int64)
    hidden.store(none, torch.empty(0, 2))
    hidden.zero(none)
    assert hidden.load(none).shape == (0, 2)
    assert rounded(torch.empty(0, 2)).shape == (0, 2)


def test_another_width() -> None:
    hidden = HiddenStates(3)
    assert hidden.width == 0
    assert hidden.load(np.array([2, 0])).shape == (2, 0)
    hidden.store(np.array([1]), torch.empty(1, 0))
    hidden.resize(4)
    assert hidden.width == 4
    hidden.store(np.array([1]), torch.ones(1, 4))
    hidden.resize(2)
    assert hidden.load(np.arange(3)).tolist() == [[0, 0]] * 3
    assert hidden.load(np.arange(3)).dtype == torch.float32
