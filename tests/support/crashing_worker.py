"""A worker that dies, or stands still, where its input says so: failures are scripted in the clicks.

    CRASH_MARKS=FOLDER python -m tests.support.crashing_worker worker --bootstrap … (as `nextclick worker`)

A click whose event id begins with `crash-POINT` ends the process by SIGKILL while its batch is at that point;
`freeze-POINT` stops it there by SIGSTOP, until somebody sends SIGCONT. The points are

before-produce               the table has been advanced, no output was handed over
between-produce-and-offsets  all outputs lie on the brokers
between-offsets-and-commit   exactly_once only: the offsets are in the transaction as well
after-commit                 exactly_once only: the transaction is committed, the loop has not heard of it
during-restore               a session of this name has just been restored from the changelog
during-swap                  a model of this version has just been adopted

Each fires once for one FOLDER, in which it leaves a file of its name. In at_least_once, offsets follow
later and on their own, so only the first two points of a batch exist there.
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from deploy.cli import main
from worker.core.advance import Recommender
from worker.core.session_model import SessionModel
from worker.shell import run
from worker.shell.changelog import Chunk
from worker.shell.handler import Handler
from worker.shell.restoring import PartitionRestorer
from worker.shell.sink import AtLeastOnceSink
from worker.shell.transactions import ExactlyOnceSink

MARKS = "CRASH_MARKS"
"""Environment variable that names the folder of what has fired."""

FLUSH_S = 30.0

_SIGNALS = {"crash": signal.SIGKILL, "freeze": signal.SIGSTOP}
_CUE = re.compile(
    rb"(crash|freeze)-"
    rb"(before-produce|between-produce-and-offsets|between-offsets-and-commit|after-commit"
    rb"|during-restore|during-swap)"
)


class Script:
    """What the batch at hand has in store."""

    def __init__(self, marks: Path) -> None:
        self._marks = marks
        self._due: set[tuple[str, str]] = set()

    def read(self, texts: Iterable[bytes]) -> None:
        """Take the cues from what comes next, in place of those that were taken before."""
        cues = {cue.groups() for text in texts for cue in _CUE.finditer(text)}
        self._due = {(kind.decode(), point.decode()) for kind, point in cues}

    def reach(self, point: str) -> None:
        """Die or stand still, if it is due here and has not happened yet."""
        for kind, number in _SIGNALS.items():
            mark = self._marks / f"{kind}-{point}"
            if (kind, point) in self._due and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), number)


script = Script(Path(os.environ.get(MARKS, ".")))


class ScriptedHandler(Handler):
    """Reads the script with each batch."""

    def handle(self, records: Sequence[Message]) -> None:
        """As of `Handler`."""
        script.read(record.value() or b"" for record in records)
        super().handle(records)
        self.settle()  # at once, while the script is that of these records


class ScriptedExactlyOnceSink(ExactlyOnceSink):
    """Follows the script at every step of a transaction."""

    _steps: Sequence[str] = ()

    def send(self, *output: Any) -> None:
        """As of `Sink`."""
        script.reach("before-produce")
        super().send(*output)

    def end_batch(self, positions: Mapping[int, int]) -> None:
        """As of `Sink`; what was produced has reached the brokers before the offsets follow."""
        self._producer.flush(FLUSH_S)
        self._steps = ["between-produce-and-offsets", "between-offsets-and-commit"]
        super().end_batch(positions)
        script.reach("after-commit")

    def _until_done(self, call: Callable[[], None]) -> None:
        if self._steps:
            script.reach(self._steps[0])
            self._steps = self._steps[1:]
        super()._until_done(call)


class ScriptedAtLeastOnceSink(AtLeastOnceSink):
    """Follows the script at the two steps that there are."""

    def send(self, *output: Any) -> None:
        """As of `Sink`."""
        script.reach("before-produce")
        super().send(*output)

    def end_batch(self, positions: Mapping[int, int]) -> None:
        """As of `Sink`."""
        super().end_batch(positions)
        self._producer.flush(FLUSH_S)
        script.reach("between-produce-and-offsets")


class ScriptedRestorer(PartitionRestorer):
    """Follows the script between two chunks of the changelog."""

    def _apply(self, chunk: Chunk) -> None:
        super()._apply(chunk)
        keys = [record.key() for record in chunk.records]
        script.read(key for key in keys if isinstance(key, bytes))
        script.reach("during-restore")


class ScriptedRecommender(Recommender):
    """Follows the script when another model is taken up."""

    def adopt(self, model: SessionModel) -> None:
        """As of `Recommender`."""
        super().adopt(model)
        script.read([model.version.encode()])
        script.reach("during-swap")


REPLACED = {
    "Handler": ScriptedHandler,
    "ExactlyOnceSink": ScriptedExactlyOnceSink,
    "AtLeastOnceSink": ScriptedAtLeastOnceSink,
    "PartitionRestorer": ScriptedRestorer,
    "Recommender": ScriptedRecommender,
}

if __name__ == "__main__":
    for name, scripted in REPLACED.items():
        setattr(run, name, scripted)
    main(sys.argv[1:])
