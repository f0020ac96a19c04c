"""Texts, counts and times as an agent says them, made small enough and sound enough to be told."""

from collections.abc import Iterator
from datetime import UTC, datetime

from services.sandbox import event as events

TEXT_LIMIT = 256 * 1024
INT32, INT64 = 2**31 - 1, 2**63 - 1
_CUT = "\n… (cut)"


def short(text: str, limit: int = TEXT_LIMIT) -> str:
    """A text, cut where it is too long."""
    return text if len(text) <= limit else text[:limit] + _CUT


def pieces(
    delta: type[events.TextDelta | events.ReasoningDelta], part_id: str, text: str
) -> Iterator[events.TextDelta | events.ReasoningDelta]:
    """A text as events that are small enough. None of an answer is left out."""
    for start in range(0, len(text), TEXT_LIMIT // 4):
        yield delta(part_id, text[start : start + TEXT_LIMIT // 4])


def whole(number: float, most: int = INT64) -> int:
    """A count as the contract can say it. Nonsense counts nothing."""
    return round(min(number, most)) if number > 0 else 0


def time_of(milliseconds: float) -> datetime:
    """A time of opencode. It is the sandbox that says it, so nonsense becomes now."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.now(UTC)
