"""A small stand-in for `nextclick train`: writes a real artefact and prints the report that its plan says.

    python -m tests.broker.fake_trainer FOLDER [--compare-with MODEL]

FOLDER holds `plans.json`, a list of `Plan`; call n follows plan n (the last one ever after) and appends
what it was asked to `calls.jsonl`.
"""

import hashlib
import os
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from schemas.model_artefact import file_entries, pack_files, tensor_shapes
from schemas.model_manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    Architecture,
    ModelManifest,
    TrainingData,
    encode_manifest,
)


class Plan(msgspec.Struct, frozen=True):
    """What the trainer shall do: scores to report, or a way to fail."""

    recall: float = 0.5
    mrr: float = 0.25
    serving_recall: float = 0.5
    serving_mrr: float = 0.25
    fail: str = ""  # crash, garbage, hang, broken-artefact, no-comparison


class Call(msgspec.Struct, frozen=True):
    """What a call was asked, and by which process."""

    pid: int
    compare_with: str | None


def write_model(folder: Path, version: str, recall: float = 0.5) -> Path:
    """Write a real, tiny, random model of three items and width 2 into `folder`, which it returns."""
    folder.mkdir(parents=True)
    architecture = Architecture(cell="gru", hidden_size=2, items=3, score="cosine", temperature=11.0)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(version.encode()).digest()[:4]))
    tensors = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in tensor_shapes(architecture).items()
    }
    files = pack_files(["a", "b", "c"], tensors)
    manifest = ModelManifest(
        format_version=FORMAT_VERSION,
        model_version=version,
        created_at_ms=1_700_000_000_000,
        architecture=architecture,
        files=file_entries(files),
        training_data=TrainingData("topic", "clicks", 10, 2, 5, 1, 1_600_000_000_000, 1_600_000_100_000),
        hyperparameters={"epochs": 1},
        scores={"recall@20": recall, "mrr@20": recall / 2},
    )
    for name, data in {**files, MANIFEST_FILE: encode_manifest(manifest)}.items():
        (folder / name).write_bytes(data)
    return folder


def read_calls(folder: Path) -> list[Call]:
    """The calls so far."""
    calls = folder / "calls.jsonl"
    lines = calls.read_bytes().splitlines() if calls.exists() else []
    return [msgspec.json.decode(line, type=Call) for line in lines]


def main(folder: Path, compare_with: str | None) -> None:
    """Follow the plan."""
    plans = msgspec.json.decode((folder / "plans.json").read_bytes(), type=list[Plan])
    number = len(read_calls(folder)) + 1
    with (folder / "calls.jsonl").open("ab") as calls:
        calls.write(msgspec.json.encode(Call(os.getpid(), compare_with)) + b"\n")
    plan = plans[min(number, len(plans)) - 1]
    sys.stderr.write(f"call {number}\n")
    if plan.fail == "crash":
        sys.exit("out of memory, say")
    if plan.fail == "garbage":
        sys.stdout.write("recall: quite good\n")
        return
    if plan.fail == "hang":
        time.sleep(600)
    version = f"v{number}"
    model = write_model(folder / version, version, plan.recall)
    if plan.fail == "broken-artefact":
        weights = model / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
    report: dict[str, object] = {
        "log": "clicks",
        "model_version": version,
        "model_folder": str(model),
        "recall@20": plan.recall,
        "mrr@20": plan.mrr,
        "popularity_recall@20": 0.2,
    }
    if compare_with is not None and plan.fail != "no-comparison":
        report |= {"serving_recall@20": plan.serving_recall, "serving_mrr@20": plan.serving_mrr}
    sys.stdout.write("some progress\n")
    sys.stdout.buffer.flush()
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[3] if "--compare-with" in sys.argv else None)
