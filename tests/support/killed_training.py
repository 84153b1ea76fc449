"""A training that is killed in its second epoch: python -m tests.support.killed_training LOG STORE [flags].

SIGKILL, by its own hand, so that the moment is the same in every run.
"""

import os
import signal
import sys
from pathlib import Path

from tests.training.logs import NOW_MS
from training.log_file import read_click_log
from training.progress import Progress
from training.sessions import TestShare
from training.settings import TrainSettings
from training.train import train


def main(log: Path, store: Path) -> None:
    """Train until the middle of the second epoch."""

    def die(at: Progress) -> None:
        if at.stage == "fit" and at.epoch == 2 and at.done > 1.3 * at.total / at.epochs:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = TrainSettings(hidden_size=12, epochs=4, batch_transitions=32)
    train(read_click_log(log, NOW_MS), TestShare(), settings, store, NOW_MS, die)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
