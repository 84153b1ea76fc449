"""The README says what is: settings, commands, files and metrics that it names are there."""

import re
from dataclasses import fields
from pathlib import Path

from prometheus_client import CollectorRegistry

from deploy.cli import COMMANDS
from deploy.settings import Connection
from worker.shell.metrics import WorkerMetrics
from worker.shell.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_setting_of_the_worker_stands_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", README, re.MULTILINE))
    defaults = {field.name: field.default for field in fields(WorkerSettings)}
    defaults["bootstrap"] = Connection().bootstrap
    assert rows == {name: str(default) for name, default in defaults.items()}


def test_every_command_is_told_of() -> None:
    for name in COMMANDS:
        assert f"nextclick {name}" in README, name


def test_every_command_that_is_told_of_exists() -> None:
    named = set(re.findall(r"nextclick ([a-z]+)(?![\w-])", README))
    assert named - set(COMMANDS) == set()


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_metrics_that_are_named_exist() -> None:
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    known = {sample.name for family in registry.collect() for sample in family.samples}
    known |= {family.name for family in registry.collect()} | {f"{f.name}_total" for f in registry.collect()}
    assert set(re.findall(r"nextclick_\w+", README)) <= known
