"""Warm start: what is kept, what is new, what is replayed."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deploy.cli import run
from schemas.model_artefact import Artefact
from tests.training.logs import NOW_MS, START_MS, habit_log, sessions_of
from training.click_log import ClickLog, ClickLogBuilder, LoadedLog
from training.errors import WarmStartError
from training.fitting import FitOptions
from training.model_store import load_model
from training.progress import silent
from training.sessions import Sessions, TestShare
from training.settings import TrainSettings
from training.train import TrainResult, train
from training.warm_start import (
    TRAINED_UNTIL_MS,
    Manner,
    WarmStartSettings,
    choose_exemplars,
    neighbours,
    warm_network,
    warm_start,
)

SETTINGS = TrainSettings(hidden_size=24, epochs=6, batch_transitions=64, embedding_dropout=0.1)


def until(log: ClickLog, share: float) -> LoadedLog:
    """The first clicks of a log."""
    builder = ClickLogBuilder()
    for click in range(round(share * len(log))):
        builder.add(
            log.session_ids[log.session[click]], log.item_ids[log.item[click]], int(log.timestamp_ms[click])
        )
    return LoadedLog(builder.build(), "file", "older.tsv")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A model of the first two thirds of the habit log."""
    store = tmp_path_factory.mktemp("store")
    return train(until(habit_log().clicks, 0.66), TestShare(0.1), SETTINGS, store, NOW_MS, silent)


def artefact(old: TrainResult) -> Artefact:
    """The model of `old`."""
    return load_model(old.model_folder)[0]


def test_it_goes_on_where_the_old_model_ended(old: TrainResult, tmp_path: Path) -> None:
    said: list[str] = []
    options = FitOptions(start_from=old.model_folder, say=said.append)
    quick = replace(SETTINGS, epochs=2)
    warm = train(habit_log(), TestShare(0.1), quick, tmp_path, NOW_MS, silent, options=options)
    notes = load_model(warm.model_folder)[0].manifest.hyperparameters
    # Of 500 sessions 450 are for training; the old log had about 330 of them and learned nine of ten.
    assert notes["started_from"] == old.model_version
    assert int(notes["new_sessions"]) == pytest.approx(450 - 297, abs=8)
    assert int(notes["exemplar_sessions"]) > 0
    assert "new sessions" in said[0]
    assert warm.evaluation.overall.recall["20"] > 0.8


def test_new_is_what_the_model_has_not_learned_not_what_its_log_did_not_have(old: TrainResult) -> None:
    manifest = artefact(old).manifest
    assert int(manifest.hyperparameters[TRAINED_UNTIL_MS]) < manifest.training_data.last_timestamp_ms


def test_known_rows_are_kept_and_new_ones_lie_among_their_neighbours(old: TrainResult) -> None:
    tensors = artefact(old).tensors
    known = len(tensors["embedding"])
    rows = np.concatenate([np.arange(known), [-1, -1]]).astype(np.int32)[::-1].copy()
    new, stranger = 1, 0
    sessions = sessions_of([5, new, 7], [7, new])
    network = warm_network(tensors, rows, sessions, SETTINGS, shrink=1.0)
    embedding = network.embedding.numpy()
    np.testing.assert_array_equal(embedding[2:], tensors["embedding"][::-1])
    np.testing.assert_array_equal(network.layers[0].w_hh.detach().numpy(), tensors["w_hh"])
    mean = (embedding[5] + 2 * embedding[7]) / 3
    length = np.median(np.linalg.norm(tensors["embedding"], axis=1))
    cosine = mean @ embedding[new] / np.linalg.norm(mean) / np.linalg.norm(embedding[new])
    assert cosine > 0.9
    assert np.linalg.norm(embedding[new]) == pytest.approx(length, rel=0.3)
    assert 0 < np.linalg.norm(embedding[stranger]) < 2
    assert all(parameter.requires_grad for parameter in network.dense)
    half = warm_network(tensors, rows, sessions, SETTINGS, shrink=0.5)
    np.testing.assert_array_equal(half.embedding.numpy(), embedding / 2)
    np.testing.assert_array_equal(half.layers[0].w_hh.detach().numpy(), tensors["w_hh"] / 2)


def test_neighbours_do_not_reach_over_the_end_of_a_session() -> None:
    known = np.array([True, True, False, False])
    new, neighbour = neighbours(sessions_of([0, 2], [1, 3, 2], [2, 0]), known)
    assert sorted(zip(new.tolist(), neighbour.tolist(), strict=True)) == [(2, 0), (2, 0), (3, 1)]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.integers(0, 100), st.integers(0, 9))
def test_exemplars_are_shared_out_by_last_item(labels: list[int], wanted: int, seed: int) -> None:
    sessions = sessions_of(*([9, label] for label in labels))
    candidates = np.arange(len(labels))
    chosen = choose_exemplars(sessions, candidates, wanted, np.random.default_rng(seed))
    assert len(set(chosen.tolist())) == len(chosen) == min(wanted, len(labels))
    for label in range(6):
        share = labels.count(label) * len(chosen) / len(labels)
        assert abs(sum(labels[each] == label for each in chosen) - share) <= 1


def test_the_same_seed_chooses_the_same_exemplars_another_seed_others() -> None:
    sessions = sessions_of(*([0, session % 3] for session in range(200)))

    def chosen(seed: int) -> list[int]:
        found = choose_exemplars(sessions, np.arange(150), 30, np.random.default_rng(seed))
        return sorted(found.tolist())

    assert chosen(1) == chosen(1) != chosen(2)
    assert max(chosen(1)) < 150


def old_and_new(old: TrainResult) -> tuple[Artefact, Sessions, list[str]]:
    """A model and sessions of its items, the last five of which are new."""
    model = artefact(old)
    sessions = sessions_of(*([item, item + 1, item] for item in range(25)))
    learned_ms = int(model.manifest.hyperparameters[TRAINED_UNTIL_MS])
    return model, replace(sessions, last_ms=learned_ms - 19_000 + 1_000 * np.arange(25)), model.items


def test_the_bound_on_exemplars_holds_and_time_order_stays(old: TrainResult) -> None:
    model, sessions, item_ids = old_and_new(old)
    four_times = Manner(shrink=0.5, rate_share=1.0, new_repeats=4)
    for warm, exemplars, epochs, repeats in (
        (WarmStartSettings(work_share=0.01), 5, 1, 3),  # as many as there are new ones
        (WarmStartSettings(work_share=0.2), 15, 1, 3),  # 0.2 · 6 epochs · 25 sessions − 3 · 5
        (WarmStartSettings(work_share=0.2, manner=four_times), 10, 1, 4),
        (WarmStartSettings(work_share=0.25), 14, 2, 1),  # 0.25 · 6 · 25 / 2 passes − 5
        (WarmStartSettings(work_share=1.0), 20, 6, 1),
        (WarmStartSettings(work_share=1.0, max_exemplars=7), 7, 6, 1),
        (WarmStartSettings(work_share=0.1, max_exemplars=0), 0, 1, 3),
    ):
        found = warm_start(model, sessions, item_ids, SETTINGS, warm)
        assert (found.new_sessions, found.exemplars) == (5, exemplars)
        assert len(found.sessions) == repeats * 5 + exemplars
        assert (np.diff(found.sessions.last_ms) >= 0).all()
        _, times = np.unique(found.sessions.ids, return_counts=True)
        assert times.tolist() == [1] * exemplars + [repeats] * 5
        assert (found.settings.epochs, found.settings.seed) == (epochs, SETTINGS.seed)


def test_one_pass_keeps_the_old_weights_and_several_shrink_them(old: TrainResult) -> None:
    """One pass is too short to bring back what was shrunk; and a full rate would shake it."""
    model, sessions, item_ids = old_and_new(old)
    before = model.tensors["embedding"]
    for work_share, shrink, rate_share in ((0.2, 1.0, 0.25), (0.25, 0.5, 1.0)):
        begin = warm_start(model, sessions, item_ids, SETTINGS, WarmStartSettings(work_share=work_share))
        assert np.array_equal(begin.network.embedding.detach().numpy(), before * np.float32(shrink))
        assert begin.settings.learning_rate == SETTINGS.learning_rate * rate_share


def test_what_is_new_can_be_said(old: TrainResult) -> None:
    model, sessions, item_ids = old_and_new(old)
    warm = WarmStartSettings(since_ms=int(sessions.last_ms[9]))
    assert warm_start(model, sessions, item_ids, SETTINGS, warm).new_sessions == 15
    with pytest.raises(WarmStartError, match="nothing is new"):
        warm_start(model, sessions, item_ids, SETTINGS, WarmStartSettings(since_ms=int(sessions.last_ms[-1])))


def test_what_does_not_fit_is_refused(old: TrainResult) -> None:
    model, sessions, item_ids = old_and_new(old)
    other = replace(SETTINGS, hidden_size=25, temperature=9.0)
    with pytest.raises(WarmStartError, match="hidden_size 24, not 25 and temperature 8"):
        warm_start(model, sessions, item_ids, other, WarmStartSettings())
    strangers = [f"x{item}" for item in item_ids]
    with pytest.raises(WarmStartError, match="knows none of these items"):
        warm_start(model, sessions, strangers, SETTINGS, WarmStartSettings())
    part = {**model.manifest.hyperparameters, "interrupted": True}
    manifest = msgspec.structs.replace(model.manifest, hyperparameters=part)
    interrupted = msgspec.structs.replace(model, manifest=manifest)
    with pytest.raises(
        WarmStartError, match=r"was interrupted.*Let --resume end it, or say with --new-since"
    ):
        warm_start(interrupted, sessions, item_ids, SETTINGS, WarmStartSettings())
    since = WarmStartSettings(since_ms=int(sessions.last_ms[9]))
    assert warm_start(interrupted, sessions, item_ids, SETTINGS, since).new_sessions == 15
    with pytest.raises(ValueError, match="work_share must be"):
        WarmStartSettings(work_share=1.5)
    with pytest.raises(ValueError, match="max_exemplars must be"):
        WarmStartSettings(max_exemplars=-1)
    for bad in ((0.5, 0.0, 1), (1.5, 1.0, 1), (0.5, 1.0, 0)):
        with pytest.raises(ValueError, match="must be"):
            Manner(*bad)


def test_the_old_network_is_left_as_it_is(old: TrainResult) -> None:
    model, sessions, item_ids = old_and_new(old)
    before = {name: tensor.copy() for name, tensor in model.tensors.items()}
    begin = warm_start(model, sessions, item_ids, SETTINGS, WarmStartSettings())
    with torch.no_grad():
        begin.network.embedding.zero_()
    for name, tensor in model.tensors.items():
        np.testing.assert_array_equal(tensor, before[name])


def test_the_command(old: TrainResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "clicks.tsv"
    clicks = habit_log().clicks
    rows = [
        f"{clicks.session_ids[session]}\t{clicks.item_ids[item]}\t{at}\n"
        for session, item, at in zip(clicks.session, clicks.item, clicks.timestamp_ms, strict=True)
    ]
    log.write_text("session_id\titem_id\ttimestamp\n" + "".join(rows))
    train_it = ["train", str(log), "--models", str(tmp_path / "models"), "--epochs", "1"]
    go_on = [*train_it, "--from", str(old.model_folder)]
    assert run(go_on, debug=False) == 1
    assert "hidden_size 24, not 128" in " ".join(capsys.readouterr().err.split())
    assert run([*go_on, "--hidden-size", "24", "--new-since", str(START_MS)], debug=False) == 0
    assert "450 new sessions and 0 older ones" in " ".join(capsys.readouterr().err.split())
    assert run([*train_it, "--new-since", "2026-01-01"], debug=False) == 2
