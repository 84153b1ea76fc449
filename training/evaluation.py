"""What an evaluation found, as plain data that can be kept as JSON and drawn."""

import msgspec


class Metrics(msgspec.Struct, frozen=True):
    """One group of targets; keys of the three are cutoffs, "1", "5", "10" and "20"."""

    targets: int
    recall: dict[str, float]
    mrr: dict[str, float]
    ndcg: dict[str, float]


class Evaluation(msgspec.Struct, frozen=True):
    """How a model does on the held-out part of a log.

    Attributes:
        overall: over the targets that the model knows and that follow a click it knows.
        all_targets: over every later click; what the model does not know it misses.
        unknown_share: of those later clicks, the ones on items that the model does not know.
        by_position: by how many clicks of the session went before: "1", …, "5", "6-10", "11-20", "21+".
        by_popularity: "head", "middle", "tail": items that together hold the first third of the training
            clicks, the next, the last.
        coverage: share of the catalogue that appears in any list of 5, 10 or 20.
        recall_error, mrr_error: standard errors of recall@20 and MRR@20, by sessions.
    """

    overall: Metrics
    all_targets: Metrics
    unknown_share: float
    by_position: list[tuple[str, Metrics]]
    by_popularity: list[tuple[str, Metrics]]
    coverage: dict[str, float]
    recall_error: float
    mrr_error: float
