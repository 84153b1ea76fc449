"""Live recall: what was published for a click, held against what the same session clicked next. Pure.

Model, popularity and oracle are scored on the very same pairs of a click and the next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.demo.play import K, LiveClick


@dataclass(slots=True)
class _Open:
    """A click whose recommendation, or whose next click, is still to come."""

    oracle: frozenset[str] | None
    recommended: Sequence[str] | None = None
    next_item: str | None = None


class LiveScore:
    """Counts clicks, recommendations and hits; holds one entry per live session and per unanswered click.

    Attributes:
        clicks, recommendations: so far.
        surplus: recommendations for no click that waits for one: second answers, or foreign ones.
        judged: pairs of a click with its recommendation and the next click.
    """

    def __init__(self, popular: frozenset[str]) -> None:
        self._popular = popular
        self._last: dict[str, _Open] = {}
        self._unanswered: dict[str, _Open] = {}
        self.clicks = self.recommendations = self.surplus = self.judged = 0
        self._hits = self._popular_hits = self._oracle_hits = 0
        self._has_oracle = False

    @property
    def live_sessions(self) -> int:
        """Sessions that will click again."""
        return len(self._last)

    @property
    def unanswered(self) -> int:
        """Clicks without a recommendation so far."""
        return len(self._unanswered)

    def clicked(self, click: LiveClick) -> None:
        """Take note of a click that is being sent."""
        self.clicks += 1
        before = self._last.pop(click.session_id, None)
        if before is not None:
            before.next_item = click.item_id
            self._judge(before)
        this = _Open(click.oracle)
        self._unanswered[click.event_id] = this
        if not click.is_last:
            self._last[click.session_id] = this

    def recommended(self, event_id: str, items: Sequence[str]) -> None:
        """Take note of a published recommendation, best item first."""
        self.recommendations += 1
        answered = self._unanswered.pop(event_id, None)
        if answered is None:
            self.surplus += 1
            return
        answered.recommended = items[:K]
        self._judge(answered)

    def recall(self) -> float | None:
        """Share of judged next clicks that had been recommended; None before the first."""
        return self._hits / self.judged if self.judged else None

    def popularity_recall(self) -> float | None:
        """The same, had the most popular items of the past been recommended to everybody."""
        return self._popular_hits / self.judged if self.judged else None

    def oracle_recall(self) -> float | None:
        """The same, had the true likeliest items been recommended; None where nobody knows them."""
        return self._oracle_hits / self.judged if self.judged and self._has_oracle else None

    def _judge(self, pair: _Open) -> None:
        if pair.recommended is None or pair.next_item is None:
            return
        self.judged += 1
        self._hits += pair.next_item in pair.recommended
        self._popular_hits += pair.next_item in self._popular
        if pair.oracle is not None:
            self._has_oracle = True
            self._oracle_hits += pair.next_item in pair.oracle


@dataclass(frozen=True)
class Outcome:
    """How a demo went; `fields()` is its last line.

    Attributes:
        clicks: good clicks sent.
        unanswered: of these, without a recommendation.
        surplus: recommendations too many.
        bad_records: records sent that are no clicks, deliberately.
        dead_letters: records on the dead-letter topic.
    """

    clicks: int
    recommendations: int
    unanswered: int
    surplus: int
    bad_records: int
    dead_letters: int
    recall: float | None
    popularity_recall: float | None
    oracle_recall: float | None
    clicks_per_s: float

    def fields(self) -> dict[str, int | float | None]:
        """The JSON line; recall is null where nothing could be judged."""
        return {
            "clicks": self.clicks,
            "recommendations": self.recommendations,
            "dead_letters": self.dead_letters,
            f"recall@{K}": _rounded(self.recall),
            f"popularity_recall@{K}": _rounded(self.popularity_recall),
            f"oracle_recall@{K}": _rounded(self.oracle_recall),
            "clicks_per_s": round(self.clicks_per_s, 1),
        }

    def losses(self) -> list[str]:
        """What was lost or came too often, in sentences; empty when each record has its one answer."""
        found = []
        if self.recommendations != self.clicks or self.unanswered or self.surplus:
            found.append(
                f"{self.clicks:,} good clicks but {self.recommendations:,} recommendations "
                f"({self.unanswered:,} clicks unanswered, {self.surplus:,} answers too many)"
            )
        if self.dead_letters != self.bad_records:
            found.append(f"{self.bad_records:,} bad records but {self.dead_letters:,} dead letters")
        return found

    def weakness(self) -> str | None:
        """Why the recommendations were no use, None if they were."""
        if self.recall is None or self.popularity_recall is None:
            return "no session clicked twice, so nothing could be judged"
        if self.recall <= self.popularity_recall:
            return f"recall@{K} {self.recall:.3f} is not above popularity's {self.popularity_recall:.3f}"
        return None


def outcome(score: LiveScore, bad_records: int, dead_letters: int, clicks_per_s: float) -> Outcome:
    """The outcome of a demo whose clicks have all been sent and waited for."""
    return Outcome(
        clicks=score.clicks,
        recommendations=score.recommendations,
        unanswered=score.unanswered,
        surplus=score.surplus,
        bad_records=bad_records,
        dead_letters=dead_letters,
        recall=score.recall(),
        popularity_recall=score.popularity_recall(),
        oracle_recall=score.oracle_recall(),
        clicks_per_s=clicks_per_s,
    )


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
