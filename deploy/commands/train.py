"""`nextclick train`: fit a model to the clicks of a file or of the clicks topic."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
from cyclopts import Parameter, validators
from rich.console import Console

from deploy.commands.click_log_options import ClickLogOptions
from deploy.commands.score_table import print_scores
from deploy.commands.training_progress import show_log, shown_progress
from deploy.settings import Connection
from training.settings import TrainSettings

if TYPE_CHECKING:
    from training.train import TrainResult

_CONNECTION = Connection()
_CLICKS = ClickLogOptions()
_SETTINGS = TrainSettings()

Count = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=10_000))]
HiddenSize = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=4_096))]
Threads = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=256))]
Seed = Annotated[int, Parameter(validator=validators.Number(gte=0, lt=2**63))]


def train(
    file: Path | None = None,
    /,
    *,
    clicks: ClickLogOptions = _CLICKS,
    models: Path = Path("models"),
    compare_with: Path | None = None,
    epochs: Count | None = None,
    hidden_size: HiddenSize = _SETTINGS.hidden_size,
    seed: Seed = _SETTINGS.seed,
    threads: Threads = _SETTINGS.threads,
    report: bool = True,
    json: Annotated[bool, Parameter(negative=())] = False,
    connection: Connection = _CONNECTION,
) -> None:
    """Train a model, score it on clicks that it has not seen, and put it into the model folder.

    The clicks come from FILE (.tsv, .csv or .parquet, each also with .gz) or, with --topic, from the clicks
    topic. The model is ranked against the whole catalogue, beside first-order Markov and popularity.

    Examples:

        nextclick train clicks.tsv.gz --test-last 1d

        nextclick train --topic --from-time 2026-01-01 --test-last 12h --models ./models

    Parameters
    ----------
    file
        The click log, with the columns session_id, item_id and timestamp (see --columns).
    models
        Folder that the model's own folder is made in, named after its version.
    compare_with
        Folder of another model, to be scored on the same clicks.
    epochs
        Passes over the training clicks; by default 3 to 10, fewer on larger logs.
    hidden_size
        Width of the hidden state and of the item vectors.
    seed
        The same seed, clicks and number of threads give the same model.
    threads
        Threads of torch. Two are about a sixth faster than one.
    report
        Write report.html, MODEL_CARD.md and plots into the model's folder.
    json
        Print one line of JSON with the scores at the end.
    """
    settings = TrainSettings(hidden_size=hidden_size, epochs=epochs, seed=seed, threads=threads)
    console = Console(stderr=True)
    with shown_progress(console) as progress:
        rule = clicks.rule()
        loaded = clicks.load(file, connection, progress)
        show_log(console, loaded)
        from training.train import train as train_model

        now_ms = time.time_ns() // 1_000_000
        result = train_model(
            loaded, rule, settings, models, now_ms, progress, compare_with, with_report=report
        )
    if report:
        said = result.report_trouble or f"report: {result.model_folder / 'report.html'}"
        console.print(said, markup=False, highlight=False, soft_wrap=True)
    if json:
        print(orjson.dumps(result.fields()).decode())  # noqa: T201
    else:
        _show(result)


def _show(result: "TrainResult") -> None:
    console = Console()
    rows = {
        result.model_version: result.model,
        "first-order Markov": result.markov,
        "popularity": result.popularity,
    }
    if result.serving is not None:
        rows[f"{result.serving_version} (compared with)"] = result.serving
    print_scores(console, rows, result.all_targets, result.unknown_share)
    console.print(
        f"{result.train_events_per_s:,.0f} events/s, {result.seconds:.1f} s in all. Next: "
        f"nextclick models announce {result.model_folder}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
