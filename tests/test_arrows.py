"""The arrows of the house: schemas <- worker.core <- {worker.shell, training} <- deploy.

Imports inside functions count as well, and so do relative ones and `import_module("…")`. The second half of
this file holds the check itself against small trees with one deliberate mistake each.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]

# Who may import whom. The longest name that fits a module is its house, so `worker` is worker/__init__.py
# alone: it is run by every import of worker.core, and so may pull in nothing.
_ARROWS: dict[str, set[str]] = {
    "schemas": {"schemas"},
    "worker": set(),
    "worker.core": {"schemas", "worker.core"},
    "worker.shell": {"schemas", "worker.core", "worker.shell"},
    "training": {"schemas", "worker.core", "training"},
    "deploy": {"schemas", "worker.core", "worker.shell", "training", "deploy"},
    "tests": {"schemas", "worker.core", "worker.shell", "training", "deploy", "tests"},
}

# All that the core needs from outside. What is not here reads files, clocks, sockets or the environment, or
# might: a new name is added here only if it does none of that.
_PURE = {
    "__future__",
    "abc",
    "array",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
}
_PURE |= {"math", "operator", "types", "typing", "numpy", "torch", "numba", "llvmlite"}


def _house_of(module: str) -> str | None:
    """The entry of _ARROWS that a module belongs to; None for one that is not ours."""
    fitting = [house for house in _ARROWS if module == house or module.startswith(house + ".")]
    return max(fitting, key=len, default=None)


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """(line, absolute module name) of each import of a file that lies in `package`.

    `from a import b` gives both `a` and `a.b`, because b may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def _broken_arrows(root: Path) -> list[str]:
    """One line per wrong import below root: `path:line: why`. Raises if a package is not there at all."""
    broken = []
    for top in sorted({house.partition(".")[0] for house in _ARROWS}):
        if not (root / top).is_dir():
            raise FileNotFoundError(f"{root / top}: the house has lost a package")
        for path in sorted((root / top).rglob("*.py")):
            broken += _broken_in(path, path.relative_to(root))
    return broken


def _broken_in(path: Path, shown: Path) -> list[str]:
    parts = shown.with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    house = _house_of(module)
    assert house is not None
    imports = list(_imports(ast.parse(path.read_text("utf-8"), str(path)), ".".join(parts[:-1])))
    broken = {}  # by line and house: `from a import b` names a module twice
    for line, target in imports:
        other = _house_of(target)
        if other is None:
            if house == "worker.core" and target.partition(".")[0] not in _PURE:
                broken[line, target.partition(".")[0]] = f"worker.core imports {target}, which may do I/O"
        elif other != "worker" and other not in _ARROWS[house]:
            broken[line, other] = f"{house} imports {other}"
    houses = {_house_of(target) for _, target in imports}
    if {"worker.shell", "training"} <= houses and house not in {"deploy", "tests"}:
        broken[0, "both"] = f"{house} imports both worker.shell and training: only deploy and tests may"
    return [f"{shown}:{line}: {why}" for (line, _), why in broken.items()]


def test_every_import_follows_the_arrows() -> None:
    assert _broken_arrows(_ROOT) == []


def _house_with(tmp_path: Path, file: str, source: str) -> Path:
    for package in ("schemas", "worker", "worker/core", "worker/shell", "training", "deploy", "tests"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / file).write_text(source)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "source", "why"),
    [
        ("schemas/click.py", "import worker.core.step", "schemas imports worker.core"),
        ("schemas/click.py", "import deploy.cli", "schemas imports deploy"),
        ("worker/__init__.py", "from worker.core import step", "worker imports worker.core"),
        ("worker/core/step.py", "from worker.shell import sink", "worker.core imports worker.shell"),
        ("worker/core/step.py", "from ..shell import sink", "worker.core imports worker.shell"),
        ("worker/core/__init__.py", "from .. import shell", "worker.core imports worker.shell"),
        ("worker/core/step.py", "from training.fit import fit", "worker.core imports training"),
        ("worker/shell/sink.py", "import training", "worker.shell imports training"),
        ("worker/shell/sink.py", "def f():\n    from training import fit", "worker.shell imports training"),
        ("worker/shell/sink.py", "m = import_module('training.fit')", "worker.shell imports training"),
        ("worker/shell/sink.py", "m = importlib.import_module('deploy')", "worker.shell imports deploy"),
        ("training/fit.py", "from worker import core, shell", "training imports worker.shell"),
        ("training/fit.py", "import training.gate, worker.shell.sink", "only deploy and tests may"),
        ("training/fit.py", "import tests.conftest", "training imports tests"),
        ("deploy/cli.py", "from tests import conftest", "deploy imports tests"),
        ("worker/core/step.py", "import time", "worker.core imports time"),
        ("worker/core/step.py", "from os import path", "worker.core imports os"),
        ("worker/core/step.py", "def f():\n    import logging", "worker.core imports logging"),
        ("worker/core/step.py", "import http.client", "worker.core imports http.client"),
        (
            "worker/core/step.py",
            "from confluent_kafka import Producer",
            "worker.core imports confluent_kafka",
        ),
        ("worker/core/step.py", "import prometheus_client", "worker.core imports prometheus_client"),
        ("worker/core/step.py", "import pathlib, socket, structlog", "worker.core imports socket"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, source: str, why: str) -> None:
    found = _broken_arrows(_house_with(tmp_path, file, source))
    assert any(line.startswith(f"{file}:") and why in line for line in found), found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("worker/core/step.py", "import torch.nn\nfrom schemas import click\nfrom . import waves"),
        ("worker/shell/sink.py", "import os\nfrom worker.core.step import step\nfrom ..core import waves"),
        ("training/fit.py", "from worker.core import step\nimport pathlib"),
        ("deploy/cli.py", "def f():\n    import training.fit\n    import worker.shell.sink"),
        ("tests/test_x.py", "import worker.shell, training, deploy"),
        ("schemas/click.py", "import workers_of_the_world, training_wheels"),
    ],
)
def test_a_right_import_is_not(tmp_path: Path, file: str, source: str) -> None:
    assert _broken_arrows(_house_with(tmp_path, file, source)) == []


def test_a_lost_package_is_not_taken_for_a_clean_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="lost a package"):
        _broken_arrows(tmp_path)
