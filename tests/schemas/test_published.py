"""The published schemas, the golden samples and the codecs say the same."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas import publish
from tests.schemas.contracts import CODECS, FOLDER, sample_id, samples, schema_of, validator


def test_schema_files_are_what_the_types_say() -> None:
    assert publish.drift(FOLDER / "json") == []
    assert publish.main(["--check"]) == 0


def test_check_tells_of_each_kind_of_drift_and_writing_mends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "json"
    assert publish.main(["--folder", str(folder)]) == 0
    assert publish.main(["--check", "--folder", str(folder)]) == 0
    (folder / "click.json").write_text((folder / "click.json").read_text().replace("128", "129"))
    (folder / "recommendation.json").unlink()
    (folder / "basket.json").write_text("{}")
    assert publish.main(["--check", "--folder", str(folder)]) == 1
    said = capsys.readouterr().err
    for line in (
        "click.json differs",
        "recommendation.json is missing",
        "basket.json belongs",
        publish.AGAIN,
    ):
        assert line in said
    publish.main(["--folder", str(folder)])
    assert publish.drift(folder) == []


def test_every_contract_is_published_and_sampled() -> None:
    assert {contract.name for contract in publish.CONTRACTS} == set(CODECS)
    for kind in ("", "invalid"):
        assert {contract for contract, _ in samples(kind)} == set(CODECS)
    known = {path for kind in ("", "invalid", "codec_only") for _, path in samples(kind)}
    assert {path for path in (FOLDER / "samples").rglob("*") if path.is_file()} == known


@pytest.mark.parametrize("contract", CODECS)
def test_schemas_are_sound_and_name_themselves(contract: str) -> None:
    schema = schema_of(contract)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert re.fullmatch(rf"urn:nextclick:schemas:{contract}:v\d+", schema["$id"])
    assert schema["title"]
    assert schema["description"]
    assert schema["type"] == "object"


@pytest.mark.parametrize(("contract", "path"), samples(""), ids=sample_id)
def test_valid_samples_pass_schema_and_codec_and_survive_re_encoding(contract: str, path: Path) -> None:
    codec, data = CODECS[contract], path.read_bytes()
    validator(contract).validate(json.loads(data))
    value = codec.decode(data)
    again = codec.encode(value)
    assert codec.decode(again) == value
    validator(contract).validate(json.loads(again))


@pytest.mark.parametrize(("contract", "path"), samples(""), ids=sample_id)
def test_what_a_valid_sample_says_is_in_the_value(contract: str, path: Path) -> None:
    """Nothing that the contract names is lost or changed on the way, but integer ids, which become text."""
    written: dict[str, Any] = json.loads(path.read_bytes())
    codec = CODECS[contract]
    again: dict[str, Any] = json.loads(codec.encode(codec.decode(path.read_bytes())))
    for name in schema_of(contract)["properties"].keys() & written.keys():
        if contract == "click" and name.endswith("_id") and isinstance(written[name], int):
            assert again[name] == str(written[name])
        elif written[name] is not None:
            assert_holds(again[name], written[name], path.stem == "unknown_fields")


def assert_holds(again: Any, written: Any, may_lose_fields: bool) -> None:
    if not isinstance(written, dict):
        assert again == written
        return
    assert may_lose_fields or again.keys() >= written.keys()
    for name in written.keys() & again.keys():
        assert_holds(again[name], written[name], may_lose_fields)


@pytest.mark.parametrize(("contract", "path"), samples("invalid"), ids=sample_id)
def test_invalid_samples_fail_schema_and_codec(contract: str, path: Path) -> None:
    data = path.read_bytes()
    assert not validator(contract).is_valid(json.loads(data))
    with pytest.raises(ValueError):  # noqa: PT011 - every codec raises its own kind of ValueError
        CODECS[contract].decode(data)


@pytest.mark.parametrize(("contract", "path"), samples("codec_only"), ids=sample_id)
def test_what_json_schema_cannot_say_is_refused_by_the_codec(contract: str, path: Path) -> None:
    """Where one of these fails the schema as well, it belongs into `invalid/`."""
    data = path.read_bytes()
    validator(contract).validate(json.loads(data))
    with pytest.raises(ValueError):  # noqa: PT011 - every codec raises its own kind of ValueError
        CODECS[contract].decode(data)


@pytest.mark.parametrize(("contract", "path"), samples("invalid"), ids=sample_id)
def test_an_invalid_sample_is_wrong_in_one_place_only(contract: str, path: Path) -> None:
    """So that it is refused for the reason in its name."""
    errors = list(validator(contract).iter_errors(json.loads(path.read_bytes())))
    assert len(errors) == 1, [error.message for error in errors]


@pytest.mark.parametrize(
    ("contract", "path"), [found for found in samples("") if found[1].stem == "unknown_fields"], ids=sample_id
)
def test_unknown_fields_change_nothing(contract: str, path: Path) -> None:
    written: dict[str, Any] = json.loads(path.read_bytes())
    known = {name: value for name, value in written.items() if name in schema_of(contract)["properties"]}
    assert known != written or contract == "model_manifest"
    decode = CODECS[contract].decode
    assert decode(json.dumps(known).encode()) == decode(path.read_bytes())


@pytest.mark.parametrize("contract", CODECS)
def test_required_fields_are_each_missed(contract: str) -> None:
    """Every required field has its sample without it."""
    missing = {path.stem for owner, path in samples("invalid") if owner == contract}
    for name in schema_of(contract)["required"]:
        assert f"{name.removeprefix('__connect.errors.').replace('.', '_')}_missing" in missing


def test_the_readme_names_every_field() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for contract in CODECS:
        assert f"`{contract}`" in text
        section = text.split(f"## `{contract}`")[1].split("\n## ")[0]
        for name in schema_of(contract)["properties"]:
            assert f"| `{name}` |" in section, f"{contract}: {name} is not in schemas/README.md"
