"""What a read_committed reader sees of a run, held against a run in which nothing ever went wrong."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from schemas.click import Click, decode_click
from schemas.model_artefact import unpack_artefact
from schemas.recommendation import Recommendation, decode_recommendation
from schemas.session_history import event_hash
from schemas.topics import TopicNames
from tests.chaos.outcome import read_outcome, read_whole
from tests.chaos.verdict import History
from tests.support.reference import PlainReference, assert_equals_reference

HISTORY_LENGTH = 32
DUPLICATE_WINDOW = 8
"""Defaults of the worker."""

ANSWER_S = 60.0


def read_answers(bootstrap: str, topics: TopicNames) -> list[Recommendation]:
    """All committed recommendations that are on the topic now, partition by partition in order."""
    return [
        decode_recommendation(record.value() or b"")
        for record in read_whole(bootstrap, topics.recommendations)
    ]


def wait_answered(bootstrap: str, topics: TopicNames, clicks: Sequence[Click]) -> list[Recommendation]:
    """Wait until each of these clicks has been answered; all answers that are there then."""
    wanted = {click.event_id for click in clicks}
    deadline_s = time.monotonic() + ANSWER_S
    while True:
        found = read_answers(bootstrap, topics)
        missing = wanted - {answer.event_id for answer in found}
        if not missing:
            return found
        assert time.monotonic() < deadline_s, f"{len(missing)} clicks have no answer, {sorted(missing)[:3]} …"
        time.sleep(0.3)


def assert_as_if_uninterrupted(
    bootstrap: str, topics: TopicNames, clicks: Sequence[Click], model_folder: Path
) -> None:
    """Each click was answered once, in its session's order, with the scores of a plain reference; and the
    changelog holds what the clicks say. Sessions must be within the bound on histories, and none expired.
    """
    answers = wait_answered(bootstrap, topics, clicks)
    assert len(answers) == len(clicks), "a click was answered twice"
    assert_in_order(answers, clicks)
    artefact = unpack_artefact(lambda name: (model_folder / name).read_bytes())
    assert_equals_reference(list(clicks), {answer.event_id: answer for answer in answers}, artefact)
    assert_histories_as_clicked(bootstrap, topics)


def assert_in_order(answers: Sequence[Recommendation], clicks: Sequence[Click]) -> None:
    """Each session's answers are those to its clicks, in their order."""
    answered, clicked = _by_session(answers), _by_session(clicks)
    wrong = [session for session in clicked if answered.get(session) != clicked[session]]
    assert not wrong, f"{wrong[0]}: clicked {clicked[wrong[0]]}, answered {answered.get(wrong[0])}"
    assert answered.keys() == clicked.keys()


def assert_scores(
    answers: Sequence[Recommendation], clicks: Sequence[Click], start: int, model_folder: Path
) -> None:
    """The clicks from `start` on were answered by this model, from all that their sessions clicked."""
    artefact = unpack_artefact(lambda name: (model_folder / name).read_bytes())
    reference = PlainReference(artefact)
    answered = {answer.event_id: answer for answer in answers}
    for number, click in enumerate(clicks):
        expected = reference.scores(click)
        if number >= start:
            answer = answered[click.event_id]
            assert answer.model_version == artefact.manifest.model_version
            np.testing.assert_allclose(answer.scores, expected.topk(20).values, atol=1e-4)


def assert_histories_as_clicked(bootstrap: str, topics: TopicNames) -> None:
    """The changelog's final view is what the clicks topic says, session by session."""
    histories = read_outcome(bootstrap, topics).histories
    assert histories == histories_as_clicked(bootstrap, topics)


def partitions_of(bootstrap: str, topics: TopicNames) -> dict[str, int]:
    """The partition of each event on the clicks topic."""
    return {
        decode_click(record.value(), int(time.time() * 1_000)).event_id: record.partition() or 0
        for record in read_whole(bootstrap, topics.clicks)
    }


def histories_as_clicked(bootstrap: str, topics: TopicNames) -> dict[str, History]:
    """The history of each session whose clicks lie on the topic, each event counted once."""
    clicks: dict[str, list[Click]] = {}
    last: dict[str, tuple[int, int]] = {}
    for record in read_whole(bootstrap, topics.clicks):
        click = decode_click(record.value(), int(time.time() * 1_000))
        clicks.setdefault(click.session_id, []).append(click)
        last[click.session_id] = (record.partition() or 0, record.offset() or 0)
    return {
        session: History(
            tuple(click.item_id for click in of[-HISTORY_LENGTH:]),
            max(click.timestamp_ms for click in of),
            *last[session],
            "".join(event_hash(click.event_id).hex() for click in of[-DUPLICATE_WINDOW:]),
        )
        for session, of in clicks.items()
    }


def _by_session(found: Sequence[Recommendation] | Sequence[Click]) -> dict[str, list[str]]:
    events: dict[str, list[str]] = {}
    for one in found:
        events.setdefault(one.session_id, []).append(one.event_id)
    return events
