"""What is told of rights that are lacking, and what is kept out of it."""

import pytest
from confluent_kafka import KafkaError

from schemas.topics import TopicNames
from worker.shell.access_rights import acl_hint
from worker.shell.secrets import MASK, is_secret, without_secrets

TOPICS = TopicNames()
CONFIG = {"bootstrap.servers": "kafka-1:9092", "sasl.username": "o'hara", "sasl.password": "hunter2"}
ADD = """kafka-acls.sh --bootstrap-server kafka-1:9092 --add --allow-principal 'User:o'"'"'hara' """


def hint(code: int, text: str = "", topic: str | None = None) -> str | None:
    """The hint for an error of the worker above."""
    return acl_hint(KafkaError(code, text), CONFIG, TOPICS, "shop", topic)


@pytest.mark.parametrize(
    ("code", "refused", "command"),
    [
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "READ group shop", "--operation Read --group shop"),
        (
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "WRITE and DESCRIBE transactional ids that begin with shop",
            "--operation Write --operation Describe --transactional-id shop --resource-pattern-type prefixed",
        ),
        (
            KafkaError.CLUSTER_AUTHORIZATION_FAILED,
            "IDEMPOTENT_WRITE cluster",
            "--operation IdempotentWrite --cluster",
        ),
    ],
)
def test_an_error_leads_to_the_command_that_mends_it(code: int, refused: str, command: str) -> None:
    assert hint(code) == f"principal User:o'hara may not {refused}: {ADD}{command}"


def test_a_topic_that_the_caller_knows_is_the_one_that_is_told() -> None:
    told = hint(KafkaError.TOPIC_AUTHORIZATION_FAILED, topic=TOPICS.dead_letters)
    command = f"{ADD}--operation Write --topic {TOPICS.dead_letters}"
    assert told == f"principal User:o'hara may not WRITE topic {TOPICS.dead_letters}: {command}"


def test_a_topic_that_the_error_names_is_the_one_that_is_told() -> None:
    told = hint(KafkaError.TOPIC_AUTHORIZATION_FAILED, f"Subscribed topic not available: {TOPICS.models}")
    command = f"{ADD}--operation Read --topic {TOPICS.models}"
    assert told == f"principal User:o'hara may not READ topic {TOPICS.models}: {command}"


def test_where_nobody_knows_the_topic_all_five_are_told() -> None:
    told = hint(KafkaError.TOPIC_AUTHORIZATION_FAILED, "Broker: Topic authorization failed") or ""
    assert told.count("may not") == 5
    assert all(f"--topic {getattr(TOPICS, field)}" in told for field in TOPICS.__struct_fields__)


def test_another_error_is_no_matter_of_rights() -> None:
    assert hint(KafkaError._TIMED_OUT) is None


def test_the_commands_hold_no_secret() -> None:
    assert "hunter2" not in (hint(KafkaError.TOPIC_AUTHORIZATION_FAILED) or "")


def test_values_of_secret_settings_are_masked_whole_and_in_part() -> None:
    config = {**CONFIG, "sasl.oauthbearer.config": "principal=x scope=long-secret", "client.id": "hunter"}
    text = "hunter2 of hunter, unrecognized from: scope=long-secret, not principal"
    assert without_secrets(text, config) == f"{MASK} of hunter, unrecognized from: {MASK}, not principal"


def test_short_words_of_a_secret_do_not_mask_half_of_the_text() -> None:
    assert without_secrets("as a rule", {"ssl.key.password": "a b c d"}) == "as a rule"


@pytest.mark.parametrize(
    ("key", "secret"),
    [("ssl.key.pem", True), ("SSL.Keystore.Password", True), ("sasl.username", False), ("client.id", False)],
)
def test_secret_settings_are_known_by_their_names(key: str, secret: bool) -> None:
    assert is_secret(key) == secret
