"""`nextclick dead-letters`: show what was no click and why; send it back, as it came or repaired."""

import time
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from deploy.settings import Connection, UsageError

app = App(
    name="dead-letters",
    help="""Show dead letters by reason; send repaired or chosen ones back.

    For example:

        nextclick dead-letters list --last 1h""",
)

_CONNECTION = Connection()

Flag = Annotated[bool, Parameter(negative=())]
Count = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=10_000))]
ReasonName = Literal["tombstone", "oversized", "malformed", "invalid", "timestamp_out_of_range"]
Reasons = Annotated[tuple[ReasonName, ...], Parameter(negative=())]


@app.command(name="list")
def list_(
    *,
    reason: Reasons = (),
    last: str | None = None,
    since: str | None = None,
    limit: Count | None = None,
    json: Flag = False,
    connection: Connection = _CONNECTION,
) -> None:
    """Show the records that were no clicks: by reason, how many, since when, and the newest of each.

    Reads the dead-letter topic to where it ends now. Reading disturbs nobody: no consumer group, no offsets.

    Examples:

        nextclick dead-letters list --last 1h

        nextclick dead-letters list --reason invalid --json > letters.jsonl

    Parameters
    ----------
    reason
        Only this reason; may be repeated.
    last
        Only what was dead-lettered in the last 30m, 1h, 2d, …
    since
        Only what was dead-lettered at this time or later. ISO 8601 (UTC where it names no zone) or
        milliseconds since the epoch.
    limit
        Samples of each reason, 3 by default. With --json: letters of each reason, all by default.
    json
        Each letter whole, one JSON object a line: value and key as text, where they are UTF-8, and in base64.
    """
    from deploy.dead_letter_list import ListOptions, run_list

    options = ListOptions(_from_ms(last, since), frozenset(reason), limit, json)
    run_list(options, connection.client_config(), connection.dead_letters_topic)


@app.command
def replay(
    *,
    reason: Reasons = (),
    offsets: str | None = None,
    last: str | None = None,
    since: str | None = None,
    repaired: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    all_: Annotated[bool, Parameter(name="--all", negative=())] = False,
    dry_run: Flag = False,
    json: Flag = False,
    connection: Connection = _CONNECTION,
) -> int:
    """Send letters back to the clicks topic, with their own key and headers. What is no click is refused.

    Letters stay on the dead-letter topic: replayed twice, they are sent twice. Each record that is sent says
    where it lay before, in the header nextclick.replayed.from. One without a key gets its session id. The
    exit code is 1 if any was refused.

    Examples:

        nextclick dead-letters replay --repaired letters.jsonl --dry-run

        nextclick dead-letters replay --reason timestamp_out_of_range --last 2h

    Parameters
    ----------
    reason
        Only this reason; may be repeated. What is said together must all hold.
    offsets
        Only these letters, as PARTITION:OFFSET of the dead-letter topic, separated by commas: 0:17,2:5
    last
        Only what was dead-lettered in the last 30m, 1h, 2d, …
    since
        Only what was dead-lettered at this time or later; see `list`.
    repaired
        File of JSON lines as `list --json` gives them, with each "value" edited (`-` is standard input):
        only these letters go back. A value is a click as an object, or as text.
    all_
        All letters that are clicks by now, for instance after an upgrade.
    dry_run
        Show what would be sent and what refused; send nothing.
    json
        What became of each letter, one JSON object a line, once Kafka has acknowledged it.
    """
    narrowed = bool(reason) or any(one is not None for one in (offsets, last, since, repaired))
    if all_ and narrowed:
        raise UsageError("--all does not go with --reason, --offsets, --last, --since or --repaired")
    if not all_ and not narrowed:
        raise UsageError("say which: --reason, --offsets, --last, --since, --repaired or --all")
    from_ms = _from_ms(last, since)
    from deploy.dead_letter_repairs import read_repairs
    from deploy.dead_letter_replay import Choice, run_replay
    from deploy.dead_letters import parse_positions

    try:
        positions = None if offsets is None else parse_positions(offsets)
    except ValueError as error:
        raise UsageError(f"--offsets: {error}") from None
    repairs = None if repaired is None else read_repairs(repaired)
    return run_replay(
        Choice(frozenset(reason), positions, from_ms, repairs),
        connection.client_config(),
        connection.dead_letters_topic,
        connection.clicks_topic,
        dry_run=dry_run,
        json=json,
    )


def _from_ms(last: str | None, since: str | None) -> int | None:
    """The time from which on letters count. Raises UsageError."""
    from deploy.commands.click_log_options import duration_ms, instant_ms

    if last is not None and since is not None:
        raise UsageError("say --last or --since, not both")
    if last is not None:
        return max(time.time_ns() // 1_000_000 - duration_ms(last), 0)
    return None if since is None else instant_ms(since)
