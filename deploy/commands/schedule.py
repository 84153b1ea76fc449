"""`nextclick schedule`: retrain on a calendar, announce what is not worse."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter, validators

from deploy.settings import ENV_KAFKA_PREFIX, ENV_PREFIX, Connection, UsageError

_CONNECTION = Connection()

Port = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=65_535))]
Seconds = Annotated[float, Parameter(validator=validators.Number(gt=0))]


def schedule(
    *train_options: Annotated[str, Parameter(allow_leading_hyphen=True)],
    cron: str = "0 * * * *",
    run_at_start: Annotated[bool, Parameter(negative=())] = False,
    test_last: str = "1d",
    models: Path = Path("models"),
    tolerance: float = 0.0,
    trainer_timeout_s: Seconds = 21_600.0,
    app_id: str = "nextclick-schedule",
    status_host: str = "127.0.0.1",
    status_port: Port = 9465,
    connection: Connection = _CONNECTION,
) -> int:
    """Retrain on a calendar and announce each model that is not worse than the serving one. Ends on SIGTERM.

    Both models are scored on the newest clicks; the first model must beat popularity. Several schedulers may
    run under one --app-id: one leads, the others stand by. Status: http://127.0.0.1:9465/status

    Example:

        nextclick schedule --cron "30 3 * * *" --test-last 1d -- --epochs 5

    Parameters
    ----------
    train_options
        Further options for `nextclick train`, after `--`.
    cron
        When: minute, hour, day of month, month, weekday, in UTC.
    run_at_start
        Retrain at once, too.
    test_last
        The newest slice of the log, on which the models are compared and not trained.
    models
        Folder that models are written into; workers must see it under the same absolute path.
    tolerance
        By how much recall@20 and mrr@20 may fall short of the serving model's.
    trainer_timeout_s
        After so long a training is ended and has failed.
    app_id
        Name of the scheduler's group, and first part of the topic by which it elects its leader.
    status_host
        Address of the status page. Loopback unless told otherwise.
    status_port
        Port of the status page.
    """
    from deploy.commands.click_log_options import duration_ms
    from training.gate import GateSettings
    from training.retrain import RetrainSettings
    from training.schedule import ScheduleSettings, run_schedule
    from worker.shell.log import configure_logging

    duration_ms(test_last)  # complains now rather than in every training
    configure_logging()
    _forward_library_logs()
    client_config = connection.client_config()
    os.environ.update(trainer_environment(connection, client_config))
    try:
        retrain = RetrainSettings(
            trainer=trainer_command(test_last, models.resolve(), train_options),
            client_config=client_config,
            models_topic=connection.models_topic,
            trainer_timeout_s=trainer_timeout_s,
            gate=GateSettings(tolerance),
        )
        return run_schedule(
            ScheduleSettings(
                retrain=retrain,
                cron=cron,
                run_at_start=run_at_start,
                app_id=app_id,
                status_host=status_host,
                status_port=status_port,
            )
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def trainer_command(test_last: str, models: Path, options: tuple[str, ...]) -> tuple[str, ...]:
    """The command line of one training; where Kafka is, it learns from its environment."""
    start = (sys.executable, "-m", "deploy", "train", "--topic")
    return (*start, "--test-last", test_last, "--models", str(models), "--json", *options)


def trainer_environment(connection: Connection, client_config: dict[str, str]) -> dict[str, str]:
    """How to reach Kafka, for the trainer: not on its command line, where all users of the machine see it."""
    found = {f"{ENV_PREFIX}BOOTSTRAP": connection.bootstrap}
    for role, name in msgspec.structs.asdict(connection.topics()).items():
        found[f"{ENV_PREFIX}{role.upper()}_TOPIC"] = name
    for key, value in client_config.items():
        found[f"{ENV_KAFKA_PREFIX}{key.upper().replace('.', '_')}"] = value
    return found


def _forward_library_logs() -> None:
    """Send what Faust and aiokafka have to say, from warnings on, to the same place as our own log."""
    import structlog

    log = structlog.get_logger()
    formatter = logging.Formatter()

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            more = {"exception": formatter.formatException(record.exc_info)} if record.exc_info else {}
            log.log(record.levelno, record.getMessage(), logger=record.name, **more)

    logging.basicConfig(handlers=[Forward()], level=logging.WARNING)
