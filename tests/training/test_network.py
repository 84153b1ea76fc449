"""The start of training, and the recurrence over packed sessions against a plain loop over each."""

import numpy as np
import torch

from tests.training.logs import sessions_of
from training.batches import cut, pack
from training.network import hidden_states, new_network
from worker.core.step import input_gates


def test_start() -> None:
    network = new_network(500, 16, torch.Generator().manual_seed(0))
    assert 0.24 < network.embedding.abs().max() <= 0.25  # 1/√16
    xavier = (6 / 32) ** 0.5
    for gate in network.cell.w_ih.detach().chunk(3):
        assert 0.95 * xavier < gate.abs().max() <= xavier
    for gate in network.cell.w_hh.detach().chunk(3):
        torch.testing.assert_close(gate @ gate.t(), torch.eye(16), atol=1e-5, rtol=0)
    assert torch.equal(network.query.query_hidden, torch.eye(16))
    assert not network.query.query_item.any()
    assert not network.cell.b_ih.any()
    assert not network.cell.b_hh.any()


def test_packed_states_equal_one_session_at_a_time_from_zero() -> None:
    network = new_network(12, 8, torch.Generator().manual_seed(1))
    sessions = [[0, 5, 5, 2], [3, 1], [7, 7, 7, 7, 7, 9], [11, 0, 3], [4, 4]]
    batch = pack(cut(sessions_of(*sessions), 20), np.arange(5))
    x = network.embedding[torch.from_numpy(batch.inputs)]
    with torch.no_grad():
        states = hidden_states(network.cell, input_gates(network.cell, x), batch.active)
        cell = torch.nn.GRUCell(8, 8)
        for name, tensor in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), network.cell, strict=True):
            getattr(cell, name).copy_(tensor)
        longest_first = sorted(sessions, key=len, reverse=True)
        for place, items in enumerate(longest_first):
            state = torch.zeros(1, 8)
            for step, item in enumerate(items[:-1]):
                state = cell(network.embedding[item][None], state)
                packed = states[sum(batch.active[:step]) + place]
                torch.testing.assert_close(packed, state[0], atol=1e-5, rtol=0)
