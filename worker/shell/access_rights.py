"""What a worker's principal must be allowed, and how to say which right it lacks.

Asked for at the start (`lacking_rights`), and told where a broker refuses something at run time (`acl_hint`).
"""

import shlex
from collections.abc import Mapping, Sequence
from enum import Enum

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._topic import TopicDescription

from schemas.topics import TopicNames
from worker.shell.secrets import without_secrets

log = structlog.get_logger()

_DESCRIBE_S = 10.0


class Operation(Enum):
    """A right, as messages write it; `value` is how kafka-acls.sh does."""

    READ = "Read"
    WRITE = "Write"
    DESCRIBE = "Describe"
    IDEMPOTENT_WRITE = "IdempotentWrite"


_READ = (Operation.READ,)
_WRITE = (Operation.WRITE,)


def acl_hint(
    error: KafkaError,
    client_config: Mapping[str, str],
    topics: TopicNames,
    group_id: str,
    topic: str | None = None,
) -> str | None:
    """Which access right is lacking where the broker refused something at run time; None for other errors.

    Args:
        error: what librdkafka reported.
        client_config: librdkafka settings, for the principal's name and the brokers.
        topics: the five topic names.
        group_id: of the consumer group; transactional ids begin with it.
        topic: that the error is about, where the caller knows it.
    """
    code = error.code()
    if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
        return _right(client_config, "group", group_id, _READ)
    if code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
        return (
            f"principal {_principal(client_config)} may not WRITE and DESCRIBE transactional ids that begin "
            f"with {group_id}: {transactional_command(client_config, group_id)}"
        )
    if code == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
        return _right(client_config, "cluster", "", (Operation.IDEMPOTENT_WRITE,))
    if code != KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return None
    needed = needed_rights(topics)
    named = [topic] if topic in needed else [name for name in needed if name in error.str()]
    return "; ".join(_right(client_config, "topic", name, needed[name]) for name in named or needed)


def lacking_rights(
    admin: AdminClient,
    client_config: Mapping[str, str],
    topics: TopicNames,
    group_id: str,
    found: Mapping[str, TopicDescription | None],
) -> list[str]:
    """One line per topic or group on which the principal may not do what a worker does.

    Rights on transactional ids cannot be asked for: they show when the producer starts.
    """
    lacking = []
    for name, needed in needed_rights(topics).items():
        described = found[name]
        allowed = [] if described is None else _operations(described.authorized_operations)
        refused = () if allowed is None else tuple(one for one in needed if one.name not in allowed)
        if refused:
            lacking.append(_right(client_config, "topic", name, refused))
    if not _may_read_group(admin, client_config, group_id):
        lacking.append(_right(client_config, "group", group_id, _READ))
    return lacking


def _operations(reported: Sequence[Enum] | None) -> list[str] | None:
    """Names of the AclOperations that are allowed; None where the broker does not say.

    Who gets an answer may at least describe, so an empty list is no answer either.
    """
    return [operation.name for operation in reported] if reported else None


def _may_read_group(admin: AdminClient, client_config: Mapping[str, str], group_id: str) -> bool:
    """Whether it may join; a group that nobody has joined yet is described, too."""
    future = admin.describe_consumer_groups(
        [group_id], include_authorized_operations=True, request_timeout=_DESCRIBE_S
    )[group_id]
    try:
        allowed = _operations(future.result().authorized_operations)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return False
        log.info(
            "group_rights_unchecked",
            group_id=group_id,
            reason=without_secrets(error.args[0].str(), client_config),
        )
        return True
    return allowed is None or Operation.READ.name in allowed


def needed_rights(topics: TopicNames) -> dict[str, tuple[Operation, ...]]:
    """What a worker does with each topic. These rights imply DESCRIBE."""
    return {
        topics.clicks: _READ,
        topics.recommendations: _WRITE,
        topics.dead_letters: _WRITE,
        topics.session_histories: (*_READ, *_WRITE),
        topics.models: _READ,
    }


def _right(client_config: Mapping[str, str], kind: str, name: str, operations: tuple[Operation, ...]) -> str:
    """`principal … may not …:` and the command that mends it; kind is an option of kafka-acls.sh."""
    wanted = " and ".join(operation.name for operation in operations)
    command = _command(client_config, kind, name, operations)
    return f"principal {_principal(client_config)} may not {wanted} {f'{kind} {name}'.strip()}: {command}"


def transactional_command(client_config: Mapping[str, str], group_id: str) -> str:
    """What lets the principal use all transactional ids that begin with the group's name."""
    operations = (Operation.WRITE, Operation.DESCRIBE)
    command = _command(client_config, "transactional-id", group_id, operations)
    return f"{command} --resource-pattern-type prefixed"


def _command(
    client_config: Mapping[str, str], kind: str, name: str, operations: tuple[Operation, ...]
) -> str:
    options = " ".join(f"--operation {operation.value}" for operation in operations)
    resource = f"--{kind} {shlex.quote(name)}" if name else f"--{kind}"
    servers = client_config.get("bootstrap.servers", "")
    return (
        f"kafka-acls.sh --bootstrap-server {servers} --add "
        f"--allow-principal {shlex.quote(_principal(client_config))} {options} {resource}"
    )


def _principal(client_config: Mapping[str, str]) -> str:
    """Over mutual TLS or Kerberos the broker makes up the name; then the operator has to know it."""
    return f"User:{client_config.get('sasl.username') or '<name>'}"
