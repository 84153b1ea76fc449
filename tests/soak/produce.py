"""Sends clicks at a steady rate, open loop: what is due is sent, whether or not anybody reads it.

    python -m tests.soak.produce BOOTSTRAP TOPIC CLICKS_PER_S SECONDS THINK_S

Sessions come and go: each click is the last one of its session with probability 1 / `CLICKS_PER_SESSION`, and
a new session takes its place. Event time is the wall clock. The last line of standard output is the number of
clicks that the broker acknowledged. The machine is shared with what is measured, so this does little per
click: random draws come in blocks, and JSON is a template.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from tests.bench.workload import ITEMS

CLICKS_PER_SESSION = 6
"""Mean. Public logs have 4 to 7."""

TICK_S = 0.01
"""What became due in this time is sent together."""

_BLOCK = 100_000
_VALUE = '{"event_id":"%d","session_id":"%s","item_id":"%s","timestamp_ms":%d}'


def sessions_and_items(slots: int, seed: int) -> Iterator[tuple[str, str]]:
    """For ever: the session that clicks next and its item; at any time `slots` sessions are open."""
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, len(ITEMS) + 1)
    open_sessions = [f"s-{number}" for number in range(slots)]
    started = slots
    while True:
        places = rng.integers(slots, size=_BLOCK).tolist()
        items = rng.choice(len(ITEMS), _BLOCK, p=weights / weights.sum()).tolist()
        last = (rng.random(_BLOCK) < 1 / CLICKS_PER_SESSION).tolist()
        for place, item, is_last in zip(places, items, last, strict=True):
            yield open_sessions[place], ITEMS[item]
            if is_last:
                open_sessions[place] = f"s-{started}"
                started += 1


def produce(bootstrap: str, topic: str, clicks_per_s: float, seconds: float, think_s: float) -> int:
    """Send for so many seconds; returns how many clicks the broker acknowledged.

    Args:
        bootstrap: brokers.
        topic: of the clicks.
        clicks_per_s: of all sessions together.
        seconds: how long.
        think_s: mean time between two clicks of a session.

    Raises:
        AssertionError: the broker refused a click, or the queue is full of what it does not take.
    """
    config = {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5}
    producer = Producer({**config, "queue.buffering.max.messages": 1_000_000})
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refused.append(error)

    draws = sessions_and_items(max(1, round(clicks_per_s * think_s)), seed=0)
    total = round(clicks_per_s * seconds)
    started_s = time.monotonic()
    sent = 0
    while sent < total:
        due = min(total, int((time.monotonic() - started_s) * clicks_per_s))
        now_ms = time.time_ns() // 1_000_000
        for number in range(sent, due):
            session, item = next(draws)
            producer.produce(topic, _VALUE % (number, session, item, now_ms), session, on_delivery=delivered)
        sent = max(sent, due)
        producer.poll(0)
        assert not refused, f"the broker refused a click: {refused[0].str()}"
        time.sleep(TICK_S)
    assert producer.flush(60) == 0, "the broker does not take the clicks"
    assert not refused, f"the broker refused a click: {refused[0].str()}"
    return sent


if __name__ == "__main__":
    servers, name, *numbers = sys.argv[1:]
    rate, length_s, pause_s = map(float, numbers)
    sys.stdout.write(f"{produce(servers, name, rate, length_s, pause_s)}\n")
