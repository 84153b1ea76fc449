"""Every architecture is trained, stored, loaded and served as the same function."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from schemas.model_manifest import ItemEmbedding
from tests.core.driving import START_MS, new_run
from tests.core.reference import Click, Limits
from tests.training.logs import NOW_MS, habit_log, sessions_of
from training.batches import cut, pack
from training.draws import draw
from training.fit import fit
from training.meter import FitProgress
from training.model_store import load_model
from training.network import Network, hidden_states, new_network, weights
from training.plain import batch_loss, drop, lookups
from training.progress import Progress
from training.sampling import candidate_sampler
from training.sessions import TestShare
from training.settings import Batching, TrainSettings, architecture_for
from training.train import train
from worker.core.step import item_vectors, session_query

QUICK = TrainSettings(hidden_size=16, epochs=4, batch_transitions=64, embedding_dropout=0.1, threads=1)
ARCHITECTURES = {
    "lstm": replace(QUICK, cell="lstm"),
    "rnn": replace(QUICK, cell="rnn"),
    "two-layers": replace(QUICK, layers=2),
    "separate": replace(QUICK, item_embedding="separate"),
    "one-hot": replace(QUICK, item_embedding="none", last_click_query=False, embedding_dropout=0.0),
    "dot": replace(QUICK, score="dot", last_click_query=False),
    "everything": replace(
        QUICK, cell="lstm", layers=2, item_embedding="none", last_click_query=False, score="dot"
    ),
}
every_architecture = pytest.mark.parametrize(
    "settings", list(ARCHITECTURES.values()), ids=list(ARCHITECTURES)
)


def silent(_: Progress | FitProgress) -> None:
    """Show nothing."""


def drawn(settings: TrainSettings, items: int) -> Network:
    return new_network(architecture_for(settings, items), torch.Generator().manual_seed(1))


@every_architecture
def test_what_is_trained_is_what_is_served(settings: TrainSettings, tmp_path: Path) -> None:
    """Through artefact, model store and the worker's table; and it has learned what the log is made of."""
    sampled = replace(settings, full_softmax_items=10, negatives=40)
    result = train(habit_log(300), TestShare(), sampled, tmp_path, NOW_MS, silent)
    assert result.evaluation.overall.recall["20"] > result.baselines["popularity"].recall["20"] + 0.1
    artefact, model = load_model(result.model_folder)
    assert artefact.manifest.architecture == architecture_for(sampled, len(model.items))
    assert artefact.manifest.format_version == 2

    run = new_run(Limits(max_items=100, top_k=len(model.items)))
    run.adopt(model)
    clicked = [model.items[row] for row in (3, 1, 4, 1, 5)]
    answer = run.feed([Click("s", item, START_MS) for item in clicked])[-1]
    served = dict(zip(answer.items, answer.scores.tolist(), strict=True))
    tensors = {name: torch.from_numpy(array) for name, array in artefact.tensors.items()}
    x = tensors["embedding"][[3, 1, 4, 1, 5]]
    h = hidden_states(model.cell, model.layers, x, [1] * 5)[-1:]
    query = session_query(model.query, h, x[-1:], sampled.score)
    scored = item_vectors(tensors.get("output_embedding", tensors["embedding"]), sampled.score)
    expected = (query @ scored.t())[0] * artefact.manifest.architecture.temperature
    assert [served[item] for item in model.items] == pytest.approx(expected.tolist(), abs=1e-4)


@every_architecture
def test_sampling_the_whole_catalogue_gives_the_full_loss_and_gradient(settings: TrainSettings) -> None:
    pieces = cut(sessions_of([0, 5, 5, 2], [3, 1], [7, 7, 9]), 20)
    network, noise = drawn(settings, 12), torch.Generator()
    batch = pack(pieces, np.arange(3))

    def loss_and_gradients(draws: int) -> tuple[Tensor, list[Tensor]]:
        sampler = None
        if draws:
            ones = np.ones(12, np.int64)
            sampler = candidate_sampler(ones, ones, 0.25, draws, batch_transitions=6)
        given = draw(batch, 12, sampler, np.random.default_rng(0))
        looked_up = lookups(network, given)
        loss, _ = batch_loss(network, looked_up, given, settings, 0.0, noise)
        found = list(torch.autograd.grad(loss, [*looked_up.values, *network.dense]))
        for at, (table, of) in enumerate(zip(network.tables, looked_up.rows, strict=True)):
            if of is not None:
                found[at] = torch.zeros_like(table).index_copy(0, of, found[at])
        return loss, found

    full, full_gradients = loss_and_gradients(0)
    sampled, sampled_gradients = loss_and_gradients(2_000)
    torch.testing.assert_close(sampled, full)
    for one, other in zip(sampled_gradients, full_gradients, strict=True):
        torch.testing.assert_close(one, other)
        assert one.any(), "everything that is learned has a gradient"


@pytest.mark.parametrize("item_embedding", ["separate", "none"])
def test_only_touched_rows_of_either_table_move(item_embedding: ItemEmbedding) -> None:
    """Of the first those that were clicked before another, of the second those that were scored."""
    settings = replace(
        QUICK, full_softmax_items=1, negatives=1, negative_alpha=0.0, epochs=1, last_click_query=False
    )
    settings = replace(settings, item_embedding=item_embedding)
    noise = torch.Generator().manual_seed(settings.seed)
    start = new_network(architecture_for(settings, 5_000), noise)
    sessions = sessions_of([0, 1, 2], [1, 0, 2])
    batch = pack(cut(sessions, 20), np.arange(2))
    clicked = lookups(start, draw(batch, 5_000, None, np.random.default_rng(0))).rows[0]
    assert clicked is not None
    assert clicked.tolist() == [0, 1], "the optimiser sees no other rows"
    end = fit(sessions, 5_000, settings, silent)
    moved, scored = ((before != after).any(1) for before, after in zip(start.tables, end.tables, strict=True))
    assert moved.nonzero().flatten().tolist() == [0, 1]
    assert scored[:3].all()
    assert scored.sum() <= 4


@pytest.mark.parametrize("batching", ["sessions", "session_parallel"])
def test_same_seed_same_bytes_whatever_the_architecture(batching: Batching) -> None:
    settings = replace(ARCHITECTURES["everything"], epochs=2, full_softmax_items=1, negatives=5)
    settings = replace(settings, batching=batching, parallel_sessions=4)
    sessions = sessions_of(*([item, (item + 1) % 9, (item + 2) % 9] for item in range(9)))
    one, other = (weights(fit(sessions, 9, settings, silent)) for _ in range(2))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_dropout_of_a_one_hot_input_drops_the_click_or_keeps_it_whole() -> None:
    dropped = drop(torch.ones(20_000, 6), 0.25, torch.Generator().manual_seed(0), whole_rows=True)
    assert torch.equal(dropped, dropped[:, :1].expand(-1, 6))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.max().item() == pytest.approx(1 / 0.75)
