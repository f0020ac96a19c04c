"""Numbers and times as people say them."""

import re
from datetime import UTC, datetime, timedelta

# Escape sequences, the rest of the control characters, and marks that turn the direction of writing.
_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_STEPS = ((60, "s"), (60, "min"), (24, "h"), (7, "d"))
_MINUTE = 60
_TENTH = 10


def duration(seconds: float) -> str:
    """How long: `0.4s`, `12s`, `1m 05s`."""
    if seconds < _TENTH:
        return f"{seconds:.1f}s"
    if seconds < _MINUTE:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    return f"{minutes}m {rest:02d}s"


def cost(micro_usd: int) -> str:
    """A price: `$0.0015`, `$1.20`."""
    dollars = micro_usd / 1_000_000
    return f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.4f}"


def ago(when: datetime | None, now: datetime | None = None) -> str:
    """How long since: `just now`, `5 min ago`, `3 d ago`, and the date when it is longer than a month."""
    if when is None:
        return "never"
    passed: float = max(0.0, ((now or datetime.now(UTC)) - when).total_seconds())
    if passed < _MINUTE:
        return "just now"
    if passed > timedelta(days=30).total_seconds():
        return f"{when.astimezone():%Y-%m-%d}"
    unit = "s"
    for size, name in _STEPS:
        unit = name
        if passed < size:
            break
        passed /= size
    else:
        unit = "w"
    return f"{int(passed)} {unit} ago"


def since(text: str, now: datetime | None = None) -> datetime:
    """The time that `24h`, `30m`, `7d`, `2026-01-31` or `2026-01-31T12:00` means.

    Raises:
        ValueError: It means none.
    """
    if found := re.fullmatch(r"(\d{1,6})([smhdw])", text.strip()):
        return (now or datetime.now(UTC)) - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except ValueError:
        raise ValueError(f"{text} is no time; say 30m, 24h, 7d or 2026-01-31") from None


def sentence(text: str) -> str:
    """The text as a sentence: it begins large and ends with a mark."""
    text = text.strip()
    if not text:
        return ""
    # A name of a field stays as it is.
    begin = text.partition(" ")[0]
    first = text if any(mark in begin for mark in "_.:/`") else text[0].upper() + text[1:]
    return first if first[-1] in ".!?:" else f"{first}."


def clean(text: str) -> str:
    """The text without what could move the cursor, change the terminal or hide what is said.

    What an agent says and prints is somebody else's text: none of it may command the terminal.
    """
    lines = _SEQUENCES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", lines)


def one_line(text: str, width: int) -> str:
    """The text on one line, cut where it is longer than that."""
    flat = " ".join(clean(text).split())
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"
