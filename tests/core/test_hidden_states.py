"""Rounded hidden states: how far off they may be, and that all who round, round alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from schemas.model_manifest import Cell
from tests.core.models import random_model
from tests.core.reference import PlainModel
from worker.core.hidden_states import EXACT_WIDTH, HiddenStates, StateLayout, rounded
from worker.core.step import CellWeights

ROUNDED = EXACT_WIDTH + 3
"""The narrowest vectors that are rounded have a last byte of their bits that is not full."""
layouts = st.sampled_from(
    [
        StateLayout(ROUNDED),
        StateLayout(ROUNDED, 3),
        StateLayout(ROUNDED, 1, ROUNDED),
        StateLayout(ROUNDED, 2, 2 * ROUNDED),
        StateLayout(5, 2, 10),
        StateLayout(EXACT_WIDTH, 2),
        StateLayout(1),
    ]
)
numbers = st.floats(-1, 1, width=32).filter(lambda number: number == 0 or abs(number) > 1e-30)
"""What a GRU's states lie between; where all are next to nothing float32 has no digits left for a scale."""


@st.composite
def states_of(draw: st.DrawFn) -> tuple[StateLayout, NDArray[np.float32]]:
    """A layout and a few states of it; what the cells of an LSTM hold lies beyond ±1."""
    layout = draw(layouts)
    elements = draw(arrays.arrays(np.float32, (draw(st.integers(1, 4)), layout.width), elements=numbers))
    elements[:, layout.width - layout.cells :] *= 300
    return layout, elements


@given(states_of())
@settings(deadline=None)
def test_no_number_is_off_by_more_than_half_a_step(
    given_states: tuple[StateLayout, NDArray[np.float32]],
) -> None:
    """Half a step of its own vector: neither another layer nor the cells of an LSTM make it coarser.

    And two percent: the quotient that is rounded to a whole number has float32's own rounding in it.
    """
    layout, states = given_states
    found = rounded(torch.from_numpy(states), layout).numpy()
    assert found.dtype == np.float32
    exact = layout.rounded_width
    assert np.array_equal(found[:, exact:], states[:, exact:])
    if not exact:
        return
    shape = (len(states), layout.layers, layout.hidden_size)
    off = np.abs(found[:, :exact].astype(np.float64) - states[:, :exact]).reshape(shape)
    largest = np.abs(states[:, :exact]).reshape(shape).max(axis=2, keepdims=True).astype(np.float64)
    assert (off <= 1.02 * largest / 131_070).all()


@given(states_of())
@settings(deadline=None)
def test_what_is_loaded_is_what_rounding_says(given_states: tuple[StateLayout, NDArray[np.float32]]) -> None:
    layout, states = given_states
    given_rows = torch.from_numpy(states)
    hidden = HiddenStates(9)
    hidden.resize(layout)
    hidden.store(np.arange(9), torch.full((9, layout.width), 0.5))
    rows = np.array([8, 2, 5, 0])[: len(states)]
    hidden.store(rows, given_rows)
    assert torch.equal(hidden.load(rows), rounded(given_rows, layout))
    others = np.setdiff1d(np.arange(9), rows)
    assert torch.equal(hidden.load(others), torch.full((len(others), layout.width), 0.5))
    hidden.zero(rows)
    assert not hidden.load(rows).any()


@given(states_of())
@settings(deadline=None)
def test_rounding_again_changes_nothing_but_the_last_bit(
    given_states: tuple[StateLayout, NDArray[np.float32]],
) -> None:
    layout, states = given_states
    once = rounded(torch.from_numpy(states), layout)
    assert np.allclose(rounded(once, layout).numpy(), once.numpy(), rtol=3e-7, atol=0)


@pytest.mark.parametrize("size", [2, ROUNDED])
def test_zero_rows(size: int) -> None:
    """A state of nothing but zeros has no scale, and a row that is set to zero loses its own."""
    hidden = HiddenStates(3)
    hidden.resize(StateLayout(size))
    assert hidden.load(np.array([0, 1, 2])).tolist() == [[0] * size] * 3
    some = torch.tensor([[0.0] * size, [0.25, -1.0] + [0.0] * (size - 2)])
    hidden.store(np.array([0, 1]), some)
    assert hidden.load(np.array([0])).tolist() == [[0] * size]
    hidden.zero(np.array([1]))
    assert hidden.load(np.array([1])).tolist() == [[0] * size]
    hidden.store(np.array([1]), some[1:] * 2)
    assert torch.allclose(hidden.load(np.array([1])), some[1:] * 2, atol=1e-4)


@pytest.mark.parametrize("layout", [StateLayout(2), StateLayout(ROUNDED, 2, 2 * ROUNDED)])
def test_no_rows(layout: StateLayout) -> None:
    hidden = HiddenStates(3)
    hidden.resize(layout)
    none = np.empty(0, np.int64)
    hidden.store(none, torch.empty(0, layout.width))
    hidden.zero(none)
    assert hidden.load(none).shape == (0, layout.width)
    assert rounded(torch.empty(0, layout.width), layout).shape == (0, layout.width)


def test_another_width() -> None:
    hidden = HiddenStates(3)
    assert hidden.width == 0
    assert hidden.load(np.array([2, 0])).shape == (2, 0)
    hidden.store(np.array([1]), torch.empty(1, 0))
    hidden.resize(StateLayout(4))
    assert hidden.width == 4
    hidden.store(np.array([1]), torch.ones(1, 4))
    hidden.resize(StateLayout(2))
    assert hidden.load(np.arange(3)).tolist() == [[0, 0]] * 3
    assert hidden.load(np.arange(3)).dtype == torch.float32


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (StateLayout(128), 256 + 16 + 4),
        (StateLayout(128, 2), 2 * (256 + 16 + 4)),
        (StateLayout(128, 1, 128), 256 + 16 + 4 + 512),
        (StateLayout(64), 256),
        (StateLayout(0), 0),
    ],
)
def test_memory_of_a_state(layout: StateLayout, expected: int) -> None:
    hidden = HiddenStates(3)
    hidden.resize(layout)
    assert hidden.bytes_per_row() == expected


PRECISION_CLICKS = 60


@pytest.mark.parametrize(
    ("cell", "layers", "openness"),
    [("gru", 1, 0), ("gru", 2, 0), ("lstm", 1, 3), ("lstm", 2, 1.5), ("rnn", 1, 0)],
)
def test_rounding_after_each_click_hardly_moves_a_score(cell: Cell, layers: int, openness: float) -> None:
    """Sessions of sixty clicks, weights as large as training makes them, and an LSTM that counts: its
    input and forget gates stand open, so what it holds grows far beyond ±1.
    """
    model = random_model([str(item) for item in range(40)], 100, seed=4, cell=cell, layers=layers)
    stack = [CellWeights(*(t if t is None else t * 0.1 for t in each)) for each in model.layers]  # type: ignore[arg-type]
    for each in stack if openness else ():
        each.b_ih[:200] += openness
    model = replace(model, layers=tuple(stack))
    plain = PlainModel(model)
    state, exact, largest = model.start(1), plain.start(), 0.0
    for click in range(PRECISION_CLICKS):
        clicked = torch.tensor([7 * click % 40])
        state = model.step(clicked, state)
        scores = (model.ask(state, clicked) @ model.item_matrix.t())[0]
        exact = plain.after(exact, str(int(clicked)))
        expected = plain.scores(exact, str(int(clicked)))
        assert max(abs(float(scores[row]) - expected[str(row)]) for row in range(40)) < 1e-4
        largest = max(largest, float(state.abs().max()))
        state = rounded(state, model.state_layout)
    assert (largest > 3) == (cell == "lstm")
