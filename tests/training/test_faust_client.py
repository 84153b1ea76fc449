"""Kafka settings for Faust: each is translated or refused."""

import ssl
from pathlib import Path

import pytest
from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import AuthProtocol, SASLMechanism

from training.faust_client import UnmappedSettingError, broker_urls, credentials

SASL = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanisms": "SCRAM-SHA-512",
    "sasl.username": "u",
    "sasl.password": "p",
}


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ("localhost:9092", ["kafka://localhost:9092"]),
        ("a:1, b:2", ["kafka://a:1", "kafka://b:2"]),
        ("SASL_SSL://a:1", ["kafka://a:1"]),
        ("[::1]:9092", ["kafka://[::1]:9092"]),
    ],
)
def test_addresses(servers: str, expected: list[str]) -> None:
    assert [str(url) for url in broker_urls({"bootstrap.servers": servers})] == expected


@pytest.mark.parametrize("config", [{}, {"bootstrap.servers": ""}, {"bootstrap.servers": "a:port"}])
def test_bad_addresses(config: dict[str, str]) -> None:
    with pytest.raises(UnmappedSettingError, match=r"bootstrap\.servers"):
        broker_urls(config)


def test_plain_text_needs_no_credentials() -> None:
    assert credentials({"bootstrap.servers": "a:1", "linger.ms": "5"}) is None


def test_sasl() -> None:
    made = credentials(SASL)
    assert isinstance(made, SASLCredentials)
    assert (made.protocol, made.mechanism) == (AuthProtocol.SASL_PLAINTEXT, SASLMechanism.SCRAM_SHA_512)
    assert (made.username, made.password, made.ssl_context) == ("u", "p", None)


def test_sasl_over_tls_verifies_the_broker() -> None:
    made = credentials({**SASL, "security.protocol": "sasl_ssl"})
    assert isinstance(made, SASLCredentials)
    assert made.protocol is AuthProtocol.SASL_SSL
    assert made.ssl_context is not None
    assert made.ssl_context.check_hostname
    assert made.ssl_context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("extra", "check_hostname", "verify_mode"),
    [
        ({"ssl.endpoint.identification.algorithm": "none"}, False, ssl.CERT_REQUIRED),
        ({"enable.ssl.certificate.verification": "false"}, False, ssl.CERT_NONE),
    ],
)
def test_tls_checks_can_be_relaxed(
    extra: dict[str, str], check_hostname: bool, verify_mode: ssl.VerifyMode
) -> None:
    made = credentials({"security.protocol": "ssl", **extra})
    assert isinstance(made, SSLCredentials)
    assert made.context.check_hostname is check_hostname
    assert made.context.verify_mode is verify_mode


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"security.protocol": "quic"}, "security.protocol"),
        ({**SASL, "sasl.mechanisms": "GSSAPI"}, "sasl.mechanisms"),
        ({**SASL, "sasl.mechanisms": ""}, "sasl.mechanisms"),
        ({**SASL, "sasl.password": ""}, "sasl.password"),
        ({**SASL, "sasl.oauthbearer.config": "x"}, "sasl.oauthbearer.config"),
        ({"security.protocol": "ssl", "ssl.keystore.location": "k.p12"}, "ssl.keystore.location"),
    ],
)
def test_what_cannot_be_honoured_is_refused(config: dict[str, str], named: str) -> None:
    with pytest.raises(UnmappedSettingError, match=named.replace(".", r"\.")):
        credentials(config)


def test_a_missing_certificate_file_is_refused(tmp_path: Path) -> None:
    config = {"security.protocol": "ssl", "ssl.ca.location": str(tmp_path / "none.pem")}
    with pytest.raises(UnmappedSettingError, match=r"ssl\.\* files"):
        credentials(config)
