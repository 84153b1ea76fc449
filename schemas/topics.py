"""The topics: names, keys and clean-up policies. What is keyed by session id has the same partition count
as the clicks topic, so that a session's click, changelog record and recommendation share a partition number.
"""

import msgspec


class TopicNames(msgspec.Struct, frozen=True):
    """Names of the five topics; each can be set."""

    clicks: str = "nextclick.clicks"
    recommendations: str = "nextclick.recommendations"
    dead_letters: str = "nextclick.dead-letters"
    session_histories: str = "nextclick.session-histories"
    models: str = "nextclick.models"


class TopicSpec(msgspec.Struct, frozen=True):
    """How a topic must be laid out; `config` holds the broker-side settings that the system relies on."""

    name: str
    partitions: int
    config: dict[str, str]


CHANGELOG_CONFIG = {
    "cleanup.policy": "compact",
    # Only closed segments are compacted, and a worker that restores reads all the rest: so they are small.
    "segment.bytes": str(64 << 20),
    "min.cleanable.dirty.ratio": "0.2",
    # Ends of sessions are kept for a day by default, a record for each session of that day. A restore takes
    # seconds; whoever took longer would find sessions that have ended, and which time ends again.
    "delete.retention.ms": "600000",
}


def topic_specs(names: TopicNames, partitions: int, clicks_retention_ms: int) -> list[TopicSpec]:
    """The five topics for a clicks topic of so many partitions.

    Args:
        names: what they are called.
        partitions: of the clicks topic and of all that is co-partitioned with it.
        clicks_retention_ms: how long clicks are kept; retraining can replay no more than that. -1 for ever.
    """
    delete = {"cleanup.policy": "delete"}
    compact = {"cleanup.policy": "compact"}
    return [
        TopicSpec(names.clicks, partitions, {**delete, "retention.ms": str(clicks_retention_ms)}),
        TopicSpec(names.recommendations, partitions, delete),
        TopicSpec(names.dead_letters, partitions, delete),
        TopicSpec(names.session_histories, partitions, CHANGELOG_CONFIG),
        TopicSpec(names.models, 1, compact),
    ]
