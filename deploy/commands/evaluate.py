"""`nextclick evaluate`: score a model on a log by full ranking."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
from cyclopts import Parameter
from rich.console import Console

from deploy.commands.click_log_options import ClickLogOptions
from deploy.commands.score_table import print_scores
from deploy.commands.training_progress import show_log, shown_progress
from deploy.settings import Connection

if TYPE_CHECKING:
    from training.score import ModelScores

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

    Every later click of a session is ranked against the whole catalogue. First-order Markov and popularity
    learn from the other part of the log and stand beside it.

    Example:

        nextclick evaluate models/20260102T030405-89abcdef clicks.tsv.gz --test-last 1d

    Parameters
    ----------
    model
        The model's folder: manifest.json, items.json, weights.safetensors.
    file
        The click log; without it, --topic replays the clicks topic.
    json
        Print one line of JSON instead of the table.
    """
    from training.model_store import load_model
    from training.progress import Progress
    from training.score import score_model

    console = Console(stderr=True)
    with shown_progress(console) as report:
        rule = clicks.rule()
        loaded_model = load_model(model)[1]
        loaded = clicks.load(file, connection, report)
        show_log(console, loaded)
        found = score_model(
            loaded_model, loaded, rule, lambda done, total: report(Progress("evaluate", done, total))
        )
    if json:
        print(orjson.dumps(_fields(loaded.name, loaded_model.version, found)).decode())  # noqa: T201
        return
    rows = {
        loaded_model.version: found.model,
        "first-order Markov": found.markov,
        "popularity": found.popularity,
    }
    print_scores(Console(), rows, found.all_targets, found.unknown_share)


def _fields(log: str, version: str, found: "ModelScores") -> dict[str, float | int | str]:
    from training.train import score_fields

    return {
        "log": log,
        "events_test": found.events_test,
        **score_fields("", found.model),
        **score_fields("markov_", found.markov),
        **score_fields("popularity_", found.popularity),
        "targets": found.model.targets,
        **score_fields("all_", found.all_targets),
        "unknown_share": round(found.unknown_share, 6),
        "model_version": version,
    }
