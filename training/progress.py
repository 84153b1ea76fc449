"""How a long job says where it is; who shows it is the caller's business."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """One report.

    Attributes:
        stage: "read" counts rows of a file, "replay" records, "fit" transitions learned, "evaluate" clicks to
            predict, "baselines" thousandths of each of the two slow ones.
        done, total: of the stage; total 0 where it is not known.
        epoch, epochs: of "fit", else 0.
        loss: of "fit", mean since the last report.
        events_per_s: of "fit" since its start.
    """

    stage: Literal["read", "replay", "fit", "evaluate", "baselines"]
    done: int
    total: int
    epoch: int = 0
    epochs: int = 0
    loss: float = 0.0
    events_per_s: float = 0.0


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Show nothing."""
