"""Creates the topics and says how they stand."""

from collections.abc import Mapping
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.cimpl import NewTopic

from schemas.topics import TopicSpec
from worker.shell.client_config import for_producer

REACH_BROKER_S = 10.0
CREATE_S = 30.0


class TopicError(Exception):
    """Topics could not be created or are laid out wrongly; the message says what to do."""


def create_topics(client_config: Mapping[str, str], specs: list[TopicSpec], replication: int) -> list[str]:
    """Create those topics that are missing; returns their names. Calling it again changes nothing.

    Args:
        client_config: librdkafka settings.
        specs: of the topics.
        replication: replicas of each partition; -1 leaves it to the broker's default.

    Raises:
        TopicError: no broker answers, creation is refused, or a topic that exists is laid out in another way.
    """
    admin = admin_client(client_config)
    partitions = partitions_by_topic(admin, client_config)
    missing = [spec for spec in specs if spec.name not in partitions]
    if missing:
        _create(admin, missing, replication)
    _check(admin, [spec for spec in specs if spec.name in partitions], partitions)
    return [spec.name for spec in missing]


def admin_client(client_config: Mapping[str, str]) -> AdminClient:
    """A client that says nothing by itself: what goes wrong is raised with what to do about it."""
    return AdminClient({"log_level": 0, **for_producer(client_config)})


def partitions_by_topic(admin: AdminClient, client_config: Mapping[str, str]) -> dict[str, int]:
    """Partition counts of all topics of the cluster.

    Raises:
        TopicError: no broker answers.
    """
    try:
        found = admin.list_topics(timeout=REACH_BROKER_S).topics
    except KafkaException as error:
        servers = client_config.get("bootstrap.servers", "")
        raise TopicError(
            f"no Kafka broker answered at {servers} within {REACH_BROKER_S:.0f} s ({error.args[0].str()}). "
            "Is it running, and is --bootstrap right? `nextclick broker` starts one on this machine"
        ) from None
    return {name: len(topic.partitions) for name, topic in found.items()}


def _create(admin: AdminClient, specs: list[TopicSpec], replication: int) -> None:
    topics = [
        NewTopic(spec.name, spec.partitions, replication_factor=replication, config=spec.config)
        for spec in specs
    ]
    futures: dict[str, Future[None]] = admin.create_topics(topics, operation_timeout=CREATE_S)
    for name, future in futures.items():
        try:
            future.result(CREATE_S)
        except KafkaException as error:
            # Somebody else may have created it since we looked: that is what was wanted.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicError(f"topic {name} could not be created: {error.args[0].str()}") from None


def _check(admin: AdminClient, specs: list[TopicSpec], partitions: Mapping[str, int]) -> None:
    """Hold topics that existed before against what the system relies on."""
    for spec in specs:
        if partitions[spec.name] != spec.partitions:
            raise TopicError(
                f"topic {spec.name} has {partitions[spec.name]} partitions, {spec.partitions} are needed: "
                "topics keyed by session id must have equally many. Name the count with --partitions, or "
                "alter the topic"
            )
        policy = _cleanup_policy(admin, spec.name)
        if policy != spec.config["cleanup.policy"]:
            raise TopicError(
                f"topic {spec.name} has cleanup.policy={policy}, it must be {spec.config['cleanup.policy']}: "
                f"kafka-configs.sh --alter --topic {spec.name} --add-config "
                f"cleanup.policy={spec.config['cleanup.policy']}"
            )


def _cleanup_policy(admin: AdminClient, topic: str) -> str:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    entries = admin.describe_configs([resource])[resource].result(REACH_BROKER_S)
    return str(entries["cleanup.policy"].value)
