"""What can go wrong in training that the user can do something about. The messages say what.

TrainingError               the command failed
├── UnreadableLogError      the file is no click log that can be read
├── ReplayError             the topic cannot be replayed
├── SplitError              nothing is left to train on, or to test on
├── DeviceError             the device asked for is not there
├── DivergedError           the loss is no longer a number, or far above where it started
├── StoreError              the model cannot be written
├── CheckpointError         a checkpoint cannot be written or read
├── ResumeError             there is no checkpoint of these clicks and settings
├── WarmStartError          the model to start from does not fit, or nothing is new
└── TuneError               the study is of something else, or cannot be what is asked

StopTraining is no error: it asks the training loop to end early and keep what is learned.
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
    """The loss became NaN, infinite or far larger than it was before the first step."""


class StoreError(TrainingError):
    """The trained model cannot be written into its store: it is full, or not ours to write."""


class DeviceError(TrainingError):
    """Training was asked to run on a device that torch cannot use here."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be written, or what lies on disk is none."""


class ResumeError(TrainingError):
    """The checkpoints that there are belong to other clicks or settings, or none of them is sound."""


class WarmStartError(TrainingError):
    """The model to go on from is of another architecture or shop, or there is no new session."""


class TuneError(TrainingError):
    """The study is of other logs or settings, the journal is none, or a setting is not to be searched."""


class StopTraining(Exception):  # noqa: N818 - a request, not an error
    """Raised by a callback of `fit`: end now and return the network as it is."""
