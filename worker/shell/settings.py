"""Settings of a worker, with the reason beside each default."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What can be set on a worker; checked when it is made."""

    group_id: str = "nextclick"
    """Consumer group; workers of one group share the partitions."""

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

    popular_half_life_ms: int = 86_400_000
    """Event time in which a click loses half of its weight in the popular items. One day."""

    commit_interval_ms: int = 500
    """How often acknowledged offsets are committed: what is read again after a crash."""

    poll_timeout_ms: int = 100
    """How long an idle worker waits for a click before it looks after its other duties."""

    torch_threads: int = 1
    """Threads of one matrix product. One: Kafka's own threads need the other cores; scale by workers."""

    http_host: str = "127.0.0.1"
    """Address of /metrics, /healthz and /readyz. Loopback unless told otherwise."""

    http_port: int = 9464
    """Port of the above; 0 picks a free one and logs it."""

    def __post_init__(self) -> None:
        bounds = {
            "top_k": (1, 1_000),
            "max_batch": (1, 10_000),
            "max_sessions": (1, 100_000_000),
            "max_items": (1, 100_000_000),
            "idle_timeout_ms": (1_000, 30 * 86_400_000),
            "history_length": (1, 1_024),
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
