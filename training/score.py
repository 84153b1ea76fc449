"""Scoring a stored model on a log: the same split, targets and baselines as in training."""

from collections.abc import Callable
from dataclasses import dataclass

from training.baselines import markov_ranks, popularity_ranks
from training.click_log import LoadedLog
from training.errors import SplitError
from training.evaluate import Scores, answerable, is_target, model_ranks, scores
from training.sessions import UNKNOWN, SplitRule, rows_in, split_log
from worker.core.session_model import SessionModel


@dataclass(frozen=True)
class ModelScores:
    """How a model does on the test part of a log; the two ways of counting as in `training.train`.

    Attributes:
        events_test: clicks of the test part.
        model, markov, popularity: over the targets that the model knows and that follow a click it knows;
            the baselines have learned from the training part of the log.
        all_targets: the model's, over every later click.
        unknown_share: of those later clicks, the ones on items that the model does not know.
    """

    events_test: int
    model: Scores
    markov: Scores
    popularity: Scores
    all_targets: Scores
    unknown_share: float


def score_model(
    model: SessionModel, loaded: LoadedLog, rule: SplitRule, report: Callable[[int, int], None]
) -> ModelScores:
    """Score a model on the sessions that `rule` holds out.

    Raises:
        SplitError: a part is empty, or the model knows nothing in the test part.
    """
    split = split_log(loaded.clicks, rule)
    test = split.test.renamed(rows_in(split.log_item_ids, model.items))
    headline = answerable(test)
    if not headline.any():
        raise SplitError(
            f"no test session has two clicks on items that {model.version} knows: is it a model of this shop?"
        )
    ranks = model_ranks(model, test, report)
    in_training_rows = split.test.renamed(split.rows)
    items = len(split.item_ids)
    return ModelScores(
        events_test=len(test.items),
        model=scores(ranks[headline]),
        markov=scores(markov_ranks(split.train, in_training_rows, items)[headline]),
        popularity=scores(popularity_ranks(split.train, in_training_rows, items)[headline]),
        all_targets=scores(ranks),
        unknown_share=float((test.items[is_target(test)] == UNKNOWN).mean()),
    )
