"""Scoring a model on the test part of a log, and the baselines beside it: in training and ever after."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.baselines import compare
from training.click_log import LoadedLog
from training.errors import SplitError
from training.evaluate import answerable, model_ranks, rank_sessions
from training.evaluation import HEADLINE, Evaluation, Metrics, evaluation, metrics, verdict
from training.progress import Progress, Report
from training.sessions import UNKNOWN, Split, SplitRule, rows_in, split_log
from worker.core.session_model import SessionModel


class ModelScores(NamedTuple):
    """How a model does on the test part of a log.

    Attributes:
        events_test: clicks of the test part.
        evaluation: the model's.
        baselines: over the targets of `evaluation.overall`; they have learned from the training part.
    """

    events_test: int
    evaluation: Evaluation
    baselines: dict[str, Metrics]


def score_model(model: SessionModel, loaded: LoadedLog, rule: SplitRule, report: Report) -> ModelScores:
    """Score a model on the sessions that `rule` holds out.

    Raises:
        SplitError: a part is empty, or the model knows nothing in the test part.
    """
    split = split_log(loaded.clicks, rule)
    test = split.test.renamed(rows_in(split.log_item_ids, model.items))
    counted = answerable(test)
    if not counted.any():
        raise SplitError(
            f"no test session has two clicks on items that {model.version} knows: is it a model of this shop?"
        )
    found = evaluate_on(model, split, report)
    in_training_rows = split.test.renamed(split.rows)
    baselines = compare(split.train, in_training_rows, len(split.item_ids), counted, report)
    return ModelScores(len(test.items), found, baselines)


def evaluate_on(model: SessionModel, split: Split, report: Report) -> Evaluation:
    """Evaluate a model on the test part of a split, whatever vocabulary it has."""
    test = split.test.renamed(rows_in(split.log_item_ids, model.items))
    ranking = rank_sessions(model, test, lambda done, total: report(Progress("evaluate", done, total)))
    row = rows_in(split.item_ids, model.items)
    both = row != UNKNOWN
    clicks = np.zeros(len(model.items), np.int64)
    clicks[row[both]] = np.bincount(split.train.items, minlength=len(row))[both]
    return evaluation(ranking, test, clicks)


def serving_metrics(model: SessionModel, split: Split, counted: NDArray[np.bool_], report: Report) -> Metrics:
    """Score another model over the same targets, bool over all of the test part; unknown ones it misses."""
    test = split.test.renamed(rows_in(split.log_item_ids, model.items))
    ranks = model_ranks(model, test, lambda done, total: report(Progress("evaluate", done, total)))
    return metrics(ranks[counted])


def headline_fields(found: Evaluation, baselines: Mapping[str, Metrics]) -> dict[str, float]:
    """Recall and MRR at 20, to six digits: of the model, of each baseline with its name before it
    (`vs_knn_recall@20`), and of the model over all targets (`all_recall@20`)."""
    named = {"": found.overall, "all_": found.all_targets}
    named |= {_prefix(name): of_baseline for name, of_baseline in baselines.items()}
    return {
        name: value for start, of_it in named.items() for name, value in score_fields(start, of_it).items()
    }


def full_fields(found: Evaluation, baselines: Mapping[str, Metrics]) -> dict[str, object]:
    """Everything that there is to say, for a line of JSON; floats to six digits."""
    return {
        **headline_fields(found, baselines),
        "targets": found.overall.targets,
        "unknown_share": round(found.unknown_share, 6),
        "verdict": verdict(found.overall, baselines),
        "evaluation": _rounded(msgspec.to_builtins(found)),
        "baselines": _rounded(msgspec.to_builtins(dict(baselines))),
    }


def manifest_scores(found: Evaluation, baselines: Mapping[str, Metrics]) -> dict[str, float]:
    """What a model's manifest says of it: flat, by cutoff for the model alone."""
    overall = found.overall
    by_cutoff = {
        "recall": overall.recall,
        "mrr": overall.mrr,
        "ndcg": overall.ndcg,
        "coverage": found.coverage,
    }
    return {
        **headline_fields(found, baselines),
        **{f"{metric}@{k}": value for metric, by in by_cutoff.items() for k, value in by.items()},
        "targets": float(overall.targets),
        "unknown_share": found.unknown_share,
        "recall_error": found.recall_error,
        "mrr_error": found.mrr_error,
    }


def score_fields(start: str, found: Metrics) -> dict[str, float]:
    """`<start>recall@20` and `<start>mrr@20`, to six digits."""
    return {
        f"{start}recall@{HEADLINE}": round(found.recall[HEADLINE], 6),
        f"{start}mrr@{HEADLINE}": round(found.mrr[HEADLINE], 6),
    }


def _prefix(baseline: str) -> str:
    """How the names of a baseline's fields begin: "VS-kNN" → "vs_knn_"."""
    return baseline.lower().replace("-", "_").replace(" ", "_") + "_"


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return round(value, 6) if isinstance(value, float) else value
