"""Loading an announced model."""

from pathlib import Path

from schemas.announcement import ModelAnnouncement
from schemas.model_artefact import sha256_hex
from schemas.model_manifest import MANIFEST_FILE
from tests.support.artefacts import write_random_model
from worker.shell.rollout import load_model


def test_what_serving_wants_is_made_where_no_click_waits(tmp_path: Path) -> None:
    folder = write_random_model(tmp_path / "m", ["a", "b", "c"], hidden_size=4, seed=5, version="m-5")
    checksum = sha256_hex((folder / MANIFEST_FILE).read_bytes())
    model = load_model(ModelAnnouncement(1, "m-5", folder.as_uri(), checksum, 0))
    assert model.items == ["a", "b", "c"]
    assert {"catalogue", "_few"} <= vars(model).keys()
