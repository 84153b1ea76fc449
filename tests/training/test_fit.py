"""The training loop: what it computes, that it can be repeated, that it learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.logs import habit_log, sessions_of
from training.batches import cut, pack
from training.errors import DivergedError
from training.fit import FitProgress, batch_loss, drop, fit, learning_rate, torch_threads, touched_rows
from training.network import new_network, weights
from training.sampling import candidate_sampler
from training.sessions import Sessions, TestShare, split_log
from training.settings import (
    TrainSettings,
    batch_transitions_for,
    embedding_dropout_for,
    epochs_for,
)

QUICK = TrainSettings(hidden_size=12, epochs=2, batch_transitions=64, embedding_dropout=0.2)


def quiet(_: FitProgress) -> None:
    """Show nothing."""


def train_part() -> tuple[Sessions, int]:
    """Sessions of the habit log, and the size of its vocabulary."""
    split = split_log(habit_log(200).clicks, TestShare())
    return split.train, len(split.item_ids)


def as_bytes(settings: TrainSettings) -> bytes:
    """The weights after a short training, as bytes."""
    return b"".join(
        array.tobytes() for _, array in sorted(weights(fit(*train_part(), settings, quiet)).items())
    )


@pytest.mark.parametrize("full_softmax_items", [6_000, 10])
def test_same_seed_same_bytes_other_seed_other_bytes(full_softmax_items: int) -> None:
    settings = replace(QUICK, full_softmax_items=full_softmax_items, negatives=20)
    assert as_bytes(settings) == as_bytes(settings)
    assert as_bytes(settings) != as_bytes(replace(settings, seed=2))


def test_training_leaves_torch_as_it_was() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    fit(*train_part(), QUICK, quiet)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(RuntimeError), torch_threads(1):
        raise RuntimeError
    assert torch.get_num_threads() == threads


def test_loss_of_a_batch_is_the_mean_of_its_sessions_alone() -> None:
    """Packing must not let one session touch another's loss: the padding bug, were there padding."""
    pieces = cut(sessions_of([0, 5, 5, 2], [3, 1], [7, 7, 7, 7, 7, 9], [11, 0, 3]), 20)
    network = new_network(12, 8, torch.Generator().manual_seed(1))
    noise = torch.Generator()

    def loss(chosen: list[int]) -> float:
        batch = pack(pieces, np.array(chosen))
        args = (network, network.embedding, batch, None, None, None, TrainSettings(), 0.0, noise)
        return batch_loss(*args)[0].item()

    transitions = pieces.length.tolist()
    alone = sum(loss([i]) * transitions[i] for i in range(4)) / sum(transitions)
    assert loss([0, 1, 2, 3]) == pytest.approx(alone, rel=1e-5)


def test_sampling_the_whole_catalogue_gives_the_full_loss_and_gradient() -> None:
    pieces = cut(sessions_of([0, 5, 5, 2], [3, 1], [7, 7, 9]), 20)
    network = new_network(12, 8, torch.Generator().manual_seed(1))
    batch, settings, noise = pack(pieces, np.arange(3)), TrainSettings(), torch.Generator()
    # So many draws that each of the twelve items is drawn for certain, hence with a log chance of zero.
    sampler = candidate_sampler(np.ones(12, np.int64), 0.25, draws=2_000, batch_transitions=6)
    touched, candidates = touched_rows(batch, sampler, np.random.default_rng(0))
    assert touched is not None
    whole = network.embedding.clone().requires_grad_()
    full, _ = batch_loss(network, whole, batch, None, None, None, settings, 0.0, noise)
    part = network.embedding[torch.from_numpy(touched)].requires_grad_()
    sampled, _ = batch_loss(network, part, batch, touched, candidates, sampler, settings, 0.0, noise)
    torch.testing.assert_close(sampled, full)
    torch.testing.assert_close(torch.autograd.grad(sampled, part)[0], torch.autograd.grad(full, whole)[0])


def test_only_touched_rows_move() -> None:
    sessions = sessions_of([0, 1, 2], [1, 2, 0])
    settings = replace(QUICK, full_softmax_items=1, negatives=1, negative_alpha=0.0, epochs=1)
    start = new_network(5_000, 12, torch.Generator().manual_seed(settings.seed)).embedding
    end = fit(sessions, 5_000, settings, quiet).embedding
    moved = (start != end).any(1)
    assert moved[:3].all()
    assert moved.sum() <= 4


def test_dropout_drops_this_share_and_keeps_the_mean() -> None:
    x = torch.ones(400, 500)
    dropped = drop(x, 0.4, torch.Generator().manual_seed(0))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.4, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert drop(x, 0.0, torch.Generator()) is x


def test_learning_rate_warms_up_and_falls_to_two_percent() -> None:
    settings = TrainSettings()
    rates = [learning_rate(settings, step / 1_000) for step in range(1_000)]
    assert max(rates) == pytest.approx(0.01)
    assert rates.index(max(rates)) == 20
    assert rates[10] == pytest.approx(0.005)
    assert rates[510] == pytest.approx(0.01 * 0.51)
    assert rates[-1] == pytest.approx(0.0002, rel=0.01)
    assert min(rates) > 0


def test_progress_ends_at_the_total() -> None:
    reports: list[FitProgress] = []
    sessions, items = train_part()
    fit(sessions, items, QUICK, reports.append)
    assert reports[-1].events == reports[-1].events_total == 2 * sessions.transitions
    assert reports[-1].epoch == 2
    assert reports[-1].loss < math.log(items)


def test_divergence_is_reported() -> None:
    with pytest.raises(DivergedError, match="lower the learning rate"):
        fit(*train_part(), replace(QUICK, temperature=1e38), quiet)


def test_what_follows_from_the_log() -> None:
    default = TrainSettings()
    assert [epochs_for(default, n) for n in (1, 52_484, 369_859, 10**7)] == [10, 10, 5, 3]
    assert [batch_transitions_for(default, n) for n in (199_999, 200_000)] == [512, 1_024]
    assert [embedding_dropout_for(default, n) for n in (199_999, 200_000)] == [0.4, 0.25]
    told = TrainSettings(epochs=7, batch_transitions=9, embedding_dropout=0.0)
    assert (epochs_for(told, 1), batch_transitions_for(told, 1), embedding_dropout_for(told, 1)) == (
        7,
        9,
        0.0,
    )


@pytest.mark.parametrize(
    "bad",
    [{"hidden_size": 0}, {"epochs": 0}, {"embedding_dropout": 1.0}, {"seed": -1}, {"learning_rate": -1.0}],
)
def test_settings_that_cannot_work_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TrainSettings(**bad)  # type: ignore[arg-type]
