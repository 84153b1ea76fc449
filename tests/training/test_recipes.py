"""Every loss and both ways to batch learn what there is to learn, and beat popularity."""

from pathlib import Path

import pytest

from tests.training.logs import NOW_MS, habit_log
from training.progress import silent
from training.sessions import TestShare
from training.settings import LossName, TrainSettings
from training.train import train


@pytest.mark.parametrize("full_softmax_items", [6_000, 20])
@pytest.mark.parametrize("loss", ["cross_entropy", "top1", "bpr", "top1_max", "bpr_max"])
def test_every_loss_learns_the_habit(loss: LossName, full_softmax_items: int, tmp_path: Path) -> None:
    settings = TrainSettings(
        hidden_size=24,
        threads=1,
        epochs=6,
        batch_transitions=64,
        embedding_dropout=0.1,
        loss=loss,
        full_softmax_items=full_softmax_items,
        negatives=30,
    )
    result = train(habit_log(), TestShare(0.2), settings, tmp_path, NOW_MS, silent)
    assert result.baselines["popularity"].recall["20"] < 0.5
    assert result.evaluation.overall.recall["20"] > 0.75  # four of five clicks follow the habit


def test_session_parallel_batches_learn_the_habit(tmp_path: Path) -> None:
    settings = TrainSettings(
        hidden_size=24,
        threads=1,
        epochs=6,
        batching="session_parallel",
        parallel_sessions=32,
        embedding_dropout=0.1,
    )
    result = train(habit_log(), TestShare(0.2), settings, tmp_path, NOW_MS, silent)
    assert result.evaluation.overall.recall["20"] > 0.75
    assert result.evaluation.overall.mrr["20"] > 2 * result.baselines["popularity"].mrr["20"]


@pytest.mark.parametrize(
    "bad",
    [
        {"loss": "hinge"},
        {"batching": "slots"},
        {"bpreg": -0.1},
        {"bpreg": float("nan")},
        {"parallel_sessions": 0},
        {"hidden_dropout": 1.0},
    ],
)
def test_settings_that_cannot_work_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TrainSettings(**bad)  # type: ignore[arg-type]
