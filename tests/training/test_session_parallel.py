"""Session-parallel batches: every transition once, every state that of its own session, no early end."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.logs import sessions_of
from training.batches import session_weights
from training.session_parallel import carried, slot_steps
from training.sessions import Sessions
from worker.core.step import CellWeights, input_gates, recurrent_step

lengths = st.lists(st.integers(2, 12), min_size=1, max_size=25)


def numbered(sizes: list[int]) -> Sessions:
    """Sessions of these lengths, every click its own item, so that a mix-up cannot hide."""
    click = iter(range(10_000))
    return sessions_of(*[[next(click) for _ in range(size)] for size in sizes])


def test_the_picture_in_the_docstring() -> None:
    steps = list(slot_steps(sessions_of([0, 1, 2], [3, 4], [5, 6, 7]), 2))
    assert [step.inputs.tolist() for step in steps] == [[0, 3], [1, 5], [6]]
    assert [step.targets.tolist() for step in steps] == [[1, 4], [2, 6], [7]]
    assert [step.reset.tolist() for step in steps] == [[True, True], [False, True], [False]]
    assert [step.kept.tolist() for step in steps] == [[0, 1], [0, 1], [1]]
    assert [step.batch.active for step in steps] == [[2], [2], [1]]


@settings(deadline=None)
@given(lengths, st.integers(1, 30))
def test_an_epoch_holds_every_transition_once(sizes: list[int], slots: int) -> None:
    steps = list(slot_steps(numbered(sizes), slots))
    found = [pair for step in steps for pair in zip(step.inputs.tolist(), step.targets.tolist(), strict=True)]
    ends = set(np.cumsum(sizes) - 1)
    assert sorted(found) == [(item, item + 1) for item in range(sum(sizes)) if item not in ends]
    assert sum(int(step.reset.sum()) for step in steps) == len(sizes)


@settings(deadline=None)
@given(lengths, st.integers(1, 30))
def test_slots_are_full_until_no_session_is_left(sizes: list[int], slots: int) -> None:
    begun = 0
    for step in slot_steps(numbered(sizes), slots):
        begun += int(step.reset.sum())
        assert len(step.inputs) <= slots
        assert len(step.inputs) == slots or begun == len(sizes)


@settings(deadline=None)
@given(lengths, st.integers(1, 30))
def test_each_state_is_that_of_a_fresh_walk_through_its_session(sizes: list[int], slots: int) -> None:
    """The state here is the list of clicks itself, as a number: new = 1,000 · old + click + 1."""
    sessions = numbered(sizes)
    begins = dict.fromkeys(np.cumsum([0, *sizes[:-1]]).tolist())
    state = torch.full((slots, 1), 77.0)  # of any content: every slot begins with a reset
    for step in slot_steps(sessions, slots):
        state = carried(state, step)
        for click, before in zip(step.inputs.tolist(), state[:, 0].tolist(), strict=True):
            assert before == (0 if click in begins else click)  # what the click before left there
        state = torch.from_numpy(step.inputs + 1)[:, None].float()


def test_states_of_the_cell_equal_one_session_at_a_time() -> None:
    sizes = [5, 2, 7, 2, 2, 3, 4]
    sessions, draw = numbered(sizes), torch.Generator().manual_seed(0)
    embedding = torch.randn(sum(sizes), 6, generator=draw)
    cell = CellWeights(*(torch.randn(*shape, generator=draw) for shape in ((18, 6), (18, 6), (18,), (18,))))
    alone = torch.empty(sum(sizes), 6)
    for first, size in zip(sessions.starts[:-1].tolist(), sizes, strict=True):
        state = torch.zeros(1, 6)
        for click in range(first, first + size):
            state = recurrent_step(cell, input_gates(cell, embedding[click][None]), state)
            alone[click] = state[0]
    state = torch.zeros(3, 6)
    for step in slot_steps(sessions, 3):
        clicks = torch.from_numpy(step.inputs)
        state = recurrent_step(cell, input_gates(cell, embedding[clicks]), carried(state, step))
        torch.testing.assert_close(state, alone[clicks])


def test_order_and_weights() -> None:
    sessions = sessions_of([0, 1], [2, 3], [4, 5])
    weights = session_weights(sessions)
    steps = list(slot_steps(sessions, 2, np.array([2, 0, 1])))
    assert [step.inputs.tolist() for step in steps] == [[4, 0], [2]]
    np.testing.assert_array_equal(steps[0].weights, weights[[2, 0]])
    np.testing.assert_array_equal(steps[1].weights, weights[[1]])


@pytest.mark.parametrize("order", [None, np.array([], np.int64)])
def test_no_sessions_no_steps(order: np.ndarray | None) -> None:
    assert list(slot_steps(sessions_of(), 4, order)) == []
