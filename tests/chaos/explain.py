"""What is wrong after a chaos run, in lines for people: a few sessions, both runs beside each other. Pure."""

from collections.abc import Iterator

from tests.chaos.verdict import Answer, Clicks, Outcome, Verdict, is_same_answer

SESSIONS_SHOWN = 3
LINES_SHOWN = 12
LINES_BEFORE = 3
"""Of a session: so many answers before the first that is wrong."""

ITEMS_SHOWN = 3


def explain(verdict: Verdict, clicks: Clicks, reference: Outcome, found: Outcome) -> Iterator[str]:
    """The findings, then every answer to the first few sessions that they name."""
    for finding in verdict.findings:
        yield f"{finding.kind}: {finding.session_id} {finding.text}"
    sessions = dict.fromkeys(one.session_id for one in verdict.findings if one.session_id)
    for session in list(sessions)[:SESSIONS_SHOWN]:
        partition, _ = clicks.sessions.get(session, (None, 0))
        yield f"session {session} on partition {partition}, by offset:"
        lines = list(_both_sides(session, clicks, reference, found))
        first = next((n for n, line in enumerate(lines) if not line.endswith("once")), 0)
        start = max(first - LINES_BEFORE, 0)
        shown = [*lines[start : start + LINES_SHOWN], f"({len(lines)} answers in all)"]
        if (kept := found.histories.get(session)) != (expected := reference.histories.get(session)):
            shown += [f"history: {kept}", f"history of the reference: {expected}"]
        yield from (f"  {line}" for line in shown)


def _both_sides(session: str, clicks: Clicks, reference: Outcome, found: Outcome) -> Iterator[str]:
    """One line per answer to this session as the chaos run gave them; then those that it lacks."""
    expected = {one.event_id: one for one in reference.answers if one.session_id == session}
    given: set[str] = set()
    for one in found.answers:
        if one.session_id != session:
            continue
        other = expected.get(one.event_id)
        words = ["AGAIN" if one.event_id in given else "once"]
        given.add(one.event_id)
        if other is None or not is_same_answer(other, one):
            words.append(f"DIFFERENT, reference: {_best(other) if other else None}")
        yield f"{clicks.offsets.get(one.event_id)}  {one.event_id}  {_best(one)}  {' '.join(words)}"
    for event_id in expected.keys() - given:
        yield f"{clicks.offsets.get(event_id)}  {event_id}  LOST"


def _best(answer: Answer) -> str:
    pairs = zip(answer.items[:ITEMS_SHOWN], answer.scores, strict=False)
    return ", ".join(f"{item} {score:.4f}" for item, score in pairs)
