"""One set of librdkafka settings for clients of both kinds, and one place for what they log."""

import logging
from collections.abc import Mapping

import structlog

from worker.shell.log import TroubleLog

log = structlog.get_logger()

# librdkafka warns of each setting that is for the other kind of client; the operator gives one set for both.
_CONSUMER_ONLY = (
    "group.", "session.timeout.ms", "heartbeat.interval.ms", "max.poll.interval.ms", "auto.", "fetch.",
    "partition.assignment.strategy", "queued.", "isolation.level", "enable.auto.", "enable.partition.eof",
    "check.crcs", "coordinator.query.interval.ms", "max.partition.fetch.bytes", "consume.",
)  # fmt: skip
_PRODUCER_ONLY = (
    "acks", "batch.", "compression.", "delivery.", "enable.gapless.guarantee", "enable.idempotence",
    "linger.ms", "message.send.max.retries", "message.timeout.ms", "partitioner", "queue.buffering.",
    "queuing.strategy", "request.required.acks", "request.timeout.ms", "retries", "sticky.partitioning.",
    "transaction",
)  # fmt: skip


def for_consumer(config: Mapping[str, str]) -> dict[str, str]:
    """The settings that a consumer understands."""
    return {key: value for key, value in config.items() if not key.startswith(_PRODUCER_ONLY)}


def for_producer(config: Mapping[str, str]) -> dict[str, str]:
    """The settings that a producer understands."""
    return {key: value for key, value in config.items() if not key.startswith(_CONSUMER_ONLY)}


SILENCE_S = 10.0
"""Between two warnings of librdkafka with one code: while brokers are away it has several each second."""


class ClientLog(logging.Handler):
    """Takes librdkafka's own log lines into ours; its base class locks, so all threads may share it."""

    def __init__(self) -> None:
        super().__init__()
        self._trouble = TroubleLog(SILENCE_S)

    def emit(self, record: logging.LogRecord) -> None:
        """Log one line of librdkafka: warnings of one code now and then, with a count of the others."""
        said = record.getMessage()
        if record.levelno >= logging.WARNING:
            self._trouble.warning("librdkafka", said.partition(" ")[0], said=said)
        else:
            log.info("librdkafka", said=said)


def client_logger() -> logging.Logger:
    """The logger to hand to every client; its lines appear while the client is polled."""
    logger = logging.getLogger("nextclick.librdkafka")
    if not logger.handlers:
        logger.addHandler(ClientLog())
        logger.setLevel(logging.DEBUG)  # the client has such lines only where the setting `debug` asks
        logger.propagate = False
    return logger
