"""`nextclick demo`: the whole path in one command."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from deploy.settings import Connection, UsageError

_CONNECTION = Connection()

Flag = Annotated[bool, Parameter(negative=())]
Clicks = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=10_000_000))]
Sessions = Annotated[int, Parameter(validator=validators.Number(gte=100, lte=1_000_000))]
Rate = Annotated[float, Parameter(validator=validators.Number(gte=10, lte=5_000))]
Seed = Annotated[int, Parameter(validator=validators.Number(gte=0, lt=2**63))]


def demo(
    *,
    keep: Flag = False,
    seed: Seed = 7,
    clicks: Clicks = 7_500,
    rate: Rate = 300.0,
    sessions: Sessions = 15_000,
    log: Path | None = None,
    columns: str | None = None,
    timestamp_unit: Literal["auto", "s", "ms", "order"] = "auto",
    test_sessions: Path | None = None,
    test_last: str | None = None,
    connection: Connection = _CONNECTION,
) -> int:
    """Show the whole path on a small simulated shop: real Kafka, past clicks, training, worker, live clicks.

    What is recommended live is held against what is clicked next, beside popularity and an oracle that knows
    the shop's habits. Ends by itself in about a minute and a half; the last line is one JSON object. It ends
    with 1 where a click was not answered, or the model is no better than popularity.

    With --bootstrap (or NEXTCLICK_BOOTSTRAP) it uses that cluster, with topics of its own that it removes.

    Examples:

        nextclick demo

        nextclick demo --log clicks.tsv.gz --test-last 1d

    Parameters
    ----------
    keep
        Go on until Ctrl-C (or to the end of the log).
    seed
        Another seed, another shop.
    clicks
        Live clicks to send.
    rate
        Live clicks per second.
    sessions
        Past sessions of the shop, to learn from.
    log
        Play this click log instead of the shop: its test sessions live and brought up to date, after training
        on the rest. Nobody knows an oracle then.
    columns
        Names of the log's columns, as session_id=sid,item_id=product,timestamp=ts.
    timestamp_unit
        Of the log: seconds or milliseconds since the epoch, or numbers that only order the clicks.
    test_sessions
        File with the ids of the sessions to play live, one a line.
    test_last
        Play live the sessions that ended in the last 30m, 12h, 1d, 1w, … of the log. Without either: the
        tenth of the sessions that ended last.
    """
    from deploy.cli import sources
    from deploy.commands.click_log_options import ClickLogOptions
    from deploy.demo.run import DemoOptions, run_demo

    of_a_log = (columns, test_sessions, test_last, None if timestamp_unit == "auto" else timestamp_unit)
    if log is None and any(option is not None for option in of_a_log):
        raise UsageError("--columns, --timestamp-unit, --test-sessions and --test-last go with --log")
    # A settings file may name the cluster that earns the money: the demo goes there only when told.
    is_told = bool({"cli", "env"} & set(sources.sources.get("bootstrap", "").split(", ")))
    options = DemoOptions(
        keep=keep,
        seed=seed,
        clicks=clicks,
        rate=rate,
        sessions=sessions,
        log=log,
        log_options=ClickLogOptions(
            columns=columns, timestamp_unit=timestamp_unit, test_sessions=test_sessions, test_last=test_last
        ),
        cluster=connection if is_told else None,
    )
    return run_demo(options)
