"""The start of training, and the recurrence over packed sessions against a plain loop over each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from schemas.model_artefact import tensor_shapes
from schemas.model_manifest import Architecture, Cell
from tests.training.logs import sessions_of
from training.batches import cut, pack
from training.gpu_recurrence import states_at_once
from training.network import Network, hidden_states, new_network, weights
from training.settings import TrainSettings, architecture_for

SETTINGS = TrainSettings(hidden_size=16)
DIFFERENT = [
    {"cell": "lstm"},
    {"cell": "rnn"},
    {"layers": 3},
    {"item_embedding": "separate"},
    {"item_embedding": "none", "last_click_query": False},
    {"item_embedding": "none", "last_click_query": False, "cell": "lstm", "layers": 2, "score": "dot"},
    {"last_click_query": False},
    {"score": "dot"},
]


def drawn(items: int, **different: object) -> Network:
    wanted = architecture_for(replace(SETTINGS, **different), items)  # type: ignore[arg-type]
    return new_network(wanted, torch.Generator().manual_seed(0))


def check_xavier(weight: Tensor | None, gates: int) -> None:
    assert weight is not None
    for gate in weight.detach().chunk(gates):
        assert 0.95 * (6 / 32) ** 0.5 < gate.abs().max() <= (6 / 32) ** 0.5


def check_orthogonal(weight: Tensor, gates: int) -> None:
    for gate in weight.detach().chunk(gates):
        torch.testing.assert_close(gate @ gate.t(), torch.eye(16), atol=1e-5, rtol=0)


def test_start() -> None:
    network = drawn(500)
    assert 0.24 < network.embedding.abs().max() <= 0.25  # 1/√16
    (cell,) = network.layers
    check_xavier(cell.w_ih, 3)
    check_orthogonal(cell.w_hh, 3)
    assert torch.equal(network.query.query_hidden, torch.eye(16))
    assert network.query.query_item is not None
    assert not network.query.query_item.any()
    assert not cell.b_ih.any()
    assert not cell.b_hh.any()


@pytest.mark.parametrize(("cell", "gates"), [("gru", 3), ("lstm", 4), ("rnn", 1)])
def test_start_of_every_cell(cell: str, gates: int) -> None:
    for layer in drawn(20, cell=cell, layers=2).layers:
        check_xavier(layer.w_ih, gates)
        check_orthogonal(layer.w_hh, gates)
        assert not layer.b_hh.any()
        forget = layer.b_ih[16:32] if cell == "lstm" else torch.empty(0)
        assert (forget == 1).all(), "an LSTM remembers to begin with"
        assert layer.b_ih.sum() == len(forget), "and all other biases are zero"


@pytest.mark.parametrize("different", DIFFERENT, ids=str)
def test_the_artefact_has_the_tensors_of_its_architecture(different: dict[str, object]) -> None:
    network = drawn(30, **different)
    found = weights(network)
    assert {name: tensor.shape for name, tensor in found.items()} == tensor_shapes(network.architecture)
    assert all(parameter.requires_grad for parameter in network.dense)
    learned = sum(tensor.numel() for tensor in [*network.tables, *network.dense])
    assert learned == sum(tensor.size for tensor in found.values()), "nothing that is served is left out"


def test_tables_without_a_shared_embedding_are_drawn_alike_and_apart() -> None:
    network = drawn(500, item_embedding="none", last_click_query=False)
    rows, scored = network.tables
    assert rows.shape == (500, 48)
    assert scored.shape == (500, 16)
    for table in (rows, scored):
        assert 0.24 < table.abs().max() <= 0.25
    assert not torch.equal(*drawn(500, item_embedding="separate").tables)


def test_settings_become_an_architecture() -> None:
    default = architecture_for(TrainSettings(), 9)
    assert default == Architecture("gru", 128, 9, "cosine", 8.0, 1, "shared", True)
    changed = TrainSettings(
        cell="lstm", layers=2, score="dot", item_embedding="none", last_click_query=False, hidden_size=8
    )
    assert architecture_for(changed, 9) == Architecture("lstm", 8, 9, "dot", 1.0, 2, "none", False)


@pytest.mark.parametrize(
    "bad",
    [
        {"cell": "cnn"},
        {"layers": 0},
        {"layers": 9},
        {"score": "bm25"},
        {"item_embedding": "both"},
        {"item_embedding": "none"},
        {"cell": "lstm", "hidden_size": 4_096, "layers": 2},
    ],
    ids=str,
)
def test_architectures_that_cannot_be_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|at most"):
        TrainSettings(**bad)  # type: ignore[arg-type]


def test_packed_states_equal_one_session_at_a_time_from_zero() -> None:
    network = drawn(12)
    sessions = [[0, 5, 5, 2], [3, 1], [7, 7, 7, 7, 7, 9], [11, 0, 3], [4, 4]]
    batch = pack(cut(sessions_of(*sessions), 20), np.arange(5))
    x = network.embedding[torch.from_numpy(batch.inputs)]
    with torch.no_grad():
        states = hidden_states("gru", network.layers, x, batch.active)
        cell = torch.nn.GRUCell(16, 16)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        for name, tensor in zip(names, network.layers[0], strict=True):
            getattr(cell, name).copy_(tensor)
        longest_first = sorted(sessions, key=len, reverse=True)
        for place, items in enumerate(longest_first):
            state = torch.zeros(1, 16)
            for step, item in enumerate(items[:-1]):
                state = cell(network.embedding[item][None], state)
                packed = states[sum(batch.active[:step]) + place]
                torch.testing.assert_close(packed, state[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kind", ["gru", "lstm", "rnn"])
def test_the_one_call_for_gpus_gives_the_states_and_gradients_of_the_plain_loop(
    kind: Cell, layers: int
) -> None:
    network = drawn(12, cell=kind, layers=layers)
    draws = torch.Generator().manual_seed(1)
    x = torch.randn(9, 16, generator=draws).requires_grad_()
    active = [4, 3, 1, 1]
    towards = torch.randn(9, 16, generator=draws)
    trained = [x, *(tensor for cell in network.layers for tensor in cell if tensor is not None)]
    for tensor in trained:
        if tensor.dim() == 1:  # biases start at zero, where one in the wrong place would not show
            torch.nn.init.normal_(tensor, generator=draws)
    looped = hidden_states(kind, network.layers, x, active)
    at_once = states_at_once(kind, network.layers, x, active)
    torch.testing.assert_close(at_once, looped)
    for there, here in zip(
        torch.autograd.grad((at_once * towards).sum(), trained),
        torch.autograd.grad((looped * towards).sum(), trained),
        strict=True,
    ):
        assert here.any()
        torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)
