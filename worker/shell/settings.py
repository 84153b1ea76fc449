"""Settings of a worker, with the reason beside each default."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What can be set on a worker; checked when it is made."""

    group_id: str = "nextclick"
    """Consumer group; workers of one group share the partitions."""

    processing_guarantee: Literal["exactly_once", "at_least_once"] = "exactly_once"
    """exactly_once: outputs, changelog and offsets of a batch in one Kafka transaction. at_least_once: lower
    latency; after a crash the clicks of the last half second are answered again, but not applied again."""

    instance_id: str = ""
    """A name of this worker that no other has: static membership, and a restart takes over where it was, at
    once. Without one, the group waits for its session timeout after a crash."""

    group_protocol: Literal["classic", "consumer"] = "classic"
    """classic: cooperative-sticky rebalances, on any broker. consumer: the newer protocol (KIP-848)."""

    on_lost_input: Literal["fail", "skip"] = "fail"
    """Where clicks were deleted before they were read: stop, or go on with the oldest that is there."""

    top_k: int = 20
    """Items in a recommendation."""

    max_batch: int = 512
    """Clicks in a micro-batch at most. Larger ones gain little throughput and add latency under load."""

    max_sessions: int = 1_000_000
    """Live sessions held at most; beyond that the least recently active one is forgotten first."""

    max_items: int = 4_000_000
    """Item ids known at most, across models and clicks; each takes about 200 bytes."""

    idle_timeout_ms: int = 1_800_000
    """A session without a click for so long (event time) has ended. 30 minutes, as web analytics counts."""

    history_length: int = 32
    """Last clicks kept per session, from which any model re-encodes it. A GRU hardly sees further back."""

    duplicate_window: int = 8
    """Event ids remembered per session: a click with one of them is counted and otherwise ignored."""

    dead_letter_max_ratio: float = 0.5
    """Share of bad records above which the worker stops: something upstream is broken. 1 never stops."""

    dead_letter_window: int = 10_000
    """Records over which that share is taken."""

    dead_letter_burst: int = 1_000
    """So many bad records within the window are always taken."""

    log_payloads: bool = False
    """Show the start of a bad record in the log line that tells of it. Payloads may be personal data."""

    popular_half_life_ms: int = 86_400_000
    """Event time in which a click loses half of its weight in the popular items. One day."""

    commit_interval_ms: int = 500
    """at_least_once: how often acknowledged offsets are committed; what is read again after a crash."""

    poll_timeout_ms: int = 100
    """How long an idle worker waits for a click before it looks after its other duties."""

    torch_threads: int = 1
    """Threads of one product of torch's. One: Kafka's own threads need the other cores; scale by workers."""

    http_host: str = "127.0.0.1"
    """Address of /metrics, /healthz and /readyz. Loopback unless told otherwise."""

    http_port: int = 9464
    """Port of the above; 0 picks a free one and logs it."""

    def __post_init__(self) -> None:
        bounds = {
            "top_k": (1, 1_000),
            "max_batch": (1, 10_000),
            "max_sessions": (1, 100_000_000),
            "max_items": (1, 2**24 - 1),  # the most that an ItemRegister can number
            "idle_timeout_ms": (1_000, 30 * 86_400_000),
            "history_length": (1, 1_024),
            "duplicate_window": (0, 64),
            "dead_letter_max_ratio": (0.0, 1.0),
            "dead_letter_window": (1, 100_000_000),
            "dead_letter_burst": (0, 100_000_000),
            "popular_half_life_ms": (60_000, 365 * 86_400_000),
            "commit_interval_ms": (10, 60_000),
            "poll_timeout_ms": (1, 10_000),
            "torch_threads": (1, 256),
            "http_port": (0, 65_535),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} = {value}: it must lie between {low} and {high}")
        if not self.group_id:
            raise ValueError("group_id must not be empty")
