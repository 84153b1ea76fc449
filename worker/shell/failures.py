"""What can end a worker, by what the operator has to do.

WorkerFailure
├── CannotStart     nothing was read: settings, topics or brokers must be mended first
└── OutputLost      Kafka refused an output for good: its click was not committed, restart reads it again
    └── OutputTooLarge      refused for its size before it was sent; a dead letter is cut then
"""


class WorkerFailure(Exception):  # noqa: N818 - names say what happened, as the tree above shows
    """The worker ends with exit code 1; the message says what to do."""


class CannotStart(WorkerFailure):
    """Nothing was read or written: mend what the message names and start again."""


class OutputLost(WorkerFailure):
    """An output could not be delivered. Nothing past it is committed: a restart reads those clicks again."""


class OutputTooLarge(OutputLost):
    """The client refused an output for its size, before it was sent."""
