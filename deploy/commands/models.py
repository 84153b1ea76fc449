"""`nextclick models`: announce a model to the workers, list what was announced."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from deploy.settings import Connection

if TYPE_CHECKING:  # imported where it is used, so that `--help` stays quick
    from schemas.model_artefact import Artefact
    from training.announce import AnnouncementLog

app = App(name="models", help="Announce models to the workers, and list them.")

_CONNECTION = Connection()


@app.command
def announce(folder: Path, /, *, note: str = "", connection: Connection = _CONNECTION) -> None:
    """Tell every worker to take up the model in FOLDER. It is verified first, in full; broken, it is refused.

    Announcing an older model again rolls back to it. Workers read the model from the same absolute path.

    Example:

        nextclick models announce models/20260102T030405-89abcdef --note "after the spring sale"

    Parameters
    ----------
    folder
        The model's folder: manifest.json, items.json, weights.safetensors.
    note
        Free text for `nextclick models list`.
    """
    from training.announce import announce as announce_model

    made = announce_model(connection.client_config(), connection.models_topic, folder, note=note)
    print(f"announced {made.model_version} on {connection.models_topic}")  # noqa: T201


@app.command(name="list")
def list_(
    *,
    models: Path = Path("models"),
    json: Annotated[bool, Parameter(negative=())] = False,
    connection: Connection = _CONNECTION,
) -> None:
    """Show the announced models, newest last, which one serves, and what else lies in the local store.

    Example:

        nextclick models list

    Parameters
    ----------
    models
        Folder of local models; those never announced are shown, too. It need not exist.
    json
        One JSON document on standard output instead of the table.
    """
    from training.announce import read_announcements

    found = read_announcements(connection.client_config(), connection.models_topic)
    stored = dict(_stored(models))
    if json:
        _print_json(found, stored)
    else:
        _print_table(found, stored)


def _stored(store: Path) -> "Iterable[tuple[Path, Artefact | str]]":
    """Each folder of the store with its model, or what is wrong with it; unfinished ones are left out."""
    from schemas.model_artefact import BrokenArtefactError
    from training.announce import verify

    for folder in sorted(store.iterdir()) if store.is_dir() else ():
        if folder.is_dir() and not folder.name.startswith("."):
            try:
                yield folder, verify(folder)
            except BrokenArtefactError as error:
                yield folder, str(error).removeprefix(f"{folder}: ")


def _print_json(found: "AnnouncementLog", stored: "dict[Path, Artefact | str]") -> None:
    import msgspec

    document = {
        "serving": found.serving.model_version if found.serving else None,
        "announced": found.announcements,
        "stored": [
            {"folder": str(folder), "trouble": one}
            if isinstance(one, str)
            else {
                "folder": str(folder),
                "model_version": one.manifest.model_version,
                "scores": one.manifest.scores,
            }
            for folder, one in stored.items()
        ],
        "foreign": found.foreign,
        "foreign_count": found.foreign_count,
    }
    print(msgspec.json.encode(document).decode())  # noqa: T201


def _print_table(found: "AnnouncementLog", stored: "dict[Path, Artefact | str]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    announced = {one.model_version for one in found.announcements}
    table = Table(box=None, pad_edge=False)
    for heading in ("version", "announced (UTC)", "recall@20", ""):
        table.add_column(heading, no_wrap=True, overflow="fold")
    table.add_column("note")
    for folder, one in stored.items():
        if isinstance(one, str):
            table.add_row(Text(folder.name), "", "", "broken", Text(one))
        elif one.manifest.model_version not in announced:
            recall = one.manifest.scores.get("recall@20")
            table.add_row(one.manifest.model_version, "", _figure(recall), "local", Text(str(folder)))
    for announcement in found.announcements:
        at = datetime.fromtimestamp(announcement.announced_at_ms / 1_000, UTC)
        table.add_row(
            announcement.model_version,
            f"{at:%Y-%m-%d %H:%M:%S}",
            _figure(announcement.scores.get("recall@20")),
            "serving" if announcement is found.serving else "",
            Text(announcement.note),
        )
    console = Console(highlight=False)
    if table.row_count:
        console.print(table)
    if found.serving is None:
        console.print("no model is announced: workers recommend popular items")
    for line in found.foreign:
        console.print(f"not an announcement, {line}", markup=False)
    if found.foreign_count > len(found.foreign):
        console.print(f"… and {found.foreign_count - len(found.foreign)} more")


def _figure(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"
