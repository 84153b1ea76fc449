"""`nextclick tune`: search for settings that fit the clicks of one or more logs."""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
from cyclopts import Parameter, validators
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy.commands.click_log_options import ClickLogOptions, duration_ms
from deploy.commands.train import EXIT_INTERRUPTED, RECIPE
from deploy.commands.training_progress import show_log, shown_progress
from deploy.first_interrupt import first_interrupt
from deploy.settings import Connection, UsageError
from training.settings import TrainSettings

if TYPE_CHECKING:
    from training.tune_log import TuneLog
    from training.tune_study import TuneProgress, TuneResult

_CLICKS = ClickLogOptions()
_SETTINGS = TrainSettings()
_CONNECTION = Connection()
_HELD_OUT_SUFFIX = ".test_sessions.txt"

Trials = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=100_000))]


def tune(
    file: Path | None = None,
    /,
    *more_files: Path,
    clicks: ClickLogOptions = _CLICKS,
    trials: Trials = 40,
    timeout: str | None = None,
    study: str | None = None,
    journal: Path = Path("tune.journal"),
    search: tuple[str, ...] = (),
    metric: Literal["recall", "mrr", "both"] = "both",
    settings: Annotated[TrainSettings, Parameter(name="*", group=RECIPE)] = _SETTINGS,
    json: Annotated[bool, Parameter(negative=())] = False,
    connection: Connection = _CONNECTION,
) -> int:
    """Search for settings of `nextclick train` that fit your clicks better than the defaults.

    The newest tenth of the training part is the validation slice: a trial is trained on what comes before it
    and scored on it. The test part, held out with the same options as in `nextclick train`, is never read, so
    that its scores stay honest. The first training is of the settings to begin with (the defaults, or the
    flags given): value 1. A trial of value 1.02 has two percent more recall@20 and MRR@20 than that.

    With several logs a trial is trained on each, and its value is the mean: that is how defaults are found
    that win over several logs. Where FILE is NAME.tsv.gz and a NAME.test_sessions.txt lies beside it, the
    sessions listed there are the test part of that log, unless an option says otherwise. This is told, and
    the command that is suggested at the end names the list.

    Every trial is written down as it ends. Ctrl-C, --timeout or a crash lose the one that runs; the same
    command goes on with the study. Trials that do worse than most after the same share of their training are
    ended early. A value within half a percent of another is chance on most logs: train with three --seed to
    be sure, and believe the test part only once.

    Examples:

        nextclick tune clicks.tsv.gz --test-last 1d --trials 30

        nextclick tune shop-a.tsv.gz shop-b.tsv.gz --timeout 8h --search learning_rate --search temperature

    Parameters
    ----------
    file
        The click log, as for `nextclick train`.
    more_files
        Further logs.
    trials
        Until the study has so many, those of earlier runs included.
    timeout
        End after 30m, 8h, 2d, …; what was tried is kept.
    study
        Name of the study; by default that of the first log. One that is there is gone on with.
    journal
        File that trials are kept in.
    search
        A setting to search, may be repeated: by default learning_rate, epochs, batch_transitions,
        embedding_dropout, temperature and, on large catalogues, negatives and negative_alpha, without those
        that a flag sets.
    metric
        What is to get better: recall@20, MRR@20, or the mean of both.
    json
        Print one line of JSON with the best settings at the end.
    """
    console = Console(stderr=True)
    try:
        from training.tune import tune as search_settings
        from training.tune_study import TuneSettings
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UsageError("the search needs Optuna: pip install 'nextclick[tune]'") from None

    files = (file, *more_files)
    held_out = [with_list_beside(each, clicks) for each in files]
    logs = _load(files, held_out, clicks, connection, console)
    deadline_s = None if timeout is None else time.monotonic() + duration_ms(timeout) / 1_000
    wanted = TuneSettings(study or logs[0].name, journal, trials, search, metric)

    def say(sentence: str) -> None:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    with (
        first_interrupt(say, "Ctrl-C: the search ends here, what was tried is kept") as interrupted,
        _shown(console) as report,
    ):
        result = search_settings(
            logs,
            settings,
            wanted,
            report,
            lambda: interrupted() or (deadline_s is not None and time.monotonic() >= deadline_s),
        )
        came = interrupted()
    if json:
        print(orjson.dumps(result.fields()).decode())  # noqa: T201
    else:
        better = bool(result.best) and result.best[0].value > 1
        best = replace(settings, **result.best[0].settings) if better else settings
        _show(result, [train_command(*each, best) for each in zip(files, held_out, strict=True)])
    return EXIT_INTERRUPTED if came else 0


def _load(
    files: tuple[Path | None, ...],
    held_out: list[ClickLogOptions],
    asked: ClickLogOptions,
    connection: Connection,
    console: Console,
) -> "list[TuneLog]":
    from training.tune_log import tune_log

    logs = []
    with shown_progress(console) as report:
        for file, clicks in zip(files, held_out, strict=True):
            rule = clicks.rule()
            loaded = clicks.load(file, connection, report)
            show_log(console, loaded)
            if clicks != asked:
                said = f"{clicks.test_sessions} lies beside it: the sessions listed there are the test part"
                console.print(said, markup=False, highlight=False, soft_wrap=True)
            logs.append(tune_log(loaded, rule))
    return logs


def with_list_beside(file: Path | None, clicks: ClickLogOptions) -> ClickLogOptions:
    """The options; where they do not say what the test part is, with the list beside the file, if any."""
    if file is None or clicks.test_sessions is not None or clicks.test_last is not None:
        return clicks
    beside = file.with_name(file.name.partition(".")[0] + _HELD_OUT_SUFFIX)
    return replace(clicks, test_sessions=beside) if beside.is_file() else clicks


def train_command(file: Path | None, clicks: ClickLogOptions, settings: TrainSettings) -> str:
    """The command that trains with these settings, on the same clicks and with the same test part."""
    of_file = [] if file is None else [shlex.quote(str(file))]
    flags = [*_flags_unlike(ClickLogOptions(), clicks), *_flags_unlike(TrainSettings(), settings)]
    return " ".join(("nextclick", "train", *of_file, *flags))


def _flags_unlike(default: object, given: ClickLogOptions | TrainSettings) -> Iterator[str]:
    for each in fields(given):
        value, name = getattr(given, each.name), each.name.replace("_", "-")
        if value == getattr(default, each.name):
            continue
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        else:
            yield f"--{name} {shlex.quote(_number_or_text(value))}"


@contextmanager
def _shown(console: Console) -> "Iterator[Callable[[TuneProgress], None]]":
    """A bar for the study and one for the trial; a line per trial where there is no terminal."""
    if not console.is_terminal:
        yield _PlainLines(console).report
        return
    bars = Progress(
        TextColumn("{task.description:12}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console,
    )
    study, trial = bars.add_task("trials", detail=""), bars.add_task("start", total=1.0, detail="")

    def report(at: "TuneProgress") -> None:
        bars.update(study, completed=at.done, total=at.trials, detail=f"{at.done}/{at.trials}  {_best(at)}")
        bars.update(trial, completed=at.share, description=_name(at), detail=_detail(at))

    with bars:
        yield report


class _PlainLines:
    """A line when a trial, or a log of it, begins."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = ("", "")

    def report(self, at: "TuneProgress") -> None:
        if (at.trial, at.log) != self._shown:
            self._shown = (at.trial, at.log)
            line = f"{at.done}/{at.trials} trials, {_best(at)}; {_name(at)}: {_detail(at)}"
            self._console.print(line, markup=False, highlight=False)


def _name(at: "TuneProgress") -> str:
    return at.trial if at.trial == "start" else f"trial {at.trial}"


def _best(at: "TuneProgress") -> str:
    return f"best {at.best:.4f}"


def _detail(at: "TuneProgress") -> str:
    return f"{at.log}  epoch {at.epoch}/{at.epochs}  {at.events_per_s:,.0f} events/s"


def _show(result: "TuneResult", commands: list[str]) -> None:
    console = Console()
    table = Table(title=f"study {result.study}: the best of {result.finished + result.pruned} trials")
    table.add_column("trial", no_wrap=True)
    table.add_column("value", justify="right")
    for name in result.start:
        table.add_column(f"{name}\nrecall@20", justify="right")
        table.add_column("\nMRR@20", justify="right")
    table.add_column("settings", overflow="fold")
    rows = [("start", 1.0, result.start, "")]
    rows += [(str(each.number), each.value, each.scores, _flags(each.settings)) for each in result.best]
    for trial, value, scores, flags in rows:
        cells = [f"{scores[log][key]:.4f}" for log in result.start for key in ("recall", "mrr")]
        table.add_row(trial, f"{value:.4f}", *cells, flags)
    console.print(table)
    for line in _sentences(result, commands):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _sentences(result: "TuneResult", commands: list[str]) -> Iterator[str]:
    yield (
        f"{result.finished} trials to the end, {result.pruned} ended early, {result.failed} broken off;"
        f" kept in {result.journal}"
    )
    if result.importance:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in result.importance.items())
        yield f"What made the difference: {shares}"
    if not result.best or result.best[0].value <= 1:
        yield "Nothing was better than the settings that the search began with."
    else:
        yield from commands
    if result.stopped:
        yield "The study has not all of its trials: the same command goes on with it."


def _flags(settings: dict[str, object]) -> str:
    """The settings as flags of `nextclick train`, numbers to four digits."""
    return " ".join(
        f"--{name.replace('_', '-')} {_number_or_text(value)}" for name, value in settings.items()
    )


def _number_or_text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
