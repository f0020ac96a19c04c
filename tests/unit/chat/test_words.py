"""Numbers, times and texts as people say them."""

from datetime import UTC, datetime, timedelta

import pytest

from gateways.chat import words

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.42, "0.4s"), (9.94, "9.9s"), (12.2, "12s"), (65, "1m 05s"), (3600, "60m 00s")]
)
def test_duration(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_cost() -> None:
    assert words.cost(1500) == "$0.0015"
    assert words.cost(1_250_000) == "$1.25"


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=30), "just now"),
        (timedelta(minutes=5), "5 min ago"),
        (timedelta(hours=3), "3 h ago"),
        (timedelta(days=3), "3 d ago"),
        (timedelta(days=15), "2 w ago"),
        (timedelta(days=31), "2026-01-29"),
    ],
)
def test_ago(passed: timedelta, said: str) -> None:
    assert words.ago(NOW - passed, NOW) == said
    assert words.ago(None) == "never"


def test_since() -> None:
    assert words.since("24h", NOW) == NOW - timedelta(days=1)
    assert words.since(" 2w ", NOW) == NOW - timedelta(days=14)
    assert words.since("2026-01-31T12:00+00:00") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    for wrong in ("yesterday", "24", "h", ""):
        with pytest.raises(ValueError, match="is no time"):
            words.since(wrong)


def test_sentence() -> None:
    assert words.sentence("no session has this id") == "No session has this id."
    assert words.sentence("Really?") == "Really?"
    assert words.sentence("session_id: must be a UUID") == "session_id: must be a UUID."
    assert words.sentence(" ") == ""


def test_one_line() -> None:
    assert words.one_line("a\n  b", 10) == "a b"
    assert words.one_line("abcdefgh", 5) == "abcd…"


def test_clean_leaves_nothing_that_commands_the_terminal() -> None:
    hostile = "a\x1b[31mred\x1b[0m\x1b]52;c;aGk=\x07b\x1b]0;title\x1b\\c\r\nd\te\u202ef\x9b2J\x01\x02"
    assert words.clean(hostile) == "aredbc\nd\tef2J"
    assert words.clean("10%\r20%") == "10%\n20%"
    assert words.clean("\x1b") == ""
    assert words.clean("größer 🙂 日本") == "größer 🙂 日本"
