"""`nextclick produce`: send a file of clicks to the clicks topic."""

from typing import Annotated, Literal

from cyclopts import Parameter, validators

from deploy.settings import Connection

_CONNECTION = Connection()

Flag = Annotated[bool, Parameter(negative=())]
Positive = Annotated[float, Parameter(validator=validators.Number(gt=0))]


def produce(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    rate: Positive | None = None,
    speed: Positive | None = None,
    now: Flag = False,
    raw: Flag = False,
    columns: str | None = None,
    timestamp_unit: Literal["auto", "s", "ms", "order"] = "auto",
    connection: Connection = _CONNECTION,
) -> None:
    """Send the clicks of FILE to the clicks topic, keyed by session id, as fast as possible or at a pace.

    FILE holds clicks as JSON lines (.jsonl, also with .gz; `-` is standard input), each checked against the
    contract, or is a log in columns (.tsv, .csv, .parquet, also with .gz), sent in order of time. What is no
    click is left out and told, and the command then ends with 1. The topic must exist.

    Examples:

        nextclick produce clicks.jsonl

        nextclick produce old-clicks.tsv.gz --columns session_id=sid,item_id=product --speed 60 --now

        tail -F clicks.jsonl | nextclick produce -

    Parameters
    ----------
    file
        What to send.
    rate
        Clicks per second.
    speed
        Follow the log's own clock so many times as fast: 1 is real time, 60 is an hour a minute.
    now
        Bring the timestamps up to date: at a pace each click carries the time at which it is sent, otherwise
        the whole log is shifted so that its last click is now.
    raw
        Send lines as they are, unchecked: to see what the worker does with them.
    columns
        Names of a log's columns, as session_id=sid,item_id=product,timestamp=ts.
    timestamp_unit
        Of a log: seconds or milliseconds since the epoch, or numbers that only order the clicks.
    """
    from deploy.produce import ProduceOptions, run_produce

    options = ProduceOptions(file, rate, speed, now, raw, columns, timestamp_unit)
    run_produce(options, connection.client_config(), connection.clicks_topic)
