"""Writes the published JSON Schemas from the types: `python -m schemas.publish`; `--check` only compares.

A schema says what can be said in JSON Schema. The few rules beyond it are in `schemas/README.md`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from schemas import announcement, model_manifest, session_history
from schemas.announcement import ModelAnnouncement
from schemas.click import ClickOnTheWire
from schemas.dead_letter import DeadLetterHeaders
from schemas.model_manifest import ModelManifest
from schemas.recommendation import Recommendation
from schemas.session_history import SessionHistory

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = Path(__file__).parent / "json"
AGAIN = "python -m schemas.publish"


class Contract(msgspec.Struct, frozen=True):
    """One published contract; the version rises when a reader of the old one could fail on the new one."""

    name: str
    wire_type: type[msgspec.Struct]
    title: str
    description: str
    version: int = 1


CONTRACTS = (
    Contract(
        "click",
        ClickOnTheWire,
        "Click",
        "Value of a record of the clicks topic; its key is the session id. Unknown fields are ignored.",
    ),
    Contract(
        "recommendation",
        Recommendation,
        "Recommendation",
        "Value of a record of the recommendations topic; its key is the session id.",
    ),
    Contract(
        "dead_letter_headers",
        DeadLetterHeaders,
        "Dead letter headers",
        "Headers of a record of the dead-letter topic, as one object of UTF-8 text. Key, value and all other "
        "headers are those of the record that could not be read.",
    ),
    Contract(
        "session_history",
        SessionHistory,
        "Session history",
        "Value of a record of the changelog topic; its key is the session id. No value: forgotten.",
        session_history.FORMAT_VERSION,
    ),
    Contract(
        "model_announcement",
        ModelAnnouncement,
        "Model announcement",
        "Value of a record of the models topic; its key is the model version.",
        announcement.FORMAT_VERSION,
    ),
    Contract(
        "model_manifest",
        ModelManifest,
        "Model manifest",
        "The file manifest.json of a model folder.",
        model_manifest.FORMAT_VERSION,
    ),
)


def json_schema(contract: Contract) -> dict[str, Any]:
    """The JSON Schema of a contract: the type's own, with its root moved to the top and named."""
    generated = msgspec.json.schema(contract.wire_type)
    definitions = generated["$defs"]
    root = definitions.pop(contract.wire_type.__name__)
    schema = {
        "$schema": DIALECT,
        "$id": f"urn:nextclick:schemas:{contract.name}:v{contract.version}",
        **root,
        "title": contract.title,
        "description": contract.description,
    }
    return {**schema, "$defs": definitions} if definitions else schema


def published_files() -> dict[str, str]:
    """File name and text of every schema, as they should lie in `schemas/json`."""
    return {
        f"{contract.name}.json": json.dumps(json_schema(contract), indent=2) + "\n" for contract in CONTRACTS
    }


def drift(folder: Path) -> list[str]:
    """What in this folder differs from the types, one line for each file; empty where all agree."""
    wanted = published_files()
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.json"))}
    missing = [f"{name} is missing" for name in wanted if name not in found]
    differing = [
        f"{name} differs from its type" for name in wanted if found.get(name, wanted[name]) != wanted[name]
    ]
    return missing + differing + [f"{name} belongs to no contract" for name in found if name not in wanted]


def write(folder: Path) -> None:
    """Write every schema; files of contracts that are no more are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = published_files()
    for path in folder.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code, 1 where `--check` found a difference."""
    parser = argparse.ArgumentParser(
        prog=AGAIN, description="Write the published JSON Schemas from the types."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where a file differs"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the schemas lie (%(default)s)")
    options = parser.parse_args(arguments)
    if not options.check:
        write(options.folder)
        return 0
    differences = drift(options.folder)
    for line in differences:
        sys.stderr.write(f"{line}\n")
    if differences:
        sys.stderr.write(f"write them anew with `{AGAIN}` and commit them with the change\n")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
