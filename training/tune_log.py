"""A log for the search: its training part, cut once more in time. Of the test part nothing is left.

log ─ test part: dropped at once
    └ training part ─ newest tenth of the sessions: validation
                    └ the rest: trained on, its items are the vocabulary
"""

from dataclasses import dataclass

import numpy as np

from schemas.model_artefact import Artefact
from schemas.model_manifest import FORMAT_VERSION, ModelManifest, TrainingData
from training.checkpoint import identity
from training.click_log import LoadedLog
from training.errors import SplitError
from training.evaluate import answerable, model_ranks
from training.evaluation import HEADLINE, metrics
from training.network import Network, weights
from training.sessions import UNKNOWN, Sessions, SplitRule, split_log
from training.settings import TrainSettings
from worker.core.session_model import session_model

VALIDATION_SHARE = 0.1
MAX_VALIDATION_SESSIONS = 10_000
"""The newest; they give recall to half a percent, and a look at them after each epoch must stay cheap."""


@dataclass(frozen=True, eq=False)
class TuneLog:
    """A log to search on.

    Attributes:
        name: shown.
        train: item indices are rows of `item_ids`.
        validation: likewise, `UNKNOWN` for items that `train` does not have.
        item_ids: the vocabulary.
        fingerprint: of both parts.
    """

    name: str
    train: Sessions
    validation: Sessions
    item_ids: list[str]
    fingerprint: str


def tune_log(loaded: LoadedLog, rule: SplitRule) -> TuneLog:
    """Cut the validation slice from the end of the training part.

    Args:
        loaded: the clicks.
        rule: what the test part is. It is dropped here; nothing of it is seen again.

    Raises:
        SplitError: one of the parts is empty.
    """
    part = split_log(loaded.clicks, rule)
    sessions = part.train
    border = len(sessions) - max(1, round(VALIDATION_SHARE * len(sessions)))
    older = sessions.take(np.arange(border))
    newest = sessions.take(np.arange(max(border, len(sessions) - MAX_VALIDATION_SESSIONS), len(sessions)))
    seen = np.unique(older.items)
    rows = np.full(len(part.item_ids), UNKNOWN, np.int32)
    rows[seen] = np.arange(len(seen), dtype=np.int32)
    validation = newest.renamed(rows)
    if not len(older) or not answerable(validation).any():
        raise SplitError(f"{loaded.name}: too short to cut a validation slice from its training part")
    item_ids = [part.item_ids[item] for item in seen]
    # The sessions before the renaming: also what the vocabulary does not know is part of what is searched on.
    fingerprint = identity(sessions, part.item_ids, TrainSettings(), "").clicks
    return TuneLog(loaded.name, older.renamed(rows), validation, item_ids, fingerprint)


def validate(network: Network, log: TuneLog) -> dict[str, float]:
    """`recall` and `mrr` at 20 on the validation slice, over the targets that the model knows."""
    tensors = weights(network)
    manifest = ModelManifest(
        format_version=FORMAT_VERSION,
        model_version="trial",
        created_at_ms=0,
        architecture=network.architecture,
        files={},
        training_data=TrainingData("file", log.name, 0, 0, 0, 0, 0, 0),
        hyperparameters={},
        scores={},
    )
    model = session_model(Artefact(manifest, "", log.item_ids, tensors))
    found = metrics(model_ranks(model, log.validation)[answerable(log.validation)])
    return {"recall": found.recall[HEADLINE], "mrr": found.mrr[HEADLINE]}
