"""Where settings come from: flags, then the environment (`NEXTCLICK_…`), then a TOML file.

The file is the one that `NEXTCLICK_CONFIG` names, else `nextclick.toml` in the current folder:

    bootstrap = "kafka-1:9092,kafka-2:9092"    # a key at the top holds for every command that has it
    [kafka]                                    # any librdkafka setting
    "security.protocol" = "SASL_SSL"
    [worker]                                   # a table per command
    top_k = 20
"""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter, Token

from schemas.topics import TopicNames
from worker.shell.secrets import MASK, is_secret

ENV_PREFIX = "NEXTCLICK_"
ENV_KAFKA_PREFIX = "NEXTCLICK_KAFKA_"
ENV_CONFIG = "NEXTCLICK_CONFIG"
ENV_DEBUG = "NEXTCLICK_DEBUG"
DEFAULT_CONFIG_FILE = "nextclick.toml"


class UsageError(Exception):
    """The command line, the environment or the file asks for something that cannot be: exit code 2."""


@Parameter(name="*", group="Kafka")
@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach Kafka, and what the topics are called."""

    bootstrap: str = "localhost:9092"
    """Brokers to ask first, host:port separated by commas."""

    kafka: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Any librdkafka setting as key=value; may be repeated. In the file: the [kafka] table. In the
    environment: NEXTCLICK_KAFKA_SASL_USERNAME for sasl.username, and so on."""

    clicks_topic: str = TopicNames().clicks
    """Topic that the clicks come from."""

    recommendations_topic: str = TopicNames().recommendations
    """Topic that the recommendations go to."""

    dead_letters_topic: str = TopicNames().dead_letters
    """Topic for records that are no clicks."""

    session_histories_topic: str = TopicNames().session_histories
    """Changelog topic of the session table."""

    models_topic: str = TopicNames().models
    """Topic on which models are announced."""

    def topics(self) -> TopicNames:
        """The five topic names."""
        return TopicNames(
            clicks=self.clicks_topic,
            recommendations=self.recommendations_topic,
            dead_letters=self.dead_letters_topic,
            session_histories=self.session_histories_topic,
            models=self.models_topic,
        )

    def __post_init__(self) -> None:
        for entry in self.kafka:
            if not entry.partition("=")[0].strip() or "=" not in entry:
                # Not shown: it may be a password that lost its key.
                raise UsageError("--kafka takes key=value, also in file and environment: an entry has no =")
            if entry.startswith("bootstrap.servers="):
                raise UsageError(
                    "bootstrap.servers is set with --bootstrap, NEXTCLICK_BOOTSTRAP or bootstrap = …"
                )

    def client_config(self) -> dict[str, str]:
        """Settings for any librdkafka client; of two entries for one key the last one holds."""
        given = dict(entry.split("=", 1) for entry in self.kafka)
        return {"bootstrap.servers": self.bootstrap} | given


def masked(entry: str) -> str:
    """`key=value` of a librdkafka setting, with the value masked where it is a credential."""
    key, found, _ = entry.partition("=")
    return f"{key}={MASK}" if found and is_secret(key) else entry


class SettingsFile:
    """A cyclopts configuration source: fills what neither flags nor environment set, from the TOML file."""

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Append tokens to the arguments of the command that is about to run."""
        _take_kafka(arguments, _kafka_from_environment(), "env")
        path = config_path()
        if path is None or not commands:
            return
        document = read_document(path)
        _take_kafka(arguments, _kafka_entries(_table(document, "kafka")), "file")
        topics = {f"{name}_topic": value for name, value in _table(document, "topics").items()}
        if unknown := topics.keys() - {f"{name}_topic" for name in TopicNames.__struct_fields__}:
            names = ", ".join(TopicNames.__struct_fields__)
            raise UsageError(
                f"{path}: unknown in [topics]: {', '.join(sorted(unknown))[:-6]}; known: {names}"
            )
        shared = {key: value for key, value in document.items() if not isinstance(value, dict)}
        _take_table(arguments, _table(document, *commands), path, strict=True)
        _take_table(arguments, topics, path, strict=False)
        _take_table(arguments, shared, path, strict=False)


class SourceLog:
    """A cyclopts configuration source that adds nothing: it notes where each value came from."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Note the source of each argument that has one; what has none is at its default."""
        for argument in arguments:
            if argument.tokens:
                key = argument.name.lstrip("-").replace("-", "_")
                self.sources[key] = ", ".join(dict.fromkeys(token.source for token in argument.tokens))


def config_path() -> Path | None:
    """The TOML file in force, None where there is none.

    Raises:
        UsageError: `NEXTCLICK_CONFIG` names a file that does not exist.
    """
    named = os.environ.get(ENV_CONFIG)
    path = Path(named or DEFAULT_CONFIG_FILE)
    if path.is_file():
        return path
    if named:
        raise UsageError(f"{ENV_CONFIG} names {named}, which is no file")
    return None


def read_document(path: Path) -> dict[str, Any]:
    """Parse the TOML file.

    Raises:
        UsageError: it cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None


def _table(document: dict[str, Any], *keys: str) -> dict[str, Any]:
    found: Any = document
    for key in keys:
        found = found.get(key, {}) if isinstance(found, dict) else {}
    if not isinstance(found, dict):
        raise UsageError(f"the settings file: [{'.'.join(keys)}] must be a table")
    return found


def _kafka_entries(table: dict[str, Any], prefix: str = "") -> list[str]:
    """key=value entries; to TOML, `sasl.password = …` without quotes is a table in a table."""
    entries: list[str] = []
    for key, value in table.items():
        if isinstance(value, dict):
            entries += _kafka_entries(value, f"{prefix}{key}.")
        else:
            entries += [f"{prefix}{key}={text}" for text in _texts(value)]
    return entries


def _kafka_from_environment() -> list[str]:
    return [
        f"{name.removeprefix(ENV_KAFKA_PREFIX).lower().replace('_', '.')}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(ENV_KAFKA_PREFIX)
    ]


def _take_kafka(arguments: ArgumentCollection, entries: list[str], source: str) -> None:
    """Put entries before those that are there: of two settings for one key the later, nearer one wins."""
    for argument in arguments:
        if argument.name == "--kafka":
            argument.tokens[:0] = [Token(keyword="kafka", value=entry, source=source) for entry in entries]


def _take_table(arguments: ArgumentCollection, table: dict[str, Any], path: Path, *, strict: bool) -> None:
    by_name = {
        argument.name.lstrip("-").replace("-", "_"): argument for argument in arguments if argument.parse
    }
    for key, value in table.items():
        argument = by_name.get(key)
        if argument is None:
            if strict and not isinstance(value, dict):
                raise CycloptsError(
                    msg=f"{path}: unknown setting {key!r}; known: {', '.join(sorted(by_name))}"
                )
            continue
        if not argument.tokens:
            for index, text in enumerate(_texts(value)):
                argument.append(Token(keyword=key, value=text, source="file", index=index))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, bool):
        yield str(value).lower()
    else:
        yield str(value)
