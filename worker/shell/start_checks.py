"""What must be so before a worker reads its first click: brokers, login, topics, rights. Changes nothing.

Each refusal says what is missing and how to mend it, and shows no secret.
"""

import re
import shlex
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._topic import TopicDescription

from schemas.topics import TopicNames
from worker.shell.access_rights import lacking_rights, needed_rights, transactional_command
from worker.shell.client_config import client_logger, for_consumer, for_producer
from worker.shell.failures import CannotStart
from worker.shell.secrets import without_secrets

log = structlog.get_logger()

REACH_BROKER_S = 10.0
_ATTEMPT_S = 0.2
_ANOTHER_BROKER_S = 0.5
"""How long another broker has to take the login that one has refused."""

_NEW_TOPIC_S = 2.0
"""How long a missing topic is looked for: it may have been created a moment ago."""

_DESCRIBE_S = 10.0


def check_start(
    client_config: Mapping[str, str], topics: TopicNames, group_id: str, exactly_once: bool
) -> None:
    """Refuse to start where the cluster is not as a worker needs it.

    Args:
        client_config: librdkafka settings.
        topics: the five topic names.
        group_id: of the consumer group; transactional ids begin with it.
        exactly_once: whether outputs will go out in transactions.

    Raises:
        CannotStart: with what is missing and how to mend it.
    """
    admin = _connect(client_config, topics.clicks)
    found = _describe_patiently(admin, client_config, topics)
    lacking = lacking_rights(admin, client_config, topics, group_id, found)
    if lacking:
        if exactly_once:
            lacking.append(
                "exactly_once also writes transactional ids that begin with the group's name; whether it may "
                f"shows later, so in case: {transactional_command(client_config, group_id)}"
            )
        raise CannotStart("\n".join(lacking))
    partitions = {name: len(one.partitions) for name, one in found.items() if one is not None}
    _check_partitions(partitions, topics, client_config)
    _check_changelog_policy(admin, topics.session_histories, client_config)


class _Heard:
    """Keeps what librdkafka complains of while it connects."""

    def __init__(self) -> None:
        self.refusal: KafkaError | None = None
        self.last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        if error.code() in {KafkaError._AUTHENTICATION, KafkaError._SSL}:
            self.refusal = error
        elif error.code() != KafkaError._ALL_BROKERS_DOWN:  # which says nothing of why
            self.last = error


def _connect(client_config: Mapping[str, str], topic: str) -> AdminClient:
    """A client whose brokers have answered; the answer to a wrong password does not take the whole time."""
    heard = _Heard()
    # Its own log lines would say the same as the error, many times; log_level or debug bring them back.
    config: dict[str, Any] = {"log_level": 0, **for_consumer(client_config), "group.id": "nextclick-starts"}
    try:
        consumer = Consumer({**config, "error_cb": heard}, logger=client_logger())
        admin = AdminClient({"log_level": 0, **for_producer(client_config)}, logger=client_logger())
    except KafkaException as error:
        raise CannotStart(f"a Kafka setting is wrong: {_text(error.args[0], client_config)}") from None
    try:
        if _wait_for_brokers(consumer, topic, heard):
            return admin
    finally:
        consumer.close()
    if heard.refusal is not None:
        raise CannotStart(_login_refused(heard.refusal, client_config))
    raise CannotStart(_no_answer(heard.last, client_config))


def _wait_for_brokers(consumer: Consumer, topic: str, heard: _Heard) -> bool:
    """Wait for metadata with a broker in it; not long for another broker once one has refused the login.

    Not by AdminClient.describe_cluster: of a broker that is up and not taken into the cluster yet, its answer
    ends the process (librdkafka 2.16.1, an assertion in rd_kafka_admin_response_parse). A consumer's metadata
    do not create the topic.
    """
    give_up_s = time.monotonic() + REACH_BROKER_S
    while time.monotonic() < give_up_s:
        try:
            if consumer.list_topics(topic, timeout=_ATTEMPT_S).brokers:
                return True
        except KafkaException:
            pass  # it only says that there was no answer; why is heard now
        consumer.poll(0)
        if heard.refusal is not None:
            give_up_s = min(give_up_s, time.monotonic() + _ANOTHER_BROKER_S)
    return False


def _login_refused(error: KafkaError, client_config: Mapping[str, str]) -> str:
    said = _text(error, client_config)
    protocol = client_config.get("security.protocol", "plaintext")
    if error.code() == KafkaError._SSL:
        return (
            f"the TLS handshake failed: {said}. Does ssl.ca.location name the authority that signed the "
            f"brokers' certificate, and is security.protocol ({protocol}) that of the listener?"
        )
    mechanism = client_config.get("sasl.mechanism") or client_config.get("sasl.mechanisms", "GSSAPI")
    if "handshake failed" in said:
        return (
            f"authentication failed: {said}. The listener does not take sasl.mechanism={mechanism} with "
            f"security.protocol={protocol}: choose what it offers, or another listener in --bootstrap"
        )
    user = client_config.get("sasl.username", "")
    return (
        f"authentication failed: {said}. Check sasl.username ({user or 'not set'}), sasl.password and "
        f"sasl.mechanism ({mechanism}): the brokers must know that user for that mechanism"
    )


def _no_answer(last_heard: KafkaError | None, client_config: Mapping[str, str]) -> str:
    """A listener that wants TLS or a login just closes the connection, so there may be nothing to quote."""
    protocol = client_config.get("security.protocol", "plaintext")
    said = f" ({_text(last_heard, client_config)})" if last_heard is not None else ""
    return (
        f"no Kafka broker answered at {_servers(client_config)} within {REACH_BROKER_S:.0f} s{said}: is it "
        f"running, is --bootstrap right, and is security.protocol ({protocol}) that of the listener?"
    )


def _describe_patiently(
    admin: AdminClient, client_config: Mapping[str, str], topics: TopicNames
) -> dict[str, TopicDescription | None]:
    """As `_describe`, all five. A topic that was made just now may not be known to each broker yet."""
    give_up_s = time.monotonic() + _NEW_TOPIC_S
    while missing := needed_rights(topics).keys() - (found := _describe(admin, client_config, topics)).keys():
        if time.monotonic() >= give_up_s:
            raise CannotStart(
                f"missing on {_servers(client_config)}: topic {', '.join(sorted(missing))}. "
                "Create with: nextclick topics create"
            )
        time.sleep(0.1)
    return found


def _describe(
    admin: AdminClient, client_config: Mapping[str, str], topics: TopicNames
) -> dict[str, TopicDescription | None]:
    """The topics that exist, by name; None for one that this principal may not see.

    Asked for by name: in a list of all topics, one that may not be seen looks like one that does not exist.
    """
    names = list(needed_rights(topics))
    found: dict[str, TopicDescription | None] = {}
    for name, answer in _describe_futures(admin, names).items():
        try:
            found[name] = answer.result()
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                found[name] = None
            elif code in {KafkaError._TIMED_OUT, KafkaError._TRANSPORT}:  # it went away meanwhile
                raise CannotStart(_no_answer(error.args[0], client_config)) from None
            elif code != KafkaError.UNKNOWN_TOPIC_OR_PART:
                said = _text(error.args[0], client_config)
                raise CannotStart(f"topic {name} could not be looked up: {said}") from None
    return found


def _describe_futures(admin: AdminClient, names: list[str]) -> dict[str, Future[TopicDescription]]:
    wanted = TopicCollection(names)
    futures: dict[str, Future[TopicDescription]] = admin.describe_topics(
        wanted, include_authorized_operations=True, request_timeout=_DESCRIBE_S
    )
    return futures


def _check_partitions(
    partitions: Mapping[str, int], topics: TopicNames, client_config: Mapping[str, str]
) -> None:
    """A session's click, changelog record and outputs share a partition number, so counts must agree."""
    wanted, changelog = partitions[topics.clicks], topics.session_histories
    if partitions[changelog] != wanted:
        raise CannotStart(
            f"topic {changelog} has {partitions[changelog]} partitions and {topics.clicks} has {wanted}: a "
            "session's history must lie in the partition of its clicks, so they must have equally many. "
            f"Recreate it: kafka-topics.sh --bootstrap-server {_servers(client_config)} --delete --topic "
            f"{shlex.quote(changelog)}, then nextclick topics create --partitions {wanted}. "
            "Sessions are then rebuilt from new clicks"
        )
    outputs = {name: partitions[name] for name in (topics.recommendations, topics.dead_letters)}
    if any(count != wanted for count in outputs.values()):
        raise CannotStart(
            f"topics must have the same number of partitions as {topics.clicks} ({wanted}), they have "
            f"{outputs}: add partitions to those that have fewer (kafka-topics.sh --alter --partitions "
            f"{wanted}), recreate those that have more (nextclick topics create --partitions {wanted})"
        )


def _check_changelog_policy(admin: AdminClient, changelog: str, client_config: Mapping[str, str]) -> None:
    """Without compaction, retention would delete the histories of sessions that still live."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, changelog)
    try:
        entries = admin.describe_configs([resource], request_timeout=_DESCRIBE_S)[resource].result()
    except KafkaException as error:
        reason = _text(error.args[0], client_config)
        log.info(
            "changelog_policy_unchecked", topic=changelog, needed="cleanup.policy=compact", reason=reason
        )
        return
    policy = str(entries["cleanup.policy"].value)
    if "compact" not in policy.split(","):
        raise CannotStart(
            f"topic {changelog} has cleanup.policy={policy}, so the histories of live sessions would be "
            f"deleted: kafka-configs.sh --bootstrap-server {_servers(client_config)} --alter --topic "
            f"{shlex.quote(changelog)} --add-config cleanup.policy=compact"
        )


def _servers(client_config: Mapping[str, str]) -> str:
    return client_config.get("bootstrap.servers", "")


def _text(error: KafkaError, client_config: Mapping[str, str]) -> str:
    """What librdkafka says, without its own state and without secrets."""
    said = re.sub(r" \(after \d+ms in state \w+\)$", "", error.str())
    return without_secrets(said, client_config)
