"""A worker that is broken on purpose, to show that a chaos run notices.

    python -m tests.chaos.sabotage KIND worker --bootstrap … (flags of `nextclick worker`)

offsets-first: the offsets of a batch are committed before its outputs, as a plain consumer with auto-commit
    does. A worker that is killed in between loses the clicks of the batch.
skip-restore: partitions are taken up without their sessions, as if there were no changelog.
"""

import sys
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from confluent_kafka import KafkaException, Producer, TopicPartition

from deploy.cli import main
from worker.shell import changelog, transactions
from worker.shell.failures import BatchAborted

BETWEEN_S = 0.4
"""Between offsets and outputs: nearly all of a batch's time, so that hardly a kill misses it."""

CALL_S = 10.0


class OffsetsFirstSink(transactions.ExactlyOnceSink):
    """Commits offsets in a transaction of their own, then the outputs in another one."""

    def __init__(self, client_config: Mapping[str, str], transactional_id: str, *rest: Any) -> None:
        super().__init__(client_config, transactional_id, *rest)
        servers = client_config["bootstrap.servers"]
        self._of_offsets = Producer(
            {"bootstrap.servers": servers, "transactional.id": f"{transactional_id}-offsets", "log_level": 0}
        )

    def open(self) -> None:
        """As of `Sink`."""
        super().open()
        self._of_offsets.init_transactions(CALL_S)

    def end_batch(self, positions: Mapping[int, int]) -> None:
        """As of `Sink`, in the wrong order."""
        metadata: Any = self._group_metadata(positions.keys())
        offsets = [TopicPartition(self._source_topic, at, position) for at, position in positions.items()]
        self._of_offsets.begin_transaction()
        try:
            self._of_offsets.send_offsets_to_transaction(offsets, metadata, CALL_S)
            self._of_offsets.commit_transaction(CALL_S)
        except KafkaException as error:  # the group moves on meanwhile
            self._of_offsets.abort_transaction(CALL_S)
            raise BatchAborted(str(error)) from None
        time.sleep(BETWEEN_S)
        super().end_batch({})


class NoRestoreReader(changelog.ChangelogReader):
    """Finds every changelog empty."""

    def _offsets(self, topic: str, partitions: AbstractSet[int]) -> dict[int, tuple[int, int]]:
        if topic == self._topics.session_histories:
            return dict.fromkeys(partitions, (0, 0))
        return super()._offsets(topic, partitions)


def offsets_first() -> None:
    """Replace the sink, before the worker imports it."""
    transactions.ExactlyOnceSink = OffsetsFirstSink  # type: ignore[assignment, misc]


def skip_restore() -> None:
    """Replace the reader of the changelog, before the worker imports it."""
    changelog.ChangelogReader = NoRestoreReader  # type: ignore[misc]


KINDS = {"offsets-first": offsets_first, "skip-restore": skip_restore}


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in KINDS:
        sys.exit(f"which sabotage? {', '.join(KINDS)}, then what `nextclick` gets")
    KINDS[sys.argv[1]]()
    main(sys.argv[2:])
