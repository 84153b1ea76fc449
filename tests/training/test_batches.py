"""Packing: every transition once, sessions never mixed, nothing padded."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.training.logs import sessions_of
from training.batches import Batch, batches, cut, pack, session_weights

lengths = st.lists(st.integers(2, 30), min_size=1, max_size=25)


def unpacked(batch: Batch) -> list[tuple[list[int], list[int]]]:
    """The inputs and targets of each session in a batch."""
    found: list[tuple[list[int], list[int]]] = [([], []) for _ in range(batch.active[0])]
    position = 0
    for active in batch.active:
        for session in range(active):
            found[session][0].append(int(batch.inputs[position]))
            found[session][1].append(int(batch.targets[position]))
            position += 1
    assert position == len(batch.inputs) == len(batch.targets) == len(batch.weights)
    return found


def test_the_picture_in_the_docstring() -> None:
    batch = pack(cut(sessions_of([1, 2, 3], [4, 5], [6, 7, 8, 9]), 20), np.array([0, 1, 2]))
    assert batch.inputs.tolist() == [6, 1, 4, 7, 2, 8]
    assert batch.targets.tolist() == [7, 2, 5, 8, 3, 9]
    assert batch.active == [3, 2, 1]


@given(lengths, st.integers(1, 12), st.integers(1, 50))
def test_an_epoch_holds_every_transition_once(sizes: list[int], longest: int, size: int) -> None:
    click = iter(range(10_000))  # every click its own item, so that a mix-up cannot hide
    sessions = sessions_of(*[[next(click) for _ in range(size)] for size in sizes])
    found = []
    for batch in batches(cut(sessions, longest), size, np.random.default_rng(0)):
        assert sorted(batch.active, reverse=True) == batch.active
        assert len(batch.inputs) < size + longest
        for inputs, targets in unpacked(batch):
            assert len(inputs) <= longest
            assert inputs[1:] == targets[:-1]
            found += list(zip(inputs, targets, strict=True))
    ends = set(np.cumsum(sizes) - 1)
    assert sorted(found) == [(item, item + 1) for item in range(sum(sizes)) if item not in ends]


def test_order_changes_from_epoch_to_epoch_and_not_with_the_seed() -> None:
    pieces = cut(sessions_of(*[[i, i + 1, i + 2] for i in range(40)]), 20)
    rng = np.random.default_rng(5)
    first, second = ([b.inputs.tolist() for b in batches(pieces, 10, rng)] for _ in range(2))
    again = [b.inputs.tolist() for b in batches(pieces, 10, np.random.default_rng(5))]
    assert first != second
    assert first == again


def test_newer_sessions_weigh_more() -> None:
    sessions = sessions_of([0, 1, 2], [3, 4], [5, 6])
    weights = session_weights(sessions)
    np.testing.assert_allclose(weights, np.exp([-1, -0.5, 0]), rtol=1e-6)
    batch = pack(cut(sessions, 1), np.arange(4))
    by_input = dict(zip(batch.inputs.tolist(), batch.weights.tolist(), strict=True))
    assert by_input[0] == by_input[1] == weights[0]
    assert by_input[5] == weights[2]
