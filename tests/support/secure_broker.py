"""A real broker that asks who is there: SASL/PLAIN, SCRAM and TLS listeners, and ACLs that it enforces.

The PLAINTEXT listener stays open for the test's own hands: who comes in there is anonymous and may do
everything. All others may do what an ACL gives them. Certificates come from the keytool of the Java that
the broker runs on, so nothing else is needed on the machine.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from deploy.broker_host import java_binary, java_environment
from deploy.local_broker import LocalBroker
from deploy.topic_admin import create_topics
from schemas.topics import TopicNames, TopicSpec

PLAIN_USER = "paula"
PLAIN_PASSWORD = "plain-canary-5c1d"  # noqa: S105 - of a broker that lives for a minute, on loopback
SCRAM_USER = "scarlett"
SCRAM_PASSWORD = "scram-canary-93fe"  # noqa: S105
STORE_PASSWORD = "store-canary-77ab"  # noqa: S105
TLS_USER = "CN=tilda"
"""Over mutual TLS a principal is called what its certificate says."""

SECRETS = (PLAIN_PASSWORD, SCRAM_PASSWORD, STORE_PASSWORD)
_ADMIN_TIMEOUT_S = 30.0
_PLAIN_JAAS = (
    f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{PLAIN_USER}="{PLAIN_PASSWORD}";'
)
_SCRAM_JAAS = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


@dataclass(frozen=True)
class Login:
    """How one principal comes in: the listener's address and the client's settings."""

    user: str
    bootstrap: str
    settings: dict[str, str]

    def flags(self) -> list[str]:
        """The settings as a command takes them."""
        return [part for key, value in self.settings.items() for part in ("--kafka", f"{key}={value}")]

    def client_config(self) -> dict[str, str]:
        """The settings as a client takes them."""
        return {"bootstrap.servers": self.bootstrap, **self.settings}


class SecureBroker:
    """What a test asks of the broker; made by `secure_broker`."""

    def __init__(self, broker: LocalBroker, folder: Path) -> None:
        self.bootstrap = broker.bootstrap
        self._broker = broker
        self._folder = folder
        self.admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})

    @property
    def broker_certificate(self) -> Path:
        """PEM; who trusts it trusts the broker."""
        return self._folder / "broker.pem"

    @property
    def other_certificate(self) -> Path:
        """PEM; who trusts only this one does not trust the broker."""
        return self._folder / "client.pem"

    def plain(self, user: str = PLAIN_USER, password: str = PLAIN_PASSWORD) -> Login:
        """SASL/PLAIN without encryption."""
        return Login(user, self._broker.address("SASL"), _sasl("SASL_PLAINTEXT", "PLAIN", user, password))

    def scram(self, user: str = SCRAM_USER, password: str = SCRAM_PASSWORD) -> Login:
        """SCRAM-SHA-512 without encryption."""
        settings = _sasl("SASL_PLAINTEXT", "SCRAM-SHA-512", user, password)
        return Login(user, self._broker.address("SASL"), settings)

    def scram_over_tls(self, trusted: Path | None = None) -> Login:
        """SCRAM-SHA-512 through TLS; by default the broker's certificate is trusted."""
        settings = _sasl("SASL_SSL", "SCRAM-SHA-512", SCRAM_USER, SCRAM_PASSWORD)
        settings["ssl.ca.location"] = str(trusted or self.broker_certificate)
        return Login(SCRAM_USER, self._broker.address("SASL_TLS"), settings)

    def mutual_tls(self) -> Login:
        """TLS in which the client shows a certificate, too."""
        settings = {
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.broker_certificate),
            "ssl.keystore.location": str(self._folder / "client.p12"),
            "ssl.keystore.password": STORE_PASSWORD,
        }
        return Login(TLS_USER, self._broker.address("TLS"), settings)

    def add_scram_user(self, user: str, password: str = SCRAM_PASSWORD) -> Login:
        """Make a user that may do nothing yet."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(user, info, password.encode())
        for future in self.admin.alter_user_scram_credentials([change]).values():
            future.result(_ADMIN_TIMEOUT_S)
        _wait_until(lambda: self._knows_user(user))
        return self.scram(user, password)

    def allow(
        self,
        user: str,
        kind: ResourceType,
        name: str,
        operations: Sequence[AclOperation],
        *,
        prefix: bool = False,
    ) -> None:
        """Let this user do these things to one resource, or to all whose names begin so."""
        pattern = ResourcePatternType.PREFIXED if prefix else ResourcePatternType.LITERAL
        bindings = [
            AclBinding(kind, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
            for operation in operations
        ]
        for future in self.admin.create_acls(bindings).values():
            future.result(_ADMIN_TIMEOUT_S)
        of_user = AclBindingFilter(
            ResourceType.ANY,
            None,  # type: ignore[arg-type]  # as its documentation says: any name
            ResourcePatternType.ANY,
            f"User:{user}",
            None,  # type: ignore[arg-type]  # any host
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        _wait_until(lambda: set(bindings) <= set(self.admin.describe_acls(of_user).result(_ADMIN_TIMEOUT_S)))

    def create_topics(self, specs: list[TopicSpec]) -> None:
        """Make topics, and wait until every partition has a leader."""
        create_topics({"bootstrap.servers": self.bootstrap}, specs, replication=1)
        _wait_until(lambda: all(self._has_leaders(spec) for spec in specs))

    def allow_worker(self, user: str, topics: TopicNames, group_id: str) -> None:
        """What a worker needs, and no more."""
        read, write, describe = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE
        for topic in (topics.clicks, topics.models):
            self.allow(user, ResourceType.TOPIC, topic, [read])
        for topic in (topics.recommendations, topics.dead_letters):
            self.allow(user, ResourceType.TOPIC, topic, [write])
        self.allow(user, ResourceType.TOPIC, topics.session_histories, [read, write])
        self.allow(user, ResourceType.GROUP, group_id, [read])
        self.allow(user, ResourceType.TRANSACTIONAL_ID, group_id, [write, describe], prefix=True)

    def _knows_user(self, user: str) -> bool:
        answers = self.admin.describe_user_scram_credentials([user])
        assert isinstance(answers, dict)
        try:
            answers[user].result(_ADMIN_TIMEOUT_S)
        except KafkaException:
            return False
        return True

    def _has_leaders(self, spec: TopicSpec) -> bool:
        topic = self.admin.list_topics(timeout=_ADMIN_TIMEOUT_S).topics.get(spec.name)
        return topic is not None and all(
            number in topic.partitions and topic.partitions[number].leader >= 0
            for number in range(spec.partitions)
        )


def _wait_until(broker_knows: Callable[[], bool]) -> None:
    """The controller says that it is done before the broker's own side has heard of it."""
    deadline_s = time.monotonic() + _ADMIN_TIMEOUT_S
    while not broker_knows():
        assert time.monotonic() < deadline_s, "the broker did not hear of the change"
        time.sleep(0.02)


@contextmanager
def secure_broker(folder: Path) -> Iterator[SecureBroker]:
    """Start it, with its certificates in this folder; some five seconds."""
    _make_certificate(folder, "broker", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1")
    _make_certificate(folder, "client", TLS_USER)
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.sasl.plain.sasl.jaas.config": _PLAIN_JAAS,
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": _SCRAM_JAAS,
        "listener.name.sasl_tls.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_tls.scram-sha-512.sasl.jaas.config": _SCRAM_JAAS,
        "listener.name.tls.ssl.client.auth": "required",
        "listener.name.tls.ssl.truststore.type": "PEM",
        "listener.name.tls.ssl.truststore.location": str(folder / "client.pem"),
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(folder / "broker.p12"),
        "ssl.keystore.password": STORE_PASSWORD,
    }
    listeners = {"SASL": "SASL_PLAINTEXT", "SASL_TLS": "SASL_SSL", "TLS": "SSL"}
    with LocalBroker(properties=properties, listeners=listeners) as broker:
        secure = SecureBroker(broker, folder)
        secure.add_scram_user(SCRAM_USER)
        yield secure


def _sasl(protocol: str, mechanism: str, user: str, password: str) -> dict[str, str]:
    return {
        "security.protocol": protocol,
        "sasl.mechanism": mechanism,
        "sasl.username": user,
        "sasl.password": password,
    }


def _make_certificate(folder: Path, name: str, subject: str, *extensions: str) -> None:
    """`name.p12` with a key and a certificate signed by itself, and `name.pem` with the latter alone."""
    store = ("-alias", name, "-keystore", str(folder / f"{name}.p12"), "-storepass", STORE_PASSWORD)
    _keytool("-genkeypair", *store, "-storetype", "PKCS12", "-keyalg", "EC", "-dname", subject, *extensions)
    _keytool("-exportcert", "-rfc", *store, "-file", str(folder / f"{name}.pem"))


def _keytool(*arguments: str) -> None:
    # A heap this small and one compiler keep it under half a second.
    command = [str(java_binary().with_name("keytool")), "-J-XX:TieredStopAtLevel=1", *arguments]
    done = subprocess.run(command, capture_output=True, env=java_environment(), check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
