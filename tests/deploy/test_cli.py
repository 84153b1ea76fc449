"""The command line: where settings come from, what errors look like, what --help teaches."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.cli import COMMANDS
from deploy.settings import ENV_PREFIX, masked

SUBCOMMANDS = (
    *("topics create", "topics list", "models announce", "models list"),
    *("dead-letters list", "dead-letters replay"),
)
GROUPS = {"topics", "models", "dead-letters"}


def nextclick(
    *arguments: str, env: Mapping[str, str] | None = None, folder: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process of its own, with no settings but the given ones."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "deploy", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**clean, "PYTHONPATH": root, "COLUMNS": "200", **(env or {})},
    )


def effective(printed: str) -> dict[str, str]:
    """The lines of --print-config by name."""
    return dict(line.split(" = ", 1) for line in printed.splitlines())


FILE = """
bootstrap = "file:1"
max_batch = 7
[kafka]
"security.protocol" = "SASL_SSL"
"sasl.password" = "from-the-file"
[topics]
clicks = "shop.clicks"
[worker]
top_k = 11
idle_timeout_ms = 60000
"""


def test_flags_come_before_environment_before_file_before_defaults(tmp_path: Path) -> None:
    (tmp_path / "nextclick.toml").write_text(FILE)
    done = nextclick(
        *("worker", "--print-config", "--top-k", "33"),
        env={"NEXTCLICK_TOP_K": "22", "NEXTCLICK_IDLE_TIMEOUT_MS": "90000"},
        folder=tmp_path,
    )
    shown = effective(done.stdout)
    assert shown["top_k"] == "33  # cli"
    assert shown["idle_timeout_ms"] == "90000  # env"
    assert shown["bootstrap"] == '"file:1"  # file'
    assert shown["max_batch"] == "7  # file"
    assert shown["clicks_topic"] == '"shop.clicks"  # file'
    assert shown["history_length"] == "32  # default"
    assert shown['kafka."security.protocol"'].startswith('"SASL_SSL"')


def test_the_file_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[worker]\ntop_k = 5\n")
    named = {"NEXTCLICK_CONFIG": str(tmp_path / "other.toml")}
    assert effective(nextclick("worker", "--print-config", env=named).stdout)["top_k"] == "5  # file"
    missing = nextclick("worker", "--print-config", env={"NEXTCLICK_CONFIG": str(tmp_path / "no.toml")})
    assert missing.returncode == 2
    assert "no.toml" in missing.stderr


def test_a_nearer_kafka_setting_wins_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "nextclick.toml").write_text('[kafka]\n"client.id" = "file"\n"acks" = "1"\n"linger.ms" = 3\n')
    done = nextclick(
        *("worker", "--print-config", "--kafka", "client.id=flag"),
        env={"NEXTCLICK_KAFKA_CLIENT_ID": "env", "NEXTCLICK_KAFKA_ACKS": "all"},
        folder=tmp_path,
    )
    shown = effective(done.stdout)
    assert shown['kafka."client.id"'].startswith('"flag"')
    assert shown['kafka."acks"'].startswith('"all"')
    assert shown['kafka."linger.ms"'].startswith('"3"')


def test_a_kafka_setting_without_quotes_means_the_same_and_is_masked(tmp_path: Path) -> None:
    (tmp_path / "nextclick.toml").write_text(
        '[kafka]\nsasl.password = "hunter2"\nenable.idempotence = true\n'
    )
    shown = effective(nextclick("worker", "--print-config", folder=tmp_path).stdout)
    assert shown['kafka."sasl.password"'].startswith('"********"')
    assert shown['kafka."enable.idempotence"'].startswith('"true"')


def test_secrets_are_masked_wherever_they_come_from(tmp_path: Path) -> None:
    (tmp_path / "nextclick.toml").write_text(FILE)
    done = nextclick(
        *("worker", "--print-config", "--kafka", "ssl.key.pem=from-the-flag"),
        env={"NEXTCLICK_KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": "from-the-env"},
        folder=tmp_path,
    )
    assert done.returncode == 0
    assert "from-the" not in done.stdout + done.stderr
    assert done.stdout.count("********") == 3
    assert masked("sasl.username=alice") == "sasl.username=alice"
    assert "hunter2" not in masked("sasl.oauthbearer.assertion.private.key.passphrase=hunter2")


def test_a_kafka_setting_that_does_not_exist_is_named() -> None:
    done = nextclick("worker", "--kafka", "securty.protocol=ssl")
    assert done.returncode == 1
    assert 'No such configuration property: "securty.protocol"' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["wroker"], "worker"),
        (["worker", "--tpo-k", "3"], "--top-k"),
        (["worker", "--top-k", "many"], "many"),
        (["worker", "--top-k", "0"], "between 1 and 1000"),
        (["worker", "--kafka", "nonsense"], "key=value"),
        (["worker", "--kafka", "bootstrap.servers=a:1"], "--bootstrap"),
        (["topics", "create", "--partitions", "0"], "partitions"),
    ],
)
def test_usage_errors_name_the_trouble_and_exit_with_2(arguments: list[str], says: str) -> None:
    done = nextclick(*arguments)
    assert done.returncode == 2
    assert says in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[worker]\ntpo_k = 3\n", "tpo_k"),
        ("top_k = [", "nextclick.toml"),
        ("worker = 3", "table"),
        ("[topics]\nclikcs = 'a'", "clikcs"),
    ],
)
def test_a_bad_file_is_a_usage_error_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "nextclick.toml").write_text(text)
    done = nextclick("worker", "--print-config", folder=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr + done.stdout


def test_failures_exit_with_1_and_show_a_traceback_only_with_debug() -> None:
    failed = nextclick("topics", "list", "--bootstrap", "127.0.0.1:1")
    assert failed.returncode == 1
    assert "no Kafka broker answered at 127.0.0.1:1" in failed.stderr
    assert "Traceback" not in failed.stderr
    debugged = nextclick("topics", "list", "--bootstrap", "127.0.0.1:1", "--debug")
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr


def test_the_list_of_commands_says_what_each_is_for() -> None:
    shown = nextclick("--help").stdout
    for name, (_, text) in COMMANDS.items():
        assert name in shown
        assert text in shown


@pytest.mark.parametrize("command", [*sorted(set(COMMANDS) - GROUPS), *SUBCOMMANDS])
def test_help_teaches_with_an_example(command: str) -> None:
    done = nextclick(*command.split(), "--help")
    assert done.returncode == 0
    assert f"nextclick {command}" in done.stdout.partition("xample")[2]
