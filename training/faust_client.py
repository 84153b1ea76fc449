"""Kafka settings for Faust: what we write for librdkafka, as Faust's broker addresses and credentials.

Faust speaks to Kafka through aiokafka, which takes objects where librdkafka takes names. Settings of security
are translated or refused, never dropped in silence; the others tune librdkafka's buffers and mean nothing
here.
"""

import ssl
from collections.abc import Mapping

from faust.auth import SASLCredentials, SSLCredentials
from yarl import URL

_PROTOCOLS = {"plaintext", "ssl", "sasl_plaintext", "sasl_ssl"}
_MECHANISMS = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}
_SECURITY_PREFIXES = ("sasl.", "ssl.", "enable.ssl.", "enable.sasl.", "security.")
_TRANSLATED = {
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
    "enable.ssl.certificate.verification",
}


class UnmappedSettingError(ValueError):
    """A Kafka setting that Faust's client cannot honour; the message names it and what works instead."""


def broker_urls(client_config: Mapping[str, str]) -> list[URL]:
    """`bootstrap.servers` as the addresses that Faust wants.

    Raises:
        UnmappedSettingError: it is missing, or an entry is no host:port.
    """
    servers = [entry.strip() for entry in client_config.get("bootstrap.servers", "").split(",")]
    try:
        urls = [URL(f"kafka://{entry.rpartition('://')[2]}") for entry in servers if entry]
    except ValueError as error:
        raise UnmappedSettingError(f"bootstrap.servers: {error}") from None
    if not urls or not all(url.host for url in urls):
        raise UnmappedSettingError(f"bootstrap.servers must be host:port[,…], not {','.join(servers)!r}")
    return urls


def credentials(client_config: Mapping[str, str]) -> SASLCredentials | SSLCredentials | None:
    """The security settings as Faust's credentials; None for plain text.

    Raises:
        UnmappedSettingError: a security setting that cannot be honoured, is missing or is wrong.
    """
    for key in client_config:
        if key.startswith(_SECURITY_PREFIXES) and key not in _TRANSLATED:
            raise UnmappedSettingError(
                f"{key} cannot be used by the scheduler (its Kafka client is aiokafka); "
                f"it knows {', '.join(sorted(_TRANSLATED))}"
            )
    protocol = client_config.get("security.protocol", "plaintext").lower()
    if protocol not in _PROTOCOLS:
        raise UnmappedSettingError(f"security.protocol must be one of {', '.join(sorted(_PROTOCOLS))}")
    context = _ssl_context(client_config) if protocol.endswith("ssl") else None
    if protocol.startswith("sasl"):
        return _sasl(client_config, context)
    return SSLCredentials(context) if context else None


def _sasl(config: Mapping[str, str], context: ssl.SSLContext | None) -> SASLCredentials:
    mechanism = (config.get("sasl.mechanisms") or config.get("sasl.mechanism") or "").upper()
    if mechanism not in _MECHANISMS:
        raise UnmappedSettingError(
            f"for the scheduler sasl.mechanisms must be one of {', '.join(sorted(_MECHANISMS))}, "
            f"not {mechanism!r}"
        )
    username, password = config.get("sasl.username"), config.get("sasl.password")
    if not username or not password:
        raise UnmappedSettingError("sasl.username and sasl.password are both needed")
    return SASLCredentials(username=username, password=password, ssl_context=context, mechanism=mechanism)


def _ssl_context(config: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=config.get("ssl.ca.location") or None, cadata=config.get("ssl.ca.pem") or None
        )
        if certificate := config.get("ssl.certificate.location"):
            key, password = config.get("ssl.key.location"), config.get("ssl.key.password")
            context.load_cert_chain(certificate, key, password)
    except (OSError, ssl.SSLError) as error:
        raise UnmappedSettingError(f"the ssl.* files cannot be used: {error}") from None
    if config.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
        context.check_hostname = False
    if config.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
