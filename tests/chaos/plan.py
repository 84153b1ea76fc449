"""What is done in which round: seeded and pure. Who it hits depends on who lives when it is done."""

import random
from collections.abc import Iterator
from typing import Literal, NamedTuple

Action = Literal["kill", "remove", "add", "freeze", "broker"]

DECK: tuple[Action, ...] = (*("kill",) * 5, *("remove",) * 2, *("add",) * 2, *("freeze",) * 2, "broker")
"""Dealt out in another order each time, so that twelve rounds hold all there is, the broker's stop once."""


class Step(NamedTuple):
    """One round.

    `delay_s` passes before the action, `pause_s` after it. `pick` in [0, 1) chooses among those it can hit.
    `down_s` is how long a killed worker or a stopped broker stays away, `frozen_s` how long a worker stands
    still. `keeps_identity`: a worker comes back with the instance id (or the lack of one) that it had.
    `is_hard`: the broker is killed instead of stopped, where that is allowed; a frozen worker gets a
    successor of the same name.
    """

    action: Action
    delay_s: float
    pause_s: float
    pick: float
    down_s: float
    frozen_s: float
    keeps_identity: bool
    is_hard: bool


def steps(seed: int, session_timeout_s: float) -> Iterator[Step]:
    """Rounds, for ever; the same seed gives the same ones."""
    draw = random.Random(seed)
    while True:
        deck = list(DECK)
        draw.shuffle(deck)
        for action in deck:
            yield Step(
                action,
                delay_s=draw.uniform(0.0, 1.5),
                pause_s=draw.uniform(0.3, 2.5),
                pick=draw.random(),
                down_s=draw.uniform(1.0, 4.0) if action == "broker" else draw.uniform(0.0, 1.0),
                frozen_s=session_timeout_s + draw.uniform(0.5, 4.0),
                keeps_identity=draw.random() < 0.6,
                is_hard=draw.random() < 0.4,
            )
