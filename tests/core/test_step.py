"""One step of a GRU of one layer against PyTorch's own cell; the query and the item vectors."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.core.models import cell_weights, random_model, torch_cell
from worker.core.step import CellWeights, QueryWeights, session_query, step, unit_items

quick = settings(deadline=None, max_examples=50)
sizes = st.integers(1, 12)
seeds = st.integers(0, 2**31)


def gru_step(weights: CellWeights, x: Tensor, h: Tensor) -> Tensor:
    return step("gru", [weights], x, h)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(sizes, st.integers(1, 9), seeds, st.sampled_from([0.1, 1.0, 10.0]))
@quick
def test_step_equals_torch(hidden_size: int, sessions: int, seed: int, scale: float) -> None:
    weights = cell_weights(hidden_size, torch.Generator().manual_seed(seed))
    x, h = scale * drawn(seed + 1, sessions, hidden_size), drawn(seed + 2, sessions, hidden_size)
    with torch.no_grad():
        expected = torch_cell(weights)(x, h)
        assert torch.allclose(gru_step(weights, x, h), expected, rtol=0, atol=1e-5)


def test_step_with_inputs_of_another_width_than_the_state() -> None:
    """The cell itself does not mind; the session model has one width only."""
    weights = CellWeights(drawn(1, 12, 7), drawn(2, 12, 4), drawn(3, 12), drawn(4, 12))
    x, h = drawn(5, 3, 7), drawn(6, 3, 4)
    with torch.no_grad():
        assert torch.allclose(gru_step(weights, x, h), torch_cell(weights)(x, h), rtol=0, atol=1e-5)


@given(sizes, st.integers(1, 5), seeds)
@quick
def test_gradients_equal_torch(hidden_size: int, sessions: int, seed: int) -> None:
    """Through three steps, into every weight, the inputs and the first state; in float64, so exactly."""
    drawn_weights = cell_weights(hidden_size, torch.Generator().manual_seed(seed))
    weights = CellWeights(
        *(tensor.double().requires_grad_() for tensor in drawn_weights if tensor is not None)
    )
    theirs = torch_cell(CellWeights(*(tensor.detach() for tensor in weights if tensor is not None)))
    x, h = drawn(seed + 1, 3, sessions, hidden_size).double(), drawn(seed + 2, sessions, hidden_size).double()
    towards = drawn(seed + 3, sessions, hidden_size).double()
    inputs = [(x.clone().requires_grad_(), h.clone().requires_grad_()) for _ in range(2)]
    steps: list[Callable[[Tensor, Tensor], Tensor]] = [partial(gru_step, weights), theirs]
    for one_step, (clicked, start) in zip(steps, inputs, strict=True):
        state = start
        for one in clicked:
            state = one_step(one, state)
        torch.autograd.backward((state * towards).sum())
    pairs = [
        (weights.w_ih, theirs.weight_ih),
        (weights.w_hh, theirs.weight_hh),
        (weights.b_ih, theirs.bias_ih),
        (weights.b_hh, theirs.bias_hh),
        (inputs[0][0], inputs[1][0]),
        (inputs[0][1], inputs[1][1]),
    ]
    for mine, other in pairs:
        assert mine is not None
        assert mine.grad is not None
        assert other.grad is not None
        assert torch.allclose(mine.grad, other.grad, rtol=1e-5, atol=1e-5)


@given(sizes, st.integers(1, 9), seeds, st.sampled_from([1e-3, 1.0, 1e3]))
@quick
def test_queries_have_unit_length(hidden_size: int, sessions: int, seed: int, scale: float) -> None:
    query = QueryWeights(drawn(seed, hidden_size, hidden_size), drawn(seed + 1, hidden_size, hidden_size))
    h, x = scale * drawn(seed + 2, sessions, hidden_size), scale * drawn(seed + 3, sessions, hidden_size)
    asked = session_query(query, h, x)
    assert torch.allclose(asked.norm(dim=1), torch.ones(sessions), atol=1e-5)
    a, b = query
    assert b is not None
    direction = torch.stack([a @ h[row] + b @ x[row] for row in range(sessions)])
    assert torch.allclose(session_query(query, h, x, "dot"), direction, rtol=1e-4, atol=1e-5 * scale)
    cosines = torch.nn.functional.cosine_similarity(asked, direction)
    assert torch.allclose(cosines, torch.ones(sessions), atol=1e-3)


def test_item_vectors_have_unit_length_and_the_model_carries_its_temperature() -> None:
    embedding = drawn(1, 6, 4)
    assert torch.allclose(unit_items(embedding).norm(dim=1), torch.ones(6))
    assert torch.allclose(unit_items(embedding) * embedding.norm(dim=1, keepdim=True), embedding, atol=1e-6)
    assert not unit_items(torch.zeros(2, 3)).isnan().any()
    model = random_model(list("abc"), 4, seed=1)
    assert torch.allclose(model.item_matrix.norm(dim=1), torch.full((3,), 11.0))
    assert model.hidden_size == 4


@pytest.mark.parametrize("gate", ["reset", "update", "new"])
def test_each_gate_has_the_place_that_torch_gives_it(gate: str) -> None:
    """Weights that are not zero in one gate only."""
    at = ["reset", "update", "new"].index(gate)
    whole = cell_weights(3, torch.Generator().manual_seed(5))
    assert whole.w_ih is not None
    mask = torch.zeros(9)
    mask[3 * at : 3 * at + 3] = 1
    weights = CellWeights(
        whole.w_ih * mask[:, None], whole.w_hh * mask[:, None], whole.b_ih * mask, whole.b_hh * mask
    )
    x, h = drawn(6, 4, 3), drawn(7, 4, 3)
    with torch.no_grad():
        assert torch.allclose(gru_step(weights, x, h), torch_cell(weights)(x, h), rtol=0, atol=1e-6)
