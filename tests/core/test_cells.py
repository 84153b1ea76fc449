"""Every cell, of one layer and more, against PyTorch's own layers: steps, and training's packed run."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from schemas.model_manifest import CELL_SHAPES, Cell
from tests.core.models import cell_weights, fed, random_model, torch_layers
from training.network import hidden_states
from worker.core.session_model import SessionModel
from worker.core.step import CellWeights, output, step

CELLS: list[Cell] = ["gru", "lstm", "rnn"]
ITEMS = 7
quick = settings(deadline=None, max_examples=60)
architectures = st.tuples(st.sampled_from(CELLS), st.integers(1, 3), st.sampled_from(["shared", "none"]))
seeds = st.integers(0, 2**31)


def model_of(architecture: tuple[Cell, int, str], hidden_size: int, seed: int) -> SessionModel:
    cell, layers, item_embedding = architecture
    return random_model(
        [str(item) for item in range(ITEMS)],
        hidden_size,
        seed,
        cell=cell,
        layers=layers,
        item_embedding="none" if item_embedding == "none" else "shared",
        last_click_query=False,
    )


def in_float64(layers: tuple[CellWeights, ...]) -> list[CellWeights]:
    """Leaves of their own, with gradients."""
    return [
        CellWeights(
            None if cell.w_ih is None else cell.w_ih.double().requires_grad_(),
            *(tensor.double().requires_grad_() for tensor in cell[1:] if tensor is not None),
        )
        for cell in layers
    ]


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def clicks(seed: int, sessions: int, steps: int) -> Tensor:
    """Items int64 [steps, sessions]."""
    return torch.randint(ITEMS, (steps, sessions), generator=torch.Generator().manual_seed(seed))


@given(architectures, st.integers(1, 6), st.integers(1, 5), seeds)
@quick
def test_steps_and_their_gradients_equal_torch(
    architecture: tuple[Cell, int, str], hidden_size: int, sessions: int, seed: int
) -> None:
    """Four steps from any state, in float64: outputs, last state, gradients of weights, rows and start.

    Without an item embedding PyTorch's layers take dense one-hot vectors.
    """
    model = model_of(architecture, hidden_size, seed)
    kind, depth, _ = architecture
    states = CELL_SHAPES[kind].states
    items = clicks(seed + 1, sessions, 4)
    draw = torch.Generator().manual_seed(seed + 2)
    start = torch.randn(sessions, states * depth * hidden_size, generator=draw, dtype=torch.float64)
    towards = torch.randn(4, sessions, hidden_size, generator=draw, dtype=torch.float64)

    mine, rows = in_float64(model.layers), model.embedding.double().requires_grad_()
    state = first = start.clone().requires_grad_()
    outputs = []
    for clicked in items:
        state = step(kind, mine, rows[clicked], state)
        outputs.append(output(mine, state))
    torch.autograd.backward((torch.stack(outputs) * towards).sum() + state.square().sum())

    theirs = torch_layers(kind, in_float64(model.layers), model.embedding.double())
    their_rows = model.embedding.double().requires_grad_()
    their_first = start.clone().requires_grad_()
    parts = their_first.reshape(sessions, states, depth, hidden_size).permute(1, 2, 0, 3).contiguous()
    found, last = theirs(fed(mine, their_rows, items), (parts[0], parts[1]) if states == 2 else parts[0])
    their_state = torch.stack(last) if states == 2 else last[None]
    torch.autograd.backward((found * towards).sum() + their_state.square().sum())

    torch.testing.assert_close(torch.stack(outputs), found)
    torch.testing.assert_close(
        state.reshape(sessions, states, depth, hidden_size), their_state.permute(2, 0, 1, 3)
    )
    torch.testing.assert_close(first.grad, their_first.grad)
    their_grads = gradients(theirs)
    if mine[0].w_ih is None:
        torch.testing.assert_close(rows.grad, their_grads["weight_ih_l0"].t())
    else:
        torch.testing.assert_close(rows.grad, their_rows.grad)
    for layer, cell in enumerate(mine):
        for tensor, name in zip(cell, ("weight_ih", "weight_hh", "bias_ih", "bias_hh"), strict=True):
            if tensor is not None:
                torch.testing.assert_close(tensor.grad, their_grads[f"{name}_l{layer}"])


@given(architectures, st.integers(1, 6), st.lists(st.integers(1, 6), min_size=1, max_size=5), seeds)
@quick
def test_the_packed_run_of_training_equals_torch_on_each_session_alone(
    architecture: tuple[Cell, int, str], hidden_size: int, lengths: list[int], seed: int
) -> None:
    """Values and gradients; and each session from zero, whatever stood beside it or before."""
    model = model_of(architecture, hidden_size, seed)
    kind = architecture[0]
    lengths = sorted(lengths, reverse=True)
    items = clicks(seed + 1, len(lengths), lengths[0])
    active = [sum(length > time for length in lengths) for time in range(lengths[0])]
    packed = torch.cat([items[time, :going_on] for time, going_on in enumerate(active)])

    mine, rows = in_float64(model.layers), model.embedding.double().requires_grad_()
    found = hidden_states(kind, mine, rows[packed], active)
    torch.autograd.backward(found.sin().sum())

    theirs = torch_layers(kind, in_float64(model.layers), model.embedding.double())
    their_rows = model.embedding.double().requires_grad_()
    alone = [
        theirs(fed(mine, their_rows, items[:length, session]))[0] for session, length in enumerate(lengths)
    ]
    expected = torch.stack(
        [alone[session][time] for time, going_on in enumerate(active) for session in range(going_on)]
    )
    torch.autograd.backward(expected.sin().sum())
    torch.testing.assert_close(found, expected)
    their_grads = gradients(theirs)
    if mine[0].w_ih is None:
        torch.testing.assert_close(rows.grad, their_grads["weight_ih_l0"].t())
    else:
        torch.testing.assert_close(rows.grad, their_rows.grad)
    for layer, cell in enumerate(mine):
        torch.testing.assert_close(cell.w_hh.grad, their_grads[f"weight_hh_l{layer}"])
        torch.testing.assert_close(cell.b_hh.grad, their_grads[f"bias_hh_l{layer}"])


@pytest.mark.parametrize("item_embedding", ["shared", "none"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", CELLS)
def test_training_and_worker_compute_the_same(kind: Cell, layers: int, item_embedding: str) -> None:
    model = model_of((kind, layers, item_embedding), 5, seed=3)
    items = torch.tensor([0, 1, 2, 0, 6])
    packed = hidden_states(kind, model.layers, model.embedding[items], [1] * 5)
    state = model.start(1)
    assert state.shape == (1, 5 * layers * (2 if kind == "lstm" else 1))
    for time, item in enumerate(items):
        state = model.step(item[None], state)
        torch.testing.assert_close(output(model.layers, state)[0], packed[time])


@pytest.mark.parametrize("gate", [0, 1, 2, 3])
def test_each_gate_of_an_lstm_has_the_place_that_torch_gives_it(gate: int) -> None:
    """Weights that are not zero in one gate only, from a state that is not zero."""
    whole = cell_weights(3, torch.Generator().manual_seed(5), "lstm")
    mask = torch.zeros(12)
    mask[3 * gate : 3 * gate + 3] = 1
    assert whole.w_ih is not None
    weights = CellWeights(
        whole.w_ih * mask[:, None], whole.w_hh * mask[:, None], whole.b_ih * mask, whole.b_hh * mask
    )
    draw = torch.Generator().manual_seed(6)
    x, state = torch.randn(4, 3, generator=draw), torch.randn(4, 6, generator=draw)
    with torch.no_grad():
        module = torch_layers("lstm", [weights], x)
        _, (h, c) = module(x[None], (state[None, :, :3].contiguous(), state[None, :, 3:].contiguous()))
    torch.testing.assert_close(step("lstm", [weights], x, state), torch.cat([h[0], c[0]], dim=1))
