"""`nextclick evaluate`: score a model on a log by full ranking."""

from pathlib import Path
from typing import Annotated

import orjson
from cyclopts import Parameter
from rich.console import Console

from deploy.commands.click_log_options import ClickLogOptions
from deploy.commands.score_table import print_scores
from deploy.commands.training_progress import show_log, shown_progress
from deploy.settings import Connection

_CONNECTION = Connection()
_CLICKS = ClickLogOptions()


def evaluate(
    model: Path,
    file: Path | None = None,
    /,
    *,
    clicks: ClickLogOptions = _CLICKS,
    json: Annotated[bool, Parameter(negative=())] = False,
    connection: Connection = _CONNECTION,
) -> None:
    """Score the model in the folder MODEL on the held-out part of a click log.

    Every later click of a held-out session is a click to predict: the model has seen the clicks before it and
    ranks its whole catalogue, nothing sampled. recall@k is the share that came among the first k, MRR@k the
    mean of 1/rank, NDCG@k that of 1/log2(rank + 1), each 0 beyond k.

    The figures to compare with others' leave out clicks on items that the model does not know; the last
    sentence counts them as misses. Hold out sessions that the model was not trained on: on its own training
    clicks every model shines.

    Five baselines learn from the rest of the log and stand beside the model: popularity, recent popularity,
    first-order Markov, item-kNN and session-kNN (VS-kNN). A model that one of them beats is not worth
    serving, and is told so.

    Examples:

        nextclick evaluate models/20260102T030405-89abcdef clicks.tsv.gz --test-last 1d

        nextclick evaluate models/20260102T030405-89abcdef --topic --from-time 2026-01-01 --json

    Parameters
    ----------
    model
        The model's folder: manifest.json, items.json, weights.safetensors.
    file
        The click log; without it, --topic replays the clicks topic.
    json
        Print one line of JSON with all scores, by group and by cutoff, instead of the tables.
    """
    from training.model_store import load_model
    from training.score import full_fields, score_model

    console = Console(stderr=True)
    with shown_progress(console) as report:
        rule = clicks.rule()
        loaded_model = load_model(model)[1]
        loaded = clicks.load(file, connection, report)
        show_log(console, loaded)
        found = score_model(loaded_model, loaded, rule, report)
    if not json:
        print_scores(Console(), loaded_model.version, found.evaluation, found.baselines)
        return
    fields = {
        "log": loaded.name,
        "events_test": found.events_test,
        **full_fields(found.evaluation, found.baselines),
        "model_version": loaded_model.version,
    }
    print(orjson.dumps(fields).decode())  # noqa: T201
