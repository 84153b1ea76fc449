"""The sink without transactions, with brokers that do not answer."""

import pytest

from worker.shell.sink import AtLeastOnceSink

NOBODY = {"bootstrap.servers": "127.0.0.1:1", "log_level": "0"}


def stop_waiting() -> None:
    pytest.fail("the queue is full")


def test_what_waits_is_dropped_without_a_complaint_and_holds_back_no_offset() -> None:
    sink = AtLeastOnceSink(NOBODY, stop_waiting, lambda error, _: error.str())
    for number in range(3):
        sink.send("outputs", 0, "s", b"value", [])
        sink.end_batch({0: number + 1})
    assert len(sink) == 3
    assert sink.committable() == {}
    sink.forget_partitions({0})
    sink.drop_unsent()
    assert len(sink) == 0
    assert sink.committable() == {}
    assert sink.flush(0)
