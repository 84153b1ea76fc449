"""Where a topic ends, asked of its leaders; of brokers, too, that have just started or made the topic."""

import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

REQUEST_S = 10.0
LEADS_AGAIN_S = 30.0


def end_offsets(bootstrap: str, topic: str, isolation: str = "read_uncommitted") -> dict[int, int]:
    """End offset of each partition, open transactions included; or, read_committed, the last stable one.

    A topic is made before its metadata are known, these name a leader before that broker itself knows, and a
    broker that hung or has just started leads nothing for a while: all that is asked again.

    Raises:
        KafkaException: no answer, or the partitions still have no leader, after half a minute.
    """
    config = {"group.id": "unused", "isolation.level": isolation, "log_level": 0}
    consumer = Consumer({"bootstrap.servers": bootstrap, **config})
    deadline_s = time.monotonic() + LEADS_AGAIN_S
    try:
        while True:
            try:
                return _ask(consumer, topic)
            except KafkaException:
                if time.monotonic() > deadline_s:
                    raise
            time.sleep(0.05)
    finally:
        consumer.close()


def _ask(consumer: Consumer, topic: str) -> dict[int, int]:
    metadata = consumer.list_topics(topic, timeout=REQUEST_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    ends = {}
    for partition in metadata.partitions:
        _, ends[partition] = consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=REQUEST_S
        )
    return ends
