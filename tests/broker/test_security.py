"""Who may come in, who may do what, and what nobody gets to read: workers on a broker that asks."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._resource import ResourceType
from structlog.testing import capture_logs

from schemas.click import Click
from schemas.recommendation import decode_recommendation
from schemas.topics import TopicNames, TopicSpec, topic_specs
from tests.support.kafka_io import read_records, send_clicks
from tests.support.secure_broker import SECRETS, TLS_USER, Login, SecureBroker, secure_broker
from tests.support.worker_process import WarmWorkerProcess, prefixed_topics
from worker.shell.access_rights import acl_hint
from worker.shell.failures import CannotStart
from worker.shell.start_checks import check_start

WRONG_PASSWORD = "wrong-canary-20fa"  # noqa: S105 - a wrong one is often nearly the right one
DEBUG = ("--debug", "--kafka", "debug=conf,security,broker")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """One broker with all listeners for this file: each test has topics, a group and ACLs of its own."""
    with secure_broker(tmp_path_factory.mktemp("certificates")) as broker:
        yield broker


@pytest.fixture
def names(broker: SecureBroker, topic_prefix: str) -> TopicNames:
    """The five topics of one test, made by the anonymous administrator."""
    names = prefixed_topics(topic_prefix)
    broker.create_topics(topic_specs(names, 2, -1))
    return names


@pytest.fixture
def group_id(topic_prefix: str) -> str:
    """As a WarmWorkerProcess calls it."""
    return f"{topic_prefix}group"


@pytest.fixture
def stranger(broker: SecureBroker, topic_prefix: str) -> Login:
    """A user of this test alone, who may log in and nothing else."""
    return broker.add_scram_user(f"{topic_prefix}user")


def assert_no_secret(text: str) -> None:
    for secret in (*SECRETS, WRONG_PASSWORD):
        assert secret not in text


def failure(login: Login, prefix: str, *arguments: str) -> str:
    """What a worker says that cannot start; it must end by itself, with 1, and show no secret."""
    with WarmWorkerProcess(login.bootstrap, prefix, [*login.flags(), *arguments]) as worker:
        assert worker.process.wait(60) == 1, worker.log()
        said = worker.log()
    assert_no_secret(said)
    return said


def refusal(login: Login, names: TopicNames, group_id: str, *, exactly_once: bool = False) -> str:
    """What the checks say to this login, without the seconds that a process takes."""
    with pytest.raises(CannotStart) as refused:
        check_start(login.client_config(), names, group_id, exactly_once)
    assert_no_secret(str(refused.value))
    return str(refused.value)


@pytest.mark.parametrize(
    ("login_of", "arguments"),
    [
        pytest.param(SecureBroker.plain, DEBUG, id="SASL/PLAIN, talkative"),
        pytest.param(SecureBroker.scram, (), id="SCRAM-SHA-512"),
        pytest.param(SecureBroker.scram_over_tls, (), id="SCRAM-SHA-512 through TLS"),
        pytest.param(SecureBroker.mutual_tls, (), id="mutual TLS"),
    ],
)
def test_a_click_is_answered_and_no_secret_is_shown(
    broker: SecureBroker,
    names: TopicNames,
    topic_prefix: str,
    group_id: str,
    login_of: Callable[[SecureBroker], Login],
    arguments: tuple[str, ...],
) -> None:
    login = login_of(broker)
    broker.allow_worker(login.user, names, group_id)
    click = Click("e-1", "s-1", "item-1", 1_760_000_000_000)
    with WarmWorkerProcess(login.bootstrap, topic_prefix, [*login.flags(), *arguments]) as worker:
        worker.wait_ready()
        send_clicks(broker.bootstrap, names.clicks, [click])
        [record] = read_records(broker.bootstrap, names.recommendations, 1)
        assert decode_recommendation(record.value() or b"").event_id == click.event_id
        shown = worker.get("/metrics")[1] + worker.get("/readyz")[1]
        assert worker.terminate() == 0
        assert ("sasl.password" in worker.log()) == bool(arguments), "the client tells its settings if asked"
        assert_no_secret(worker.log() + shown)


def test_a_wrong_password_is_told_at_once_and_not_shown(broker: SecureBroker, topic_prefix: str) -> None:
    said = failure(broker.plain(password=WRONG_PASSWORD), topic_prefix, *DEBUG)
    assert "Traceback" in said
    assert "error: authentication failed" in said
    assert "sasl.password" in said


def test_an_unknown_certificate_is_told(broker: SecureBroker, topic_prefix: str) -> None:
    said = failure(broker.scram_over_tls(trusted=broker.other_certificate), topic_prefix)
    assert "error: the TLS handshake failed" in said
    assert "ssl.ca.location" in said


def test_who_may_only_read_is_told_which_rights_to_get(
    broker: SecureBroker, names: TopicNames, topic_prefix: str, group_id: str, stranger: Login
) -> None:
    broker.allow(stranger.user, ResourceType.TOPIC, topic_prefix, [AclOperation.READ], prefix=True)
    broker.allow(stranger.user, ResourceType.GROUP, group_id, [AclOperation.READ])
    said = failure(stranger, topic_prefix)
    for topic in (names.recommendations, names.dead_letters, names.session_histories):
        assert (
            f"principal User:{stranger.user} may not WRITE topic {topic}: "
            f"kafka-acls.sh --bootstrap-server {stranger.bootstrap} --add "
            f"--allow-principal User:{stranger.user} --operation Write --topic {topic}\n"
        ) in said
    assert f"topic {names.clicks}" not in said
    assert f"topic {names.models}" not in said


def test_topics_that_may_not_be_seen_are_not_called_missing(
    names: TopicNames, group_id: str, stranger: Login
) -> None:
    said = refusal(stranger, names, group_id)
    assert "missing" not in said
    assert [line.partition(":")[2].partition(": kafka-acls.sh")[0] for line in said.splitlines()] == [
        f"{stranger.user} may not READ topic {names.clicks}",
        f"{stranger.user} may not WRITE topic {names.recommendations}",
        f"{stranger.user} may not WRITE topic {names.dead_letters}",
        f"{stranger.user} may not READ and WRITE topic {names.session_histories}",
        f"{stranger.user} may not READ topic {names.models}",
        f"{stranger.user} may not READ group {group_id}",
    ]


@pytest.mark.parametrize("granted", [(), (AclOperation.DESCRIBE,)])
def test_a_group_that_may_not_be_joined_is_told(
    broker: SecureBroker,
    names: TopicNames,
    topic_prefix: str,
    group_id: str,
    stranger: Login,
    granted: tuple[AclOperation, ...],
) -> None:
    rights = [AclOperation.READ, AclOperation.WRITE]
    broker.allow(stranger.user, ResourceType.TOPIC, topic_prefix, rights, prefix=True)
    if granted:
        broker.allow(stranger.user, ResourceType.GROUP, group_id, granted)
    said = refusal(stranger, names, group_id, exactly_once=True)
    first, second = said.splitlines()
    assert first.startswith(f"principal User:{stranger.user} may not READ group {group_id}: kafka-acls.sh ")
    assert f"--operation Describe --transactional-id {group_id} --resource-pattern-type prefixed" in second


def test_a_topic_that_is_not_there_is_missing_to_who_might_see_it(
    broker: SecureBroker, names: TopicNames, group_id: str, stranger: Login
) -> None:
    absent = replace_topic(names, session_histories=names.session_histories + "-absent")
    broker.allow_worker(stranger.user, absent, group_id)
    said = refusal(stranger, absent, group_id)
    assert said.startswith(f"missing on {stranger.bootstrap}: topic {absent.session_histories}. Create with")


def replace_topic(names: TopicNames, **changed: str) -> TopicNames:
    """The names with some of them changed."""
    return TopicNames(**{field: getattr(names, field) for field in names.__struct_fields__} | changed)


def test_just_enough_rights_are_enough(
    broker: SecureBroker, names: TopicNames, group_id: str, stranger: Login
) -> None:
    broker.allow_worker(stranger.user, names, group_id)
    with capture_logs() as lines:
        check_start(stranger.client_config(), names, group_id, exactly_once=True)
    # Reading and writing a topic does not include reading its settings.
    assert [line["event"] for line in lines] == ["changelog_policy_unchecked"]


def test_just_enough_rights_carry_a_transaction_with_offsets(
    broker: SecureBroker, names: TopicNames, group_id: str, stranger: Login
) -> None:
    broker.allow_worker(stranger.user, names, group_id)
    quiet: dict[str, Any] = {**stranger.client_config(), "log_level": 0}
    consumer = Consumer({**quiet, "group.id": group_id})
    producer = Producer({**quiet, "transactional.id": f"{group_id}-1"})
    producer.init_transactions(10)
    producer.begin_transaction()
    for topic in (names.recommendations, names.dead_letters, names.session_histories):
        producer.produce(topic, b"{}", "s-1")
    offsets = [TopicPartition(names.clicks, 0, 7)]
    producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 10)
    producer.commit_transaction(10)
    [committed] = consumer.committed([TopicPartition(names.clicks, 0)], 10)
    assert committed.offset == 7
    consumer.close()


def test_whose_name_the_broker_makes_up_is_not_given_a_wrong_one(
    broker: SecureBroker, names: TopicNames, group_id: str
) -> None:
    said = refusal(broker.mutual_tls(), names, group_id)
    assert "--allow-principal 'User:<name>' --operation Read" in said
    assert TLS_USER not in said


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"sasl.password": WRONG_PASSWORD},
            "Check sasl.username .scarlett., sasl.password and sasl.mechanism",
        ),
        ({"sasl.mechanism": "SCRAM-SHA-256"}, "does not take sasl.mechanism=SCRAM-SHA-256 with"),
        ({"security.protocol": "tls"}, "a Kafka setting is wrong: .*security.protocol"),
        ({"sasl.pasword": "x"}, "a Kafka setting is wrong: .*sasl.pasword"),
        ({"ssl.keystore.location": "{client}", "ssl.keystore.password": WRONG_PASSWORD}, "setting is wrong"),
        (
            {
                "sasl.mechanism": "OAUTHBEARER",
                "enable.sasl.oauthbearer.unsecure.jwt": "true",
                "sasl.oauthbearer.config": f"principal=x {WRONG_PASSWORD}",
            },
            r"authentication failed: .*\*\*\*\*\*\*\*\*",
        ),
    ],
)
def test_a_setting_that_cannot_work_is_told_without_its_secret(
    broker: SecureBroker, names: TopicNames, group_id: str, changed: dict[str, str], told: str
) -> None:
    login = broker.scram_over_tls()
    store = str(broker.other_certificate.with_suffix(".p12"))
    settings = {key: value.replace("{client}", store) for key, value in changed.items()}
    with pytest.raises(CannotStart, match=told) as refused:
        check_start({**login.client_config(), **settings}, names, group_id, exactly_once=True)
    assert_no_secret(str(refused.value))


def test_errors_at_run_time_lead_to_the_right_that_is_lacking(
    broker: SecureBroker, names: TopicNames, topic_prefix: str, group_id: str, stranger: Login
) -> None:
    config = stranger.client_config()
    broker.allow(stranger.user, ResourceType.TOPIC, topic_prefix, [AclOperation.READ], prefix=True)
    hint = partial(acl_hint, client_config=config, topics=names, group_id=group_id)
    quiet: dict[str, Any] = {**config, "log_level": 0}

    transactional = Producer({**quiet, "transactional.id": f"{group_id}-1"})
    with pytest.raises(KafkaException) as refused:
        transactional.init_transactions(10)
    assert "--operation Describe --transactional-id" in (hint(refused.value.args[0]) or "")

    reported: list[KafkaError | None] = []
    producer = Producer(quiet)
    producer.produce(names.dead_letters, b"x", on_delivery=lambda error, _: reported.append(error))
    producer.flush(10)
    [undelivered] = reported
    assert undelivered is not None
    said = hint(undelivered, topic=names.dead_letters) or ""
    assert f"may not WRITE topic {names.dead_letters}:" in said

    consumer = Consumer({**quiet, "group.id": group_id})
    consumer.subscribe([names.clicks])
    [record] = consumer.consume(1, 10)
    error = record.error()
    assert error is not None
    assert f"may not READ group {group_id}:" in (hint(error) or "")
    consumer.close()


def test_print_config_masks_every_secret(broker: SecureBroker) -> None:
    settings: Mapping[str, str] = {**broker.plain().settings, **broker.mutual_tls().settings}
    login = replace(broker.plain(), settings=dict(settings))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NEXTCLICK_")}
    done = subprocess.run(
        [sys.executable, "-m", "deploy", "worker", "--print-config", *login.flags()],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert 'kafka."ssl.keystore.password" = "********"' in done.stdout
    assert 'kafka."sasl.password" = "********"' in done.stdout
    assert_no_secret(done.stdout + done.stderr)


@pytest.mark.parametrize("changed", ["recommendations", "dead_letters", "session_histories"])
def test_topics_with_another_partition_count_are_refused_with_what_to_do(
    broker: SecureBroker, names: TopicNames, group_id: str, changed: str
) -> None:
    specs = {spec.name: spec for spec in topic_specs(names, 3, -1)}
    other = getattr(names, changed) + "-of-three"
    spec = specs[getattr(names, changed)]
    admin_config = {"bootstrap.servers": broker.bootstrap}
    broker.create_topics([TopicSpec(other, 3, spec.config)])
    with pytest.raises(CannotStart) as refused:
        check_start(admin_config, replace_topic(names, **{changed: other}), group_id, exactly_once=True)
    said = str(refused.value)
    assert other in said
    assert "nextclick topics create --partitions 2" in said
    assert ("Sessions are then rebuilt" in said) == (changed == "session_histories")


@pytest.mark.parametrize(("policy", "accepted"), [("delete", False), ("compact,delete", True)])
def test_a_changelog_that_is_not_compacted_is_refused_with_what_to_do(
    broker: SecureBroker, names: TopicNames, group_id: str, policy: str, accepted: bool
) -> None:
    admin_config = {"bootstrap.servers": broker.bootstrap}
    other = names.session_histories + "-other"
    broker.create_topics([TopicSpec(other, 2, {"cleanup.policy": policy})])
    changed = replace_topic(names, session_histories=other)
    if accepted:
        check_start(admin_config, changed, group_id, exactly_once=True)
    else:
        with pytest.raises(CannotStart, match=rf"--topic {other} --add-config cleanup\.policy=compact"):
            check_start(admin_config, changed, group_id, exactly_once=True)
