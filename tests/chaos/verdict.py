"""What a chaos run did to its outputs, held against the run that nothing happened to. Pure: no I/O.

Both runs read the same clicks topic. In exactly_once all of it must be equal, each answer once. In
at_least_once a click may be answered again, also from a later state of its session; what must be equal is
that every click has an answer, and the session histories at the end.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Guarantee = Literal["exactly_once", "at_least_once"]
Kind = Literal["lost", "duplicated", "different", "reordered"]

KINDS: tuple[Kind, ...] = ("lost", "duplicated", "different", "reordered")

SCORE_TOLERANCE = 1e-4
"""A hidden state that was encoded again in another batch differs in the last bits of float32."""

FINDINGS_KEPT = 20
"""Of each kind; more of them tell nothing new."""

BORDERLINE_MS = 10_000
"""Sessions this close to their idle timeout may have ended or not: late clicks move the watermark less."""


class Answer(NamedTuple):
    """A recommendation without the wall clock; `scores` runs parallel to `items`."""

    session_id: str
    event_id: str
    items: tuple[str, ...]
    scores: Sequence[float]
    model_version: str | None
    source: str


class Letter(NamedTuple):
    """A dead letter: where its record lies on the clicks topic, why it is no click, what it holds."""

    partition: int
    offset: int
    reason: str
    value: bytes | None


class History(NamedTuple):
    """A record of the changelog."""

    items: tuple[str, ...]
    last_activity_ms: int
    source_partition: int
    source_offset: int
    recent_events: str = ""


class Outcome(NamedTuple):
    """All that a run left behind, for a read_committed reader.

    `answers` and `letters` are in the order of each partition; `histories` is the compacted view of the
    changelog, None for a tombstone; so many of its records were `late` and do not count.
    """

    answers: Sequence[Answer]
    letters: Sequence[Letter]
    histories: Mapping[str, History | None]
    late: int = 0


class Clicks(NamedTuple):
    """What the clicks topic says of itself.

    `offsets` by event id; `sessions` by session id: partition and latest event time in ms; `watermarks_ms`
    by partition: latest event time of all.
    """

    offsets: Mapping[str, int]
    sessions: Mapping[str, tuple[int, int]]
    watermarks_ms: Mapping[int, int]


class Finding(NamedTuple):
    """One thing that is wrong; `session_id` is empty for a dead letter."""

    kind: Kind
    session_id: str
    text: str


@dataclass
class Verdict:
    """How many outputs are wrong, by kind, and what may be and was seen."""

    lost: int = 0
    duplicated: int = 0
    different: int = 0
    reordered: int = 0
    second_answers: int = 0
    """at_least_once: further answers (and dead letters) to one record of the clicks topic."""
    answered_later: int = 0
    """at_least_once: first answers that differ from the reference, because their click was replayed."""
    largest_score_difference: float = 0.0
    """Of all answers that count as the same: how near the tolerance is."""
    live_sessions: int = 0
    """Sessions that had not ended by the clicks' own time; their histories were compared."""
    left_behind: int = 0
    """Histories of ended sessions that are still on the changelog; the next owner expires them."""
    findings: list[Finding] = field(default_factory=list)
    """The first few of each kind."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not any(getattr(self, kind) for kind in KINDS)

    def add(self, kind: Kind, session_id: str, text: str) -> None:
        """Count one thing that is wrong."""
        count = getattr(self, kind) + 1
        setattr(self, kind, count)
        if count <= FINDINGS_KEPT:
            self.findings.append(Finding(kind, session_id, text))


def compare(
    clicks: Clicks, reference: Outcome, found: Outcome, guarantee: Guarantee, idle_timeout_ms: int
) -> Verdict:
    """Hold what a run left against what the reference run left."""
    verdict = Verdict()
    _compare_answers(clicks, reference.answers, found.answers, guarantee, verdict)
    _compare_order(clicks, found.answers, verdict)
    _compare_letters(reference.letters, found.letters, guarantee, verdict)
    _compare_histories(clicks, reference.histories, found.histories, idle_timeout_ms, verdict)
    return verdict


def why_reference_is_unfit(clicks: Clicks, reference: Outcome, idle_timeout_ms: int) -> list[str]:
    """Why the reference proves nothing, one line each; empty if it is good.

    Else a worker that does nothing at all would equal a reference that did nothing.
    """
    answered = [answer.event_id for answer in reference.answers]
    reasons = []
    if len(set(answered)) != len(answered) or set(answered) != clicks.offsets.keys():
        reasons.append(f"it gave {len(answered):,} answers to {len(clicks.offsets):,} clicks")
    order = Verdict()
    _compare_order(clicks, reference.answers, order)
    if order.reordered:
        reasons.append(f"{order.reordered:,} of its answers are out of order")
    if by_others := sum(answer.source != "model" for answer in reference.answers):
        reasons.append(f"{by_others:,} of its answers are not the model's")
    live = live_sessions(clicks, idle_timeout_ms)
    if missing := sum(reference.histories.get(session) is None for session in live):
        reasons.append(f"it wrote no history of {missing:,} of {len(live):,} live sessions")
    return reasons


def live_sessions(clicks: Clicks, idle_timeout_ms: int) -> list[str]:
    """Sessions that have not ended by the watermark of their partition, those on the border left out."""
    return [
        session
        for session, (partition, last_ms) in clicks.sessions.items()
        if clicks.watermarks_ms[partition] - last_ms < idle_timeout_ms - BORDERLINE_MS
    ]


def is_same_answer(expected: Answer, found: Answer) -> bool:
    """Same session, model and items, scores within the tolerance.

    Items whose scores are within the tolerance of each other may stand in either order, and the last one may
    be another that ties with it.
    """
    if (expected.session_id, expected.model_version, expected.source) != (
        found.session_id,
        found.model_version,
        found.source,
    ):
        return False
    if len(expected.items) != len(found.items) or len(set(found.items)) != len(found.items):
        return False
    if any(abs(a - b) > SCORE_TOLERANCE for a, b in zip(expected.scores, found.scores, strict=True)):
        return False
    if expected.items == found.items:
        return True
    scores = dict(zip(expected.items, expected.scores, strict=True))
    at_the_cut = expected.scores[-1]
    return all(
        abs(scores.get(item, at_the_cut) - score) <= SCORE_TOLERANCE
        for item, score in zip(found.items, found.scores, strict=True)
    )


def _compare_answers(
    clicks: Clicks,
    expected: Iterable[Answer],
    found: Iterable[Answer],
    guarantee: Guarantee,
    verdict: Verdict,
) -> None:
    by_event: dict[str, list[Answer]] = defaultdict(list)
    for answer in found:
        by_event[answer.event_id].append(answer)
    for answer in expected:
        at = f"click {answer.event_id} at offset {clicks.offsets.get(answer.event_id)}"
        same_event = by_event.pop(answer.event_id, [])
        if not same_event:
            verdict.add("lost", answer.session_id, f"{at} has no answer")
            continue
        for _ in same_event[1:]:
            _count_again(guarantee, answer.session_id, f"{at} has {len(same_event)} answers", verdict)
        if is_same_answer(answer, same_event[0]):
            pairs = zip(answer.scores, same_event[0].scores, strict=True)
            apart = max((abs(a - b) for a, b in pairs), default=0.0)
            verdict.largest_score_difference = max(verdict.largest_score_difference, apart)
        elif guarantee == "at_least_once" and same_event[0].session_id == answer.session_id:
            verdict.answered_later += 1
        else:
            verdict.add("different", answer.session_id, f"{at} is answered in another way")
    for event_id, answers in by_event.items():
        verdict.add("different", answers[0].session_id, f"an answer to {event_id}, which nobody clicked")


def _compare_order(clicks: Clicks, answers: Iterable[Answer], verdict: Verdict) -> None:
    """First answers of a session must come in the order of its clicks."""
    seen: set[str] = set()
    reached: dict[str, int] = {}
    for answer in answers:
        offset = clicks.offsets.get(answer.event_id)
        if offset is None or answer.event_id in seen:
            continue
        seen.add(answer.event_id)
        before = reached.get(answer.session_id, -1)
        if offset < before:
            text = f"click {answer.event_id} at offset {offset} is answered after that at {before}"
            verdict.add("reordered", answer.session_id, text)
        reached[answer.session_id] = max(offset, before)


def _compare_letters(
    expected: Iterable[Letter], found: Iterable[Letter], guarantee: Guarantee, verdict: Verdict
) -> None:
    by_source: dict[tuple[int, int], list[Letter]] = defaultdict(list)
    for letter in found:
        by_source[letter.partition, letter.offset].append(letter)
    for letter in expected:
        at = f"the record at {letter.partition}:{letter.offset} ({letter.reason})"
        same_source = by_source.pop((letter.partition, letter.offset), [])
        if not same_source:
            verdict.add("lost", "", f"{at} has no dead letter")
            continue
        for _ in same_source[1:]:
            _count_again(guarantee, "", f"{at} has {len(same_source)} dead letters", verdict)
        if any(other != letter for other in same_source):
            verdict.add("different", "", f"{at} has another dead letter")
    for partition, offset in by_source:
        verdict.add("different", "", f"a dead letter of {partition}:{offset}, which is no bad record")


def _count_again(guarantee: Guarantee, session_id: str, text: str, verdict: Verdict) -> None:
    if guarantee == "exactly_once":
        verdict.add("duplicated", session_id, text)
    else:
        verdict.second_answers += 1


def _compare_histories(
    clicks: Clicks,
    expected: Mapping[str, History | None],
    found: Mapping[str, History | None],
    idle_timeout_ms: int,
    verdict: Verdict,
) -> None:
    live = live_sessions(clicks, idle_timeout_ms)
    verdict.live_sessions = len(live)
    for session in live:
        if expected.get(session) != found.get(session):
            text = f"the history on the changelog is {found.get(session)}, not {expected.get(session)}"
            verdict.add("different", session, text)
    for session in found.keys() - clicks.sessions.keys():
        verdict.add("different", session, "a history of a session that never clicked")
    for session, (partition, last_ms) in clicks.sessions.items():
        idle_ms = clicks.watermarks_ms[partition] - last_ms
        if idle_ms > idle_timeout_ms + BORDERLINE_MS and found.get(session) is not None:
            verdict.left_behind += 1
