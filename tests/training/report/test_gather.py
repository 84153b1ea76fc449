"""The figures of the log, the examples and what is noted while a model learns, against counting by hand."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.logs import habit_log, random_model, sessions_of
from training.evaluate import answerable, model_ranks
from training.fit import EpochEnd, fit
from training.network import Network
from training.report.data import Bin
from training.report.examples import HIT, is_hit, pick_examples, play
from training.report.gather import EpochRecorder, sample_sessions, setting_lines
from training.report.summary import doubling_bins, half_items_share, length_bins, summarise
from training.sessions import UNKNOWN, TestShare, split_log
from training.settings import TrainSettings
from worker.core.session_model import SessionModel


def test_the_summary_counts_every_click_once() -> None:
    loaded = habit_log()
    split = split_log(loaded.clicks, TestShare(0.2))
    found = summarise(loaded, split)
    assert found.events == len(loaded.clicks) == found.events_train + found.events_test
    assert sum(b.train for b in found.lengths) == found.sessions_train == 400
    assert sum(b.test for b in found.lengths) == found.sessions_test == 100
    assert sum(b.train for b in found.timeline) == found.events_train
    assert sum(b.test for b in found.timeline) == found.events_test
    assert sum(b.train for b in found.item_clicks) == found.items_train
    assert found.learned_until_ms < found.last_ms
    first_test = next(index for index, b in enumerate(found.timeline) if b.test)
    assert all(not b.train for b in found.timeline[first_test + 1 :])  # what is newer is held out


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=40).filter(any))
def test_doubling_bins_hold_what_they_say(support: list[int]) -> None:
    bins = doubling_bins(np.array(support))
    for found in bins:
        low, _, high = found.label.partition("–")
        assert found.train == sum(int(low) <= clicks <= int(high or low) for clicks in support)
    assert sum(b.train for b in bins) == sum(clicks > 0 for clicks in support)


def test_length_bins_put_the_long_ones_together() -> None:
    found = length_bins(np.array([2, 2, 3, 25, 90]), np.array([2, 21]))
    assert found[0] == Bin("2", 2, 1)
    assert found[1] == Bin("3", 1, 0)
    assert found[-1] == Bin(">20", 2, 1)
    assert len(found) == 20
    assert length_bins(np.array([2]), np.array([3])) == [Bin("2", 1, 0), Bin("3", 0, 1)]


def test_half_of_the_clicks() -> None:
    assert half_items_share(np.array([1, 5, 1, 1, 2])) == 1 / 5
    assert half_items_share(np.array([1, 1, 1, 1])) == 2 / 4


def test_examples_tell_what_the_evaluation_finds() -> None:
    model = random_model(40)
    rows = np.arange(40, dtype=np.int32)
    rows[7] = UNKNOWN
    test = sessions_of([7, 3, 9, 7, 9], [1, 2, 3, 4, 5])
    names = [str(item) for item in range(40)]
    ranks = iter(model_ranks(model, test.renamed(rows)).tolist())
    for session in range(2):
        items = test.items[test.starts[session] : test.starts[session + 1]]
        steps = play(model, [names[item] for item in items], rows[items])
        assert [step.clicked for step in steps] + [steps[-1].came] == [names[item] for item in items]
        for step in steps:
            assert (step.rank or 0) == next(ranks)
            assert step.known == (step.clicked != "7")
            assert step.recommended[:1] != [step.came] or step.rank == 1
    first = play(model, ["7", "3", "9"], rows[[7, 3, 9]])
    assert first[0].recommended == []  # nothing known was clicked
    assert len(first[1].recommended) == 5


def test_examples_are_the_same_each_time_and_show_hits_and_misses() -> None:
    rng = np.random.default_rng(5)
    model = random_model(400)
    test = sessions_of(*[rng.integers(0, 400, rng.integers(2, 30)).tolist() for _ in range(200)])
    names, rows = [str(item) for item in range(400)], np.arange(400, dtype=np.int32)
    chosen = pick_examples(model, test, names, rows)
    assert chosen == pick_examples(model, test, names, rows)
    assert len(chosen) == 4
    assert all(3 <= len(steps) <= 8 for steps in chosen)
    assert {is_hit(step) for steps in chosen for step in steps} == {True, False}
    assert all(is_hit(step) == (step.rank is not None and step.rank <= HIT) for s in chosen for step in s)


def test_short_sessions_are_shown_where_there_are_no_others() -> None:
    chosen = pick_examples(
        random_model(5), sessions_of([0, 1], [2, 3]), list("01234"), np.arange(5, dtype=np.int32)
    )
    assert sorted(len(steps) for steps in chosen) == [1, 1]


@given(st.integers(1, 200), st.integers(0, 30))
def test_the_sample_is_bounded_and_spread(targets: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    test = sessions_of(*[rng.integers(-1, 9, rng.integers(2, 9)).tolist() for _ in range(100)])
    sample = sample_sessions(test, targets)
    counted, everything = int(answerable(sample).sum()), int(answerable(test).sum())
    longest = int((test.lengths - 1).max())
    assert counted <= max(2 * targets, 0) + longest
    assert counted >= min(targets, everything) / 2 - longest
    if targets < everything / 4:
        assert sample.ids[-1] > 50 or targets < 4 * longest  # not only the oldest


def test_what_is_noted_does_not_change_what_is_learned() -> None:
    split = split_log(habit_log(120).clicks, TestShare(0.2))
    settings = TrainSettings(hidden_size=8, epochs=3, batch_transitions=64)
    losses: list[tuple[float, ...]] = []

    def as_model(network: Network) -> SessionModel:
        return replace(random_model(len(split.item_ids)), embedding=network.embedding)

    recorder = EpochRecorder(split, as_model)

    def note(at: EpochEnd) -> None:
        losses.append(at.losses)
        recorder(at)

    watched = fit(split.train, len(split.item_ids), settings, lambda _: None, on_epoch=note)
    alone = fit(split.train, len(split.item_ids), settings, lambda _: None)
    assert np.array_equal(watched.embedding.numpy(), alone.embedding.numpy())
    assert [point.epoch for point in recorder.points] == [1, 2, 3]
    assert tuple(point.loss for point in recorder.points) == losses[-1]
    assert all(point.recall is not None for point in recorder.points)
    assert Counter(len(done) for done in losses) == {1: 1, 2: 1, 3: 1}


def test_a_trouble_of_the_report_stops_no_training() -> None:
    split = split_log(habit_log(80).clicks, TestShare(0.2))

    def broken(_: Network) -> SessionModel:
        raise MemoryError

    recorder = EpochRecorder(split, broken)
    fit(
        split.train,
        len(split.item_ids),
        TrainSettings(hidden_size=8, epochs=2),
        lambda _: None,
        on_epoch=recorder,
    )
    assert [point.recall for point in recorder.points] == [None, None]
    assert all(point.loss > 0 for point in recorder.points)


def test_epochs_before_a_resume_have_a_loss() -> None:
    split = split_log(habit_log(80).clicks, TestShare(0.2))
    recorder = EpochRecorder(split, lambda _: random_model(len(split.item_ids)))
    network = fit(split.train, len(split.item_ids), TrainSettings(hidden_size=8, epochs=1), lambda _: None)
    recorder(EpochEnd(3, 4, 1.5, network, 9.0, (3.0, 2.0, 1.5)))
    assert [(point.epoch, point.loss, point.recall is None) for point in recorder.points] == [
        (1, 3.0, True),
        (2, 2.0, True),
        (3, 1.5, False),
    ]
    assert recorder.fit_s == pytest.approx(9.0)


def test_settings_say_where_they_come_from() -> None:
    lines = setting_lines(TrainSettings(threads=3), {"epochs": 7, "threads": 3, "seed": 1})
    assert [(line.name, line.origin) for line in lines] == [
        ("epochs", "log"),
        ("threads", "chosen"),
        ("seed", "default"),
    ]


@pytest.mark.parametrize("odd", [0, 17, 33, 49])
def test_a_single_miss_among_hits_is_shown(odd: int) -> None:
    """Of five items each is among the first twenty; the sixth is unknown to the model."""
    rows = np.array([0, 1, 2, 3, 4, UNKNOWN], np.int32)
    clicks = [[0, 1, 2, 5] if session == odd else [0, 1, 2, 3] for session in range(50)]
    chosen = pick_examples(random_model(5), sessions_of(*clicks), list("012345"), rows)
    assert len(chosen) == 4
    assert [is_hit(step) for steps in chosen for step in steps].count(False) == 1
