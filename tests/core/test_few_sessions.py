"""The compiled passes against `worker.core.step`, which PyTorch's own layers vouch for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from schemas.model_manifest import ItemEmbedding, Score
from tests.core.models import random_model
from worker.core.few_sessions import FEW, FewSessions
from worker.core.session_model import SessionModel
from worker.core.step import output, session_query, step

ITEMS = 9
scores: st.SearchStrategy[Score] = st.sampled_from(["cosine", "dot"])
tables: st.SearchStrategy[ItemEmbedding] = st.sampled_from(["shared", "separate"])


def model_of(hidden_size: int, seed: int, **architecture: object) -> SessionModel:
    return random_model([str(item) for item in range(ITEMS)], hidden_size, seed, **architecture)  # type: ignore[arg-type]


def few_sessions(model: SessionModel) -> FewSessions | None:
    return FewSessions.of(model.cell, model.layers, model.query, model.embedding, model.score)


def drawn(model: SessionModel, sessions: int, seed: int) -> tuple[Tensor, Tensor]:
    """Items int32 [B] that are clicked, and states [B, S]."""
    generator = torch.Generator().manual_seed(seed)
    clicked = torch.randint(ITEMS, (sessions,), generator=generator, dtype=torch.int32)
    return clicked, torch.rand(sessions, model.state_layout.width, generator=generator) * 2 - 1


def by_torch(model: SessionModel, clicked: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Next states and, asked of the states as given, queries."""
    x = model.embedding[clicked]
    query = session_query(model.query, output(model.layers, states), x, model.score)
    return step(model.cell, model.layers, x, states), query


@given(st.integers(1, 70), st.integers(0, FEW), scores, tables, st.integers(0, 2**31))
@settings(deadline=None, max_examples=80)
def test_steps_and_queries_are_those_of_torch(
    hidden_size: int, sessions: int, score: Score, table: ItemEmbedding, seed: int
) -> None:
    model = model_of(hidden_size, seed, score=score, item_embedding=table)
    few = few_sessions(model)
    assert few is not None
    clicked, states = drawn(model, sessions, seed)
    before = states.clone()
    expected = by_torch(model, clicked, states)
    for found, wanted in zip((few.step(clicked, states), few.ask(states, clicked)), expected, strict=True):
        assert found.dtype == torch.float32
        assert torch.allclose(found, wanted, rtol=1e-4, atol=2e-5)
    assert torch.equal(states, before)


@pytest.mark.parametrize("sessions", [1, FEW, FEW + 1])
@pytest.mark.parametrize(
    "architecture",
    [
        {},
        {"cell": "lstm"},
        {"cell": "rnn"},
        {"layers": 2},
        {"item_embedding": "none", "last_click_query": False},
        {"last_click_query": False},
    ],
)
def test_a_model_gives_the_same_whoever_computes_it(sessions: int, architecture: dict[str, object]) -> None:
    model = model_of(6, 3, **architecture)
    assert (few_sessions(model) is None) == bool(architecture)
    clicked, states = drawn(model, sessions, 5)
    states_after, query = by_torch(model, clicked, states)
    assert torch.allclose(model.step(clicked, states), states_after, atol=1e-5)
    assert torch.allclose(model.ask(states, clicked), query, atol=1e-5)


def test_gates_that_are_wide_open_or_shut() -> None:
    """Beyond what e^x holds in float32 a gate is 0 or 1, and no number turns into none."""
    model = model_of(3, 1)
    for tensor in model.layers[0][2:]:
        assert tensor is not None
        tensor.copy_(torch.tensor([-200.0, 200, 0, 200, -200, 0, -200, 200, 0]))
    few = few_sessions(model)
    assert few is not None
    clicked, states = drawn(model, 2, 1)
    assert torch.allclose(few.step(clicked, states), by_torch(model, clicked, states)[0], atol=1e-6)


def test_a_query_of_no_length_stays_what_it_is() -> None:
    model = model_of(3, 1)
    for tensor in model.query:
        assert tensor is not None
        tensor.zero_()
    few = few_sessions(model)
    assert few is not None
    assert few.ask(torch.ones(2, 3), torch.tensor([0, 1])).tolist() == [[0.0] * 3] * 2


def test_item_numbers_of_either_width() -> None:
    model = model_of(5, 2)
    clicked, states = drawn(model, 3, 2)
    assert torch.equal(model.step(clicked, states), model.step(clicked.long(), states))
    assert torch.equal(model.ask(states, clicked), model.ask(states, clicked.long()))
