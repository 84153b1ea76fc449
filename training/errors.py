"""What can go wrong in training that the user can do something about. The messages say what.

TrainingError               the command failed
├── UnreadableLogError      the file is no click log that can be read
├── ReplayError             the topic cannot be replayed
├── SplitError              nothing is left to train on, or to test on
└── DivergedError           the loss is no longer a number
"""


class TrainingError(Exception):
    """The command failed; the message is for the user."""


class UnreadableLogError(TrainingError):
    """The file is missing, of an unknown kind, corrupt, lacks columns or holds no click."""


class ReplayError(TrainingError):
    """The broker cannot be reached, the topic does not exist, or the range holds no click."""


class SplitError(TrainingError):
    """The log, split as asked, leaves no session to train on or no click to test on."""


class DivergedError(TrainingError):
    """The loss became NaN or infinite."""
