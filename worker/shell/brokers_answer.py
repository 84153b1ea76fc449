"""Whether brokers are there, asked by a client of its own.

After brokers were away, a producer may wait for them for ever, and say of them that they are still away.
"""

from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException

from worker.shell.client_config import client_logger, for_consumer

ANSWER_S = 2.0
"""How long brokers have to answer a new client."""


def do_brokers_answer(client_config: Mapping[str, str], topic: str) -> bool:
    """Ask for the metadata of a topic; blocks for `ANSWER_S` at most, where the client keeps to it."""
    settings = {**for_consumer(client_config), "group.id": "nextclick-asks-for-brokers"}
    client = Consumer(settings, logger=client_logger())
    try:
        client.list_topics(topic, timeout=ANSWER_S)
    except KafkaException:
        return False
    finally:
        client.close()
    return True
