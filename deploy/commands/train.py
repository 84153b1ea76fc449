"""`nextclick train`: fit a model to the clicks of a file or of the clicks topic."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
from cyclopts import Group, Parameter
from rich.console import Console

from deploy.commands.click_log_options import ClickLogOptions, instant_ms
from deploy.commands.score_table import print_scores
from deploy.commands.training_progress import show_log, shown_progress
from deploy.first_interrupt import first_interrupt
from deploy.settings import Connection, UsageError
from training.settings import TrainSettings

if TYPE_CHECKING:
    from training.fitting import FitOptions
    from training.train import TrainResult

_CONNECTION = Connection()
_CLICKS = ClickLogOptions()
_SETTINGS = TrainSettings()

RECIPE = Group(
    "Recipe",
    help="Chosen by measurement; the reason stands beside each. None: it follows from the clicks.",
)
Recipe = Annotated[TrainSettings, Parameter(name="*", group=RECIPE)]


@Parameter(name="*", group="Beginning and end")
@dataclass(frozen=True, kw_only=True)
class BeginningOptions:
    """Where training begins, and what is kept when it ends early."""

    start_from: Annotated[Path | None, Parameter(name="--from")] = None
    """Folder of a model to go on from. What it knows of items that are still in the clicks is kept; trained
    are the sessions that it has not seen, and a sample of the older ones beside them. Much quicker than
    training from nothing; do that now and then all the same."""

    new_since: str | None = None
    """With --from: sessions that ended after this are new. ISO 8601 (UTC where it names no zone) or
    milliseconds since the epoch; by default, where the model's own training ended."""

    resume: Annotated[bool, Parameter(negative=())] = False
    """Go on from the newest checkpoint of a training that was killed, with the same clicks and settings: the
    model comes out the same, bit for bit, as if nothing had happened."""

    checkpoints: bool = True
    """Keep the state of training in a hidden folder beside the models, at the end of each epoch and every
    minute; it is removed when the model is there."""


_BEGINNING = BeginningOptions()
_ON_INTERRUPT = "Ctrl-C: training ends here, the model is scored and written; once more to end without one"
EXIT_INTERRUPTED = 130  # 128 + SIGINT: `train … && announce` must not announce half a model


def train(
    file: Path | None = None,
    /,
    *,
    clicks: ClickLogOptions = _CLICKS,
    models: Path = Path("models"),
    compare_with: Path | None = None,
    settings: Recipe = _SETTINGS,
    beginning: BeginningOptions = _BEGINNING,
    report: bool = True,
    json: Annotated[bool, Parameter(negative=())] = False,
    connection: Connection = _CONNECTION,
) -> int:
    """Train a model, score it on clicks that it has not seen, and put it into the model folder.

    The clicks come from FILE (.tsv, .csv or .parquet, each also with .gz) or, with --topic, from the clicks
    topic. The model is scored by full ranking, beside five baselines; `nextclick evaluate --help` says how.

    Ctrl-C keeps what was learned: the model is scored and written, marked as interrupted, and the exit code
    is 130; --resume learns the rest. A second Ctrl-C ends at once. The same seed, clicks, settings and number
    of threads give the same model on the same kind of machine.

    Examples:

        nextclick train clicks.tsv.gz --test-last 1d

        nextclick train --topic --from-time 2026-01-01 --test-last 12h --models ./models

        nextclick train clicks.tsv.gz --from models/20260102T030405-89abcdef

    Parameters
    ----------
    file
        The click log, with the columns session_id, item_id and timestamp (see --columns).
    models
        Folder that the model's own folder is made in, named after its version.
    compare_with
        Folder of another model, to be scored on the same clicks.
    report
        Write report.html, MODEL_CARD.md and plots into the model's folder.
    json
        Print one line of JSON with all scores at the end, instead of the tables.
    """
    if beginning.new_since is not None and beginning.start_from is None:
        raise UsageError("--new-since goes with --from")
    console = Console(stderr=True)
    with shown_progress(console) as progress:
        rule = clicks.rule()
        loaded = clicks.load(file, connection, progress)
        show_log(console, loaded)
        from training.train import train as train_model

        now_ms = time.time_ns() // 1_000_000

        def say(sentence: str) -> None:
            console.print(sentence, markup=False, highlight=False, soft_wrap=True)

        with first_interrupt(say, _ON_INTERRUPT) as interrupted:
            options = _fit_options(beginning, interrupted, say)
            result = train_model(
                loaded, rule, settings, models, now_ms, progress, compare_with, options, with_report=report
            )
    if report:
        say(result.report_trouble or f"report: {result.model_folder / 'report.html'}")
    if json:
        print(orjson.dumps(result.fields()).decode())  # noqa: T201
    else:
        _show(result)
    return EXIT_INTERRUPTED if result.interrupted else 0


def _fit_options(
    beginning: BeginningOptions, interrupted: Callable[[], bool], say: Callable[[str], None]
) -> "FitOptions":
    from training.fitting import FitOptions
    from training.warm_start import WarmStartSettings

    since_ms = None if beginning.new_since is None else instant_ms(beginning.new_since)
    return FitOptions(
        start_from=beginning.start_from,
        warm=WarmStartSettings(since_ms=since_ms),
        checkpoints=beginning.checkpoints,
        resume=beginning.resume,
        interrupted=interrupted,
        say=say,
    )


def _show(result: "TrainResult") -> None:
    console = Console()
    rows = dict(result.baselines)
    if result.serving is not None:
        rows[f"{result.serving_version} (compared with)"] = result.serving
    print_scores(console, result.model_version, result.evaluation, result.baselines, rows)
    if result.interrupted:
        console.print("Interrupted: the model knows what it learned until then; --resume learns the rest.")
    console.print(
        f"{result.train_events_per_s:,.0f} events/s, {result.seconds:.1f} s in all. Next: "
        f"nextclick models announce {result.model_folder}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
