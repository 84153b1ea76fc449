"""The training loop: what it computes, that it can be repeated, that it learns."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.logs import habit_log, sessions_of
from training.batches import batches, cut, pack
from training.draws import draw
from training.errors import DeviceError, DivergedError, StopTraining
from training.fit import EpochEnd, fit, learning_rate, sampler_for, torch_threads
from training.fused import MAX_TEMPERATURE
from training.meter import FitProgress
from training.network import new_network, weights
from training.plain import batch_loss, drop, lookups
from training.sampling import candidate_sampler
from training.sessions import Sessions, TestShare, split_log
from training.settings import (
    OptimiserName,
    Precision,
    TrainSettings,
    architecture_for,
    batch_transitions_for,
    embedding_dropout_for,
    epochs_for,
    temperature_for,
)

EIGHT_WIDE = architecture_for(TrainSettings(hidden_size=8), 12)
QUICK = TrainSettings(hidden_size=12, epochs=2, batch_transitions=64, embedding_dropout=0.2)


def quiet(_: FitProgress) -> None:
    """Show nothing."""


def train_part() -> tuple[Sessions, int]:
    """Sessions of the habit log, and the size of its vocabulary."""
    split = split_log(habit_log(200).clicks, TestShare())
    return split.train, len(split.item_ids)


def as_bytes(settings: TrainSettings, sessions: Sessions | None = None, items: int = 0) -> bytes:
    """The weights after a training, a short one on the habit log unless told otherwise, as bytes."""
    sessions, items = train_part() if sessions is None else (sessions, items)
    network = fit(sessions, items, settings, quiet)
    return b"".join(array.tobytes() for _, array in sorted(weights(network).items()))


@pytest.mark.parametrize("full_softmax_items", [6_000, 10])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_seed_same_bytes_other_seed_other_bytes(full_softmax_items: int, precision: Precision) -> None:
    settings = replace(QUICK, full_softmax_items=full_softmax_items, negatives=20, precision=precision)
    assert as_bytes(settings) == as_bytes(settings) == as_bytes(replace(settings, threads=1))
    assert as_bytes(settings) != as_bytes(replace(settings, seed=2))


def test_the_plain_step_repeats_itself_too() -> None:
    settings = replace(QUICK, temperature=MAX_TEMPERATURE + 1, threads=1)  # beyond the fused step
    assert as_bytes(settings) == as_bytes(settings)
    assert as_bytes(settings) != as_bytes(replace(settings, seed=2))


@pytest.mark.parametrize(
    "change",
    [{"cell": "lstm"}, {"loss": "bpr_max"}, {"hidden_dropout": 0.2}, {"batching": "session_parallel"}],
    ids=lambda change: "-".join(map(str, *change.items())),
)
def test_two_threads_of_torch_give_the_same_bytes_each_time(change: dict[str, Any]) -> None:
    """At the usual width and batch, where torch deals its work to both: no sum may depend on who is first."""
    usual = TrainSettings(epochs=2, batch_transitions=512, parallel_sessions=512, threads=2)
    settings = replace(usual, full_softmax_items=10, negatives=40, **change)
    split = split_log(habit_log(1_000).clicks, TestShare())
    found = {as_bytes(settings, split.train, len(split.item_ids)) for _ in range(4)}
    assert len(found) == 1


def test_threads_of_torch_do_not_multiply_those_of_the_crew() -> None:
    found = []
    fit(*train_part(), replace(QUICK, threads=2), lambda _: found.append(torch.get_num_threads()))
    with ThreadPoolExecutor(1) as pool:
        fit(
            *train_part(),
            replace(QUICK, threads=2),
            lambda _: found.append(pool.submit(torch.get_num_threads).result()),
        )
    assert set(found) == {1}


@pytest.mark.parametrize("optimiser", ["adam", "adagrad"])
def test_both_optimisers_learn(optimiser: OptimiserName) -> None:
    rate = {"adam": 0.01, "adagrad": 0.1}[optimiser]
    settings = replace(QUICK, epochs=6, optimiser=optimiser, learning_rate=rate, momentum=0.1)
    losses = []
    fit(*train_part(), settings, lambda at: losses.append(at.loss))
    assert losses[-1] < 0.8 * losses[0]


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
    network = new_network(EIGHT_WIDE, torch.Generator().manual_seed(1))
    noise = torch.Generator()

    def loss(chosen: list[int]) -> float:
        given = draw(pack(pieces, np.array(chosen)), 12, None, np.random.default_rng(0))
        return batch_loss(network, lookups(network, given), given, TrainSettings(), 0.0, noise)[0].item()

    transitions = pieces.length.tolist()
    alone = sum(loss([i]) * transitions[i] for i in range(4)) / sum(transitions)
    assert loss([0, 1, 2, 3]) == pytest.approx(alone, rel=1e-5)


def test_sampling_the_whole_catalogue_gives_the_full_loss_and_gradient() -> None:
    pieces = cut(sessions_of([0, 5, 5, 2], [3, 1], [7, 7, 9]), 20)
    network = new_network(EIGHT_WIDE, torch.Generator().manual_seed(1))
    batch, settings, noise = pack(pieces, np.arange(3)), TrainSettings(), torch.Generator()
    # So many draws that each of the twelve items is drawn for certain, hence with a log chance of zero.
    ones = np.ones(12, np.int64)
    sampler = candidate_sampler(ones, ones, 0.25, draws=2_000, batch_transitions=6)
    losses, gradients = [], []
    for given in (draw(batch, 12, sampling, np.random.default_rng(0)) for sampling in (None, sampler)):
        assert given.candidates == 12
        looked_up = lookups(network, given)
        losses.append(batch_loss(network, looked_up, given, settings, 0.0, noise)[0])
        gradients.append(torch.autograd.grad(losses[-1], looked_up.values)[0])
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_the_log_chance_that_comes_off_is_how_often_batches_have_an_item() -> None:
    """Half of the clicks here are on item 0, which every session begins with and none goes on to."""
    rng = np.random.default_rng(3)
    sessions = sessions_of(*([0, int(1 + 30 * rng.random() ** 3)] for _ in range(640)))
    settings = TrainSettings(full_softmax_items=1, batch_transitions=16, negatives=3, negative_alpha=0.5)
    sampler = sampler_for(sessions, 31, settings)
    assert sampler is not None
    pieces, seen, rounds = cut(sessions, 20), np.zeros(31), 0
    for _ in range(100):
        for batch in batches(pieces, 16, rng):
            seen[sampler.draw(batch.targets, rng)] += 1
            rounds += 1
    np.testing.assert_allclose(seen / rounds, np.exp(sampler.log_chance), atol=0.03)


def test_only_touched_rows_move() -> None:
    sessions = sessions_of([0, 1, 2], [1, 2, 0])
    settings = replace(QUICK, full_softmax_items=1, negatives=1, negative_alpha=0.0, epochs=1)
    start = new_network(
        architecture_for(settings, 5_000), torch.Generator().manual_seed(settings.seed)
    ).embedding
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told() -> None:
    with pytest.raises(DeviceError, match="--device cpu"):
        fit(*train_part(), replace(QUICK, device="cuda"), quiet)


@pytest.mark.parametrize(("temperature", "rate"), [(1e38, 0.01), (11.0, 1e30)], ids=["plain", "fused"])
def test_divergence_is_reported(temperature: float, rate: float) -> None:
    with pytest.raises(DivergedError, match="lower the learning rate"):
        fit(*train_part(), replace(QUICK, temperature=temperature, learning_rate=rate), quiet)


def test_a_loss_that_explodes_but_stays_a_number_is_reported() -> None:
    sessions, items = train_part()
    dot = replace(QUICK, score="dot", epochs=6)  # nothing bounds such scores
    with pytest.raises(DivergedError, match=r"the loss is \d.* it began with \d"):
        fit(sessions, items, replace(dot, learning_rate=100.0), quiet)


@pytest.mark.parametrize("stopped", [False, True])
def test_weights_that_the_last_step_ruins_are_no_model(stopped: bool) -> None:
    """No loss is taken after it, and there are no checkpoints that would see it."""
    sessions, items = train_part()

    def look(_: FitProgress) -> None:
        if stopped:
            raise StopTraining

    once = replace(QUICK, epochs=1, batch_transitions=10_000, learning_rate=1e39)
    with pytest.raises(DivergedError, match="beyond ±1,000,000: lower the learning rate"):
        fit(sessions, items, once, look)


def test_a_start_is_gone_on_from_and_left_as_it_is() -> None:
    sessions, items = train_part()
    good = fit(sessions, items, replace(QUICK, epochs=6), quiet)
    before = {name: tensor.copy() for name, tensor in weights(good).items()}
    losses: list[float] = []
    more = fit(sessions, items, QUICK, lambda at: losses.append(at.loss), start=good)
    assert losses[0] < 0.6 * math.log(items)
    for name, tensor in weights(good).items():
        np.testing.assert_array_equal(tensor, before[name])
        assert not np.array_equal(weights(more)[name], tensor)


def test_a_callback_may_end_it_early() -> None:
    sessions, items = train_part()
    ends: list[EpochEnd] = []

    def stop_after_two(end: EpochEnd) -> None:
        ends.append(end)
        if end.epoch == 2:
            raise StopTraining

    long = replace(QUICK, epochs=50)
    ended = fit(sessions, items, long, quiet, on_epoch=stop_after_two)
    assert [(end.epoch, end.epochs) for end in ends] == [(1, 50), (2, 50)]
    assert ends[1].losses == (ends[0].loss, ends[1].loss)
    assert ended is ends[1].network


def test_what_follows_from_the_log() -> None:
    default = TrainSettings()
    found = [temperature_for(default, items) for items in (1, 2_933, 17_376, 43_097, 10**6)]
    assert found == [8.0, 10.0, 12.2, 13.3, 16.0]
    assert temperature_for(TrainSettings(temperature=9.5), 1) == 9.5
    few = [temperature_for(default, 43_097, transitions) for transitions in (100, 20_000, 65_000, 10**6)]
    assert few == [8.0, 9.2, 10.4, 13.1]
    assert temperature_for(default, 2_933, 80_000) == 10.0, "there are clicks enough"
    assert [epochs_for(default, n) for n in (1, 52_484, 369_859, 10**7)] == [10, 10, 5, 3]
    sizes = (2, 199_999, 200_000, 399_999, 400_000, 10**9)
    found_sizes = [batch_transitions_for(default, n) for n in sizes]
    assert found_sizes == [512, 512, 1_024, 1_024, 2_048, 2_048]
    assert [embedding_dropout_for(default, n) for n in (199_999, 200_000)] == [0.4, 0.25]
    told = TrainSettings(epochs=7, batch_transitions=9, embedding_dropout=0.0)
    assert (epochs_for(told, 1), batch_transitions_for(told, 1), embedding_dropout_for(told, 1)) == (
        7,
        9,
        0.0,
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"precision": "float16"},
        {"optimiser": "sgd"},
        {"hidden_size": 0},
        {"epochs": 0},
        {"embedding_dropout": 1.0},
        {"seed": -1},
        {"learning_rate": -1.0},
    ],
)
def test_settings_that_cannot_work_are_refused(bad: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TrainSettings(**bad)  # type: ignore[arg-type]
