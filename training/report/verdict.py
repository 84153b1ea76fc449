"""Whether the model is worth serving, next to what needs no training."""

from training.report.data import ReportData
from training.report.standin import verdict
from training.report.wording import K, best_baseline


def verdict_of(data: ReportData) -> str:
    """The comparison with the baselines in plain words."""
    return verdict(data.evaluation.overall, data.baselines)


def beats_baselines(data: ReportData) -> bool:
    """Whether recall@20 is above that of every baseline."""
    best = best_baseline(data.baselines)
    return best is None or data.evaluation.overall.recall[K] > data.baselines[best].recall[K]
