"""`nextclick tail`: watch recommendations as they come."""

from typing import Annotated

from cyclopts import Parameter, validators

from deploy.settings import Connection

_CONNECTION = Connection()

Flag = Annotated[bool, Parameter(negative=())]
Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]


def tail(
    *,
    from_beginning: Flag = False,
    limit: Count | None = None,
    json: Flag = False,
    connection: Connection = _CONNECTION,
) -> int:
    """Show the recommendations topic as it grows: a table in a terminal, a line each elsewhere.

    Only what is committed is shown, and only what comes from now on, until Ctrl-C. Reading disturbs nobody:
    no consumer group, no offsets.

    Examples:

        nextclick tail

        nextclick tail --from-beginning --limit 1 --json

    Parameters
    ----------
    from_beginning
        Start with the oldest recommendation that Kafka still has.
    limit
        End after so many recommendations.
    json
        The recommendations as they are, one JSON object a line.
    """
    from deploy.tail import TailOptions, run_tail

    options = TailOptions(from_beginning, limit, json)
    return run_tail(options, connection.client_config(), connection.recommendations_topic)
