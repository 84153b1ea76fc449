"""`nextclick worker`: serve recommendations until SIGTERM."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from deploy.commands.print_config import print_config as show_config
from deploy.settings import Connection
from worker.shell.log import configure_logging
from worker.shell.settings import WorkerSettings
from worker.shell.stop_signals import StopSignals

_WORKER = WorkerSettings()
_CONNECTION = Connection()


def worker(
    *,
    settings: Annotated[WorkerSettings, Parameter(name="*")] = _WORKER,
    connection: Connection = _CONNECTION,
    print_config: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Read clicks, keep a hidden state per session, publish recommendations. Ends on SIGTERM or Ctrl-C.

    Until a model is announced, popular items are recommended. Metrics: http://127.0.0.1:9464/metrics

    For example:

        nextclick worker --bootstrap localhost:9092 --top-k 10

    Parameters
    ----------
    print_config
        Show the effective settings and where each comes from, then exit. Secrets are masked.
    """
    if print_config:
        show_config(asdict(connection) | asdict(settings))
        return 0
    configure_logging()
    stop = StopSignals()
    stop.watch()  # before torch and all that is imported, which takes seconds
    from worker.shell.run import run_worker

    return run_worker(settings, connection.client_config(), connection.topics(), stop)
