"""What can be said to the demo."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from deploy.commands.click_log_options import ClickLogOptions
from deploy.settings import UsageError

Flag = Annotated[bool, Parameter(negative=())]
Clicks = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=10_000_000))]
Sessions = Annotated[int, Parameter(validator=validators.Number(gte=100, lte=1_000_000))]
Rate = Annotated[float, Parameter(validator=validators.Number(gte=10, lte=5_000))]
Seed = Annotated[int, Parameter(validator=validators.Number(gte=0, lt=2**63))]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What is played, how long and how fast.

    Raises:
        UsageError: options of a log without a log.
    """

    keep: Flag = False
    """Go on until Ctrl-C (or to the end of the log)."""

    seed: Seed = 7
    """Another seed, another shop."""

    clicks: Clicks = 7_500
    """Live clicks to send."""

    rate: Rate = 300.0
    """Live clicks per second."""

    sessions: Sessions = 15_000
    """Past sessions of the shop, to learn from."""

    log: Path | None = None
    """Play this click log instead of the shop: its test sessions live and brought up to date, after training
    on the rest. Nobody knows an oracle then."""

    columns: str | None = None
    """Names of the log's columns, as session_id=sid,item_id=product,timestamp=ts."""

    timestamp_unit: Literal["auto", "s", "ms", "order"] = "auto"
    """Of the log: seconds or milliseconds since the epoch, or numbers that only order the clicks."""

    test_sessions: Path | None = None
    """File with the ids of the log's sessions to play live, one a line."""

    test_last: str | None = None
    """Play live the sessions that ended in the last 30m, 12h, 1d, 1w, … of the log. Without either: the
    tenth of the sessions that ended last."""

    def __post_init__(self) -> None:
        if self.log is None and self.log_options() != ClickLogOptions():
            raise UsageError("--columns, --timestamp-unit, --test-sessions and --test-last go with --log")

    def log_options(self) -> ClickLogOptions:
        """How the log is read and split."""
        return ClickLogOptions(
            columns=self.columns,
            timestamp_unit=self.timestamp_unit,
            test_sessions=self.test_sessions,
            test_last=self.test_last,
        )
