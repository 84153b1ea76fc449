"""One round of retraining: train in a child process, judge, announce. Knows nothing of when.

    newest announcement → trainer (child process, scores both models on the same newest slice)
      → last line of its output → gate → announcement, unless somebody else announced meanwhile

Whatever fails is written into the round with its reason; only cancellation gets out of `retrain`.
"""

import asyncio
import time
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from schemas.announcement import ModelAnnouncement
from schemas.model_artefact import BrokenArtefactError
from training.announce import ModelsTopicError, announce, folder_of, read_announcements, verify
from training.child import ChildResult, run_child
from training.gate import GateScores, GateSettings, Verdict, decide

log = structlog.get_logger(__name__)

MAX_SHOWN = 300

Outcome = Literal["running", "announced", "refused", "failed", "interrupted"]


class TrainerError(Exception):
    """The trainer did not do its job; the message says how."""


class TrainerReport(msgspec.Struct, frozen=True):
    """What the last line of the trainer's standard output must hold; other fields are left aside.

    Attributes:
        model_version: of the artefact that was written.
        model_folder: where it lies.
        recall, mrr: of the candidate on the newest slice.
        popularity_recall: of plain popularity on the same slice.
        serving_recall, serving_mrr: of the model of `--compare-with`, on the same slice.
    """

    model_version: str
    model_folder: str
    recall: float = msgspec.field(name="recall@20")
    mrr: float = msgspec.field(name="mrr@20")
    popularity_recall: float = msgspec.field(name="popularity_recall@20")
    serving_recall: float | None = msgspec.field(name="serving_recall@20", default=None)
    serving_mrr: float | None = msgspec.field(name="serving_mrr@20", default=None)


class Round(msgspec.Struct):
    """One round, as the status page shows it. Times are ms since the epoch."""

    trigger: str
    started_at_ms: int
    outcome: Outcome = "running"
    reason: str = ""
    seconds: float | None = None
    exit_code: int | None = None
    model_version: str | None = None
    candidate: GateScores | None = None
    serving_version: str | None = None
    serving: GateScores | None = None
    popularity_recall: float | None = None
    verdict: Verdict | None = None


class RetrainSettings(msgspec.Struct, frozen=True):
    """What a round needs to know.

    Attributes:
        trainer: program and arguments; `--compare-with FOLDER` is added where a model serves. Its last line
            on standard output is a `TrainerReport`; standard error goes to the log.
        client_config: librdkafka settings for the models topic.
        models_topic: where models are announced.
        trainer_timeout_s: after so long the trainer is ended and the round has failed.
        gate: how strict the gate is.
    """

    trainer: tuple[str, ...]
    client_config: dict[str, str]
    models_topic: str
    trainer_timeout_s: float = 6 * 3_600.0
    gate: GateSettings = GateSettings()


async def retrain(settings: RetrainSettings, current: Round) -> None:
    """See a round through and write into it what happens.

    Raises:
        asyncio.CancelledError: we are to stop; the trainer has been ended.
    """
    started = time.monotonic()
    try:
        await _attempt(settings, current)
    except asyncio.CancelledError:
        current.outcome, current.reason = "interrupted", "the scheduler was stopped"
        raise
    except (TrainerError, ModelsTopicError, BrokenArtefactError, OSError, ValueError) as error:
        current.outcome, current.reason = "failed", str(error)
    except Exception as error:  # a fault in one round, whatever it is, must not end the rounds to come
        current.outcome, current.reason = "failed", repr(error)
        log.exception("retraining_fault")
    finally:
        current.seconds = round(time.monotonic() - started, 3)
    log.info(
        "retraining_ended", outcome=current.outcome, reason=current.reason, version=current.model_version
    )


async def _attempt(settings: RetrainSettings, current: Round) -> None:
    serving = await _serving(settings)
    folder, hindrance = await asyncio.to_thread(_comparable, serving)
    current.serving_version = serving.model_version if serving else None
    compare = () if folder is None else ("--compare-with", str(folder))
    log.info("retraining_started", trigger=current.trigger, serving=current.serving_version, note=hindrance)
    result = await run_child(
        (*settings.trainer, *compare), settings.trainer_timeout_s, lambda line: log.info("trainer", line=line)
    )
    current.exit_code = result.exit_code
    report = _report(result, settings.trainer_timeout_s)
    current.model_version = report.model_version
    current.candidate = GateScores(report.recall, report.mrr)
    current.popularity_recall = report.popularity_recall
    if folder is not None:
        current.serving = _serving_scores(report)
    verdict = decide(current.candidate, current.serving, report.popularity_recall, settings.gate)
    current.verdict = verdict
    current.reason = f"{verdict.reason}; {hindrance}" if hindrance else verdict.reason
    if not verdict.accepted:
        current.outcome = "refused"
        return
    if await _serving(settings) != serving:
        current.outcome = "refused"
        current.reason = (
            "another model was announced while this one was trained, so it was not compared with it"
        )
        return
    await asyncio.to_thread(_announce, settings, report, current.reason)
    current.outcome = "announced"


async def _serving(settings: RetrainSettings) -> ModelAnnouncement | None:
    found = await asyncio.to_thread(read_announcements, settings.client_config, settings.models_topic)
    return found.serving


def _comparable(serving: ModelAnnouncement | None) -> tuple[Path | None, str]:
    """The folder of the serving model, or None and why it cannot be compared with.

    A serving model whose folder is gone or broken must not stop retraining for ever: no worker that starts
    now can serve it, so the candidate is judged as a first model.
    """
    if serving is None:
        return None, ""
    try:
        folder = folder_of(serving.uri)
        verify(folder, serving.manifest_sha256)
    except (BrokenArtefactError, ValueError) as error:
        return None, f"the serving model {serving.model_version} cannot be compared with: {error}"
    return folder, ""


def _report(result: ChildResult, timeout_s: float) -> TrainerReport:
    said = f": {' | '.join(result.stderr_tail)[-MAX_SHOWN:]}" if result.stderr_tail else ""
    if result.timed_out:
        raise TrainerError(f"the trainer was ended after {timeout_s:g} s{said}")
    if result.exit_code != 0:
        raise TrainerError(f"the trainer ended with exit code {result.exit_code}{said}")
    try:
        return msgspec.json.decode(result.last_line, type=TrainerReport)
    except msgspec.DecodeError as error:
        shown = result.last_line[:MAX_SHOWN]
        raise TrainerError(f"the trainer's last line is no report ({error}): {shown!r}") from None


def _serving_scores(report: TrainerReport) -> GateScores:
    if report.serving_recall is None or report.serving_mrr is None:
        raise TrainerError("the trainer did not score the serving model: serving_recall@20, serving_mrr@20")
    return GateScores(report.serving_recall, report.serving_mrr)


def _announce(settings: RetrainSettings, report: TrainerReport, reason: str) -> None:
    folder = Path(report.model_folder)
    version = verify(folder).manifest.model_version
    if version != report.model_version:
        raise TrainerError(f"the trainer reported version {report.model_version}, {folder} holds {version}")
    scores = {
        "recall@20": report.recall,
        "mrr@20": report.mrr,
        "popularity_recall@20": report.popularity_recall,
    }
    announce(settings.client_config, settings.models_topic, folder, note=reason[:1_000], scores=scores)
