"""The gate: whether a freshly trained model may take over. Pure.

Both models are scored on the same newest slice of clicks. The rule:

1. With no model serving, the candidate must beat plain popularity in recall@20.
2. Else it must not be worse than the serving model in recall@20, give or take the tolerance (default 0).
3. Where recall@20 is a tie (it lies below by no more than the tolerance, or is equal), MRR@20 must not be
   worse either, by the same tolerance.

Not worse rather than better: the candidate has seen newer clicks and newer items, which is worth having at
equal scores. Recall comes first because it says whether the next item was shown at all, MRR how far up.
A score that is no number between 0 and 1 never passes.
"""

import math

import msgspec


class GateScores(msgspec.Struct, frozen=True):
    """Full-ranking metrics of one model on the slice, each within [0, 1]."""

    recall: float
    mrr: float


class GateSettings(msgspec.Struct, frozen=True):
    """How strict the gate is.

    Attributes:
        tolerance: by how much, as an absolute difference, a candidate may fall short; within [0, 1).
            On a slice of n clicks the standard error of recall is about sqrt(r(1-r)/n).
    """

    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.tolerance < 1.0:
            raise ValueError(f"the gate's tolerance must be within [0, 1), not {self.tolerance!r}")


class Verdict(msgspec.Struct, frozen=True):
    """The decision, and the sentence that goes into log and status."""

    accepted: bool
    reason: str


def decide(
    candidate: GateScores, serving: GateScores | None, popularity_recall: float, settings: GateSettings
) -> Verdict:
    """Decide by the rule in the module docstring.

    Args:
        candidate: scores of the new model.
        serving: scores of the serving model on the same slice; None where no model is serving.
        popularity_recall: recall@20 of plain popularity on the slice; looked at only for a first model.
        settings: the tolerance.
    """
    looked_at = {"candidate recall@20": candidate.recall, "candidate mrr@20": candidate.mrr}
    if serving is None:
        looked_at["popularity recall@20"] = popularity_recall
    else:
        looked_at |= {"serving recall@20": serving.recall, "serving mrr@20": serving.mrr}
    for name, score in looked_at.items():
        if not (math.isfinite(score) and 0.0 <= score <= 1.0):
            return Verdict(False, f"{name} is {score!r}, which is no score")
    if serving is None:
        return _against_popularity(candidate, popularity_recall)
    return _against_serving(candidate, serving, settings.tolerance)


def _against_popularity(candidate: GateScores, popularity_recall: float) -> Verdict:
    figures = f"{candidate.recall:.4f} against {popularity_recall:.4f}"
    if candidate.recall > popularity_recall:
        return Verdict(True, f"first model; recall@20 beats popularity: {figures}")
    return Verdict(False, f"first model, but recall@20 does not beat popularity: {figures}")


def _against_serving(candidate: GateScores, serving: GateScores, tolerance: float) -> Verdict:
    recall = f"recall@20 {candidate.recall:.4f} against {serving.recall:.4f}"
    mrr = f"mrr@20 {candidate.mrr:.4f} against {serving.mrr:.4f}"
    slack = f" (tolerance {tolerance:g})" if tolerance else ""
    if candidate.recall > serving.recall:
        return Verdict(True, f"better than the serving model: {recall}")
    if candidate.recall < serving.recall - tolerance:
        return Verdict(False, f"worse than the serving model: {recall}{slack}")
    if candidate.mrr < serving.mrr - tolerance:
        return Verdict(False, f"a tie in {recall}, and worse in {mrr}{slack}")
    return Verdict(True, f"not worse than the serving model: {recall}, {mrr}{slack}")
