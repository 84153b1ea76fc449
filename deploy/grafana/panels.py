"""What the dashboard shows: the table of its panels, row by row. `dashboard.py` makes Grafana's JSON of it.

Units are Grafana's: cps = per second, s = seconds, percentunit = a share of 1, short = a plain count.
"""

from typing import Literal, NamedTuple

Kind = Literal["timeseries", "stacked", "bars", "heatmap", "names"]


class Query(NamedTuple):
    """A PromQL expression and the legend of its lines; `{{label}}` stands for the label's value."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """One panel; `width` of the 24 columns, `description` is what the ⓘ in its corner shows."""

    title: str
    unit: str
    width: int
    queries: list[Query]
    description: str
    kind: Kind = "timeseries"


def gauge(metric: str, by: str = "") -> str:
    """A gauge, summed over the chosen workers."""
    return f'sum by ({by}) ({metric}{{instance=~"$instance"}})'


def rate(metric: str, by: str = "") -> str:
    """A counter's increase per second, summed over the chosen workers."""
    return f'sum by ({by}) (rate({metric}{{instance=~"$instance"}}[$__rate_interval]))'


def count(metric: str, by: str = "") -> str:
    """A counter's increase within the rate interval, summed over the chosen workers."""
    return f'sum by ({by}) (increase({metric}{{instance=~"$instance"}}[$__rate_interval]))'


def ratio(over: str, under: str) -> str:
    """One over the other; no line while nothing happens."""
    return f"{over} / {under}"


def quantile(q: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram over the chosen workers, as exact as its buckets are narrow."""
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', f'le, {by}' if by else 'le')})"


ANSWERS = "nextclick_recommendations_total"
JUDGED = "nextclick_judged_clicks_total"
HITS = "nextclick_hits_total"
RANKS = "nextclick_reciprocal_ranks_total"
LATENCY = "nextclick_click_to_recommendation_seconds"
BATCH = "nextclick_batch_clicks"
STAGE = "nextclick_stage_seconds"

FLOW = [
    Panel(
        "Clicks", "cps", 8,
        [Query(rate("nextclick_clicks_total", "instance"), "{{instance}}")],
        "Good clicks applied to a session, by worker.",
        kind="stacked",
    ),
    Panel(
        "Recommendations by source", "cps", 8,
        [Query(rate(ANSWERS, "source"), "{{source}}")],
        "One for each good click. popular: no model yet, or nothing in the session that the model knows.",
        kind="stacked",
    ),
    Panel(
        "Dead letters by reason", "cps", 8,
        [Query(rate("nextclick_dead_letters_total", "reason"), "{{reason}}")],
        "Records that were no clicks. They lie on the dead-letter topic as they came, with the reason.",
        kind="stacked",
    ),
    Panel(
        "Lag by partition", "short", 8,
        [Query(gauge("nextclick_consumer_lag", "partition"), "{{partition}}")],
        "Records of the clicks topic that are not yet read.",
        kind="stacked",
    ),
    Panel(
        "Sessions", "short", 8,
        [
            Query(gauge("nextclick_sessions_live"), "live"),
            Query(gauge("nextclick_sessions_max"), "room for"),
        ],
        "Sessions in the workers' tables. Where the lines meet, the least recently active are forgotten.",
    ),
    Panel(
        "Batch size", "short", 8,
        [
            Query(ratio(rate(f"{BATCH}_sum"), rate(f"{BATCH}_count")), "mean"),
            Query(quantile(0.99, BATCH), "p99"),
        ],
        "Records in a micro-batch. It grows by itself under load; at --max-batch the worker is at its limit.",
    ),
    Panel(
        "Sessions that change", "cps", 8,
        [
            Query(rate("nextclick_sessions_expired_total"), "expired: idle"),
            Query(rate("nextclick_sessions_evicted_total"), "evicted: table full"),
            Query(rate("nextclick_sessions_reencoded_total"), "re-encoded: model swapped"),
        ],
        "Evictions cost quality: raise --max-sessions, or add workers.",
    ),
    Panel(
        "Odd clicks", "cps", 8,
        [
            Query(rate("nextclick_late_clicks_total"), "late"),
            Query(rate("nextclick_duplicate_clicks_total"), "duplicate"),
            Query(rate("nextclick_replayed_clicks_total"), "replayed"),
            Query(rate("nextclick_key_mismatches_total"), "key is not the session id"),
            Query(rate("nextclick_refused_items_total"), "item register full"),
        ],
        "late: older than the latest click of the session, applied all the same. duplicate: an event that "
        "the session just had, ignored. replayed: applied before a crash, answered again. A key that is not "
        "the session id spreads a session over workers. Item register full: raise --max-items.",
    ),
    Panel(
        "Outputs not acknowledged", "short", 4,
        [Query(gauge("nextclick_unacknowledged_records", "instance"), "{{instance}}")],
        "Handed to the Kafka client, not yet confirmed by the broker. Growing: brokers are slow or away.",
    ),
    Panel(
        "Partitions", "short", 4,
        [Query(gauge("nextclick_assigned_partitions", "instance"), "{{instance}}")],
        "Partitions that each worker reads. 0: it waits for its first model, or there are more workers than "
        "partitions.",
        kind="stacked",
    ),
]  # fmt: skip

DELIVERY = [
    Panel(
        "Changelog", "cps", 6,
        [Query(rate("nextclick_changelog_records_total"), "written")],
        "Session histories written, and ends of sessions; one for each session that a batch touched.",
    ),
    Panel(
        "Batches undone", "short", 6,
        [Query(count("nextclick_aborted_batches_total", "instance"), "{{instance}}")],
        "Transactions that failed: their batches were undone and done again. Now and then while brokers "
        "restart or partitions move; all the time, look at the worker's log.",
        kind="bars",
    ),
    Panel(
        "Restoring", "short", 6,
        [
            Query(gauge("nextclick_restoring_partitions", "instance"), "partitions {{instance}}"),
            Query(gauge("nextclick_restore_remaining_records", "instance"), "records left {{instance}}"),
        ],
        "Partitions whose sessions are being read back from the changelog; their clicks wait so long.",
    ),
    Panel(
        "Restored", "short", 6,
        [
            Query(count("nextclick_restored_records_total"), "applied"),
            Query(count("nextclick_corrupt_changelog_records_total"), "corrupt"),
            Query(count("nextclick_late_changelog_records_total"), "late (at least once)"),
            Query(count("nextclick_lost_input_records_total"), "clicks lost to retention"),
        ],
        "Changelog records applied to the table. Corrupt ones are skipped: their sessions start anew. Late "
        "ones are of a worker that was frozen and had lost its partition: those before them hold. Lost "
        "clicks were deleted from the topic before they were read.",
        kind="bars",
    ),
]  # fmt: skip

TIMES = [
    Panel(
        "Click to recommendation", "s", 12,
        [Query(quantile(q, LATENCY), f"p{q * 100:.0f}") for q in (0.5, 0.9, 0.99)],
        "From the timestamp of the click's record on the topic to handing over its recommendation.",
    ),
    Panel(
        "Click to recommendation, all of it", "s", 12,
        [Query(count(f"{LATENCY}_bucket", "le"), "{{le}}")],
        "How many clicks were answered within which time.",
        kind="heatmap",
    ),
    Panel(
        "Time of a batch by stage", "s", 8,
        [Query(ratio(rate(f"{STAGE}_sum", "stage"), rate(f"{STAGE}_count", "stage")), "{{stage}}")],
        "Mean seconds that a micro-batch spends in a stage.",
        kind="stacked",
    ),
    Panel(
        "Slow batches by stage", "s", 8,
        [Query(quantile(0.99, STAGE, "stage"), "p99 {{stage}}")],
        "99 of 100 micro-batches spend less in the stage.",
    ),
    Panel(
        "Load of the busiest worker", "percentunit", 4,
        [Query(f"max by () ({rate(f'{STAGE}_sum', 'instance')})", "busy")],
        "Share of its time that the worker's one thread spends on clicks. Near 1, add a worker.",
    ),
    Panel(
        "Loop last turned", "s", 4,
        [Query('max by (instance) (nextclick_turn_age_seconds{instance=~"$instance"})', "{{instance}} ago")],
        "Some milliseconds to a tenth of a second. Climbing: the worker hangs; after 30 s /healthz says 503.",
    ),
]  # fmt: skip

QUALITY = [
    Panel(
        "Live hit rate", "percentunit", 8,
        [Query(ratio(rate(HITS, "source"), rate(JUDGED, "source")), "{{source}}")],
        "Share of clicks on an item that was in the session's recommendation before: recall@k as users live "
        "it. By who chose the recommendation.",
    ),
    Panel(
        "Live MRR", "percentunit", 8,
        [Query(ratio(rate(RANKS, "source"), rate(JUDGED, "source")), "{{source}}")],
        "Mean of 1/rank of the clicked item in the recommendation before, 0 where it was not in it.",
    ),
    Panel(
        "Judged clicks", "cps", 8,
        [Query(rate(JUDGED, "source"), "{{source}}")],
        "What hit rate and MRR stand on; the first click of a session cannot be judged. Few: the rates jump.",
        kind="stacked",
    ),
    Panel(
        "Answered by the model", "percentunit", 8,
        [
            Query(
                ratio(
                    f'sum by () (rate({ANSWERS}{{instance=~"$instance", source="model"}}[$__rate_interval]))',
                    rate(ANSWERS),
                ),
                "model",
            )
        ],
        "The rest got popular items. A falling share: items are new to the model, time to retrain.",
    ),
    Panel(
        "Workers by model version", "short", 6,
        [Query(gauge("nextclick_model_info", "model_version"), "{{model_version}}")],
        "How many workers serve which model. Two versions for more than a moment: one worker refused the "
        "newer.",
        kind="stacked",
    ),
    Panel(
        "Model now", "short", 4,
        [Query(gauge("nextclick_model_info", "model_version"), "{{model_version}}")],
        "The versions that serve at this moment.",
        kind="names",
    ),
    Panel(
        "Swaps and refusals", "short", 6,
        [
            Query(count("nextclick_model_swaps_total"), "taken up"),
            Query(count("nextclick_model_refusals_total"), "refused"),
        ],
        "Models taken up or refused, summed over workers. The reason of a refusal is in the worker's log.",
        kind="bars",
    ),
]  # fmt: skip

ROWS = {"Flow": FLOW, "Delivery and recovery": DELIVERY, "Latency": TIMES, "Quality": QUALITY}
