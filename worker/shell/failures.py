"""What can end a worker, or a batch, by what has to be done about it.

WorkerFailure                   the worker ends with exit code 1; the message says what to mend first
├── CannotStart                 nothing was read: settings, topics, rights or brokers
├── OutputLost                  Kafka refuses an output for good: its click is not committed
│   └── OutputTooLarge          refused for its size before it was sent; a dead letter is cut then
├── InputLost                   records were deleted before they were read, and `on_lost_input` is "fail"
├── TooManyDeadLetters          more bad records than the cap allows: something upstream is broken
├── ChangelogTooNew             another worker writes a newer format: upgrade this one
└── MustRestart                 a Kafka client is broken for good or was fenced: exit code 75, start again
BatchAborted                    a batch did not happen: undo it, and do what is left of it again
StopRequested                   asked to stop while brokers are away: leave without what is not committed
"""

EXIT_RESTART = 75
"""EX_TEMPFAIL of sysexits.h: nothing has to be mended, a restart goes on where the last commit was."""


class WorkerFailure(Exception):  # noqa: N818 - names say what happened, as the tree above shows
    """The worker ends; the message says what to do, `exit_code` what a supervisor should."""

    exit_code = 1


class CannotStart(WorkerFailure):
    """Nothing was read or written: mend what the message names and start again."""


class OutputLost(WorkerFailure):
    """An output could not be delivered. Nothing past it is committed: a restart reads those clicks again."""


class OutputTooLarge(OutputLost):
    """The client refused an output for its size, before it was sent."""


class InputLost(WorkerFailure):
    """Clicks were deleted before they were read."""


class TooManyDeadLetters(WorkerFailure):
    """The share of bad records is above `dead_letter_max_ratio`; none of the last batch was taken."""


class ChangelogTooNew(WorkerFailure):
    """The changelog holds records of a format that this version does not know."""


class MustRestart(WorkerFailure):
    """A Kafka client cannot go on in this process. What was not committed is read again after a restart."""

    exit_code = EXIT_RESTART


class BatchAborted(Exception):  # noqa: N818
    """The transaction of the batch was aborted, or has to be: none of its outputs count."""


class StopRequested(Exception):  # noqa: N818
    """The time to stop has come while a call to Kafka was waited for."""
