"""Whether the model is worth serving, next to what needs no training."""

from training.evaluation import verdict
from training.report.data import ReportData
from training.report.wording import K


def verdict_of(data: ReportData) -> str:
    """The comparison with the baselines in plain words."""
    return verdict(data.evaluation.overall, data.baselines)


def beats_baselines(data: ReportData) -> bool:
    """Whether both recall@20 and MRR@20 are above those of every baseline."""
    own = data.evaluation.overall
    return all(
        own.recall[K] > found.recall[K] and own.mrr[K] > found.mrr[K] for found in data.baselines.values()
    )
