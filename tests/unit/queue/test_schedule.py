"""Ticks of a schedule, across the days on which clocks are changed."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from services.kit.ids import new_id
from services.queue.job import InvalidJob
from services.queue.schedule import Schedule, next_tick

BERLIN = "Europe/Berlin"


def ticks(cron: str, zone: str, start: datetime, count: int) -> list[str]:
    found = []
    for _ in range(count):
        start = next_tick(cron, zone, start)
        found.append(start.strftime("%d %H:%M"))
    return found


def test_ticks_are_those_of_the_clock_on_the_wall() -> None:
    assert ticks("0 9 * * mon-fri", BERLIN, datetime(2026, 7, 3, 12, tzinfo=UTC), 2) == ["06 07:00", "07 07:00"]
    assert ticks("0 9 * * *", BERLIN, datetime(2026, 1, 3, 12, tzinfo=UTC), 1) == ["04 08:00"]
    assert ticks("0 9 * * *", "", datetime(2026, 1, 3, 12, tzinfo=UTC), 1) == ["04 09:00"]


def test_an_hour_that_is_left_out_loses_no_tick() -> None:
    """At 02:00 of 29 March the clock in Berlin goes to 03:00, which is 01:00 in UTC."""
    assert ticks("30 2 * * *", BERLIN, datetime(2026, 3, 28, 12, tzinfo=UTC), 2) == ["29 01:00", "30 00:30"]


def test_an_hour_that_comes_twice_has_its_tick_once() -> None:
    """At 03:00 of 25 October the clock in Berlin goes back to 02:00, which is 01:00 in UTC."""
    assert ticks("30 2 * * *", BERLIN, datetime(2026, 10, 24, 12, tzinfo=UTC), 2) == ["25 00:30", "26 01:30"]


def test_what_comes_every_half_hour_goes_on_through_both() -> None:
    for day in (datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 10, 24, 23, tzinfo=UTC)):
        tick = next_tick("*/30 * * * *", BERLIN, day)
        found = [tick, *((tick := next_tick("*/30 * * * *", BERLIN, tick)) for _ in range(8))]
        assert {(later - sooner).total_seconds() for sooner, later in pairwise(found)} == {1800}


@pytest.mark.parametrize("cron", ["", "* * * *", "* * * * * *", "60 * * * *", "x * * * *", "0 0 30 2 *"])
def test_what_cannot_be_read_or_never_comes_is_refused(cron: str) -> None:
    with pytest.raises(InvalidJob):
        next_tick(cron, "UTC", datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "/etc/localtime"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidJob):
        next_tick("* * * * *", zone, datetime(2026, 1, 1, tzinfo=UTC))


def test_the_job_of_a_tick_is_always_the_same_intent() -> None:
    tenant = new_id()
    made = Schedule(tenant, "daily", "0 9 * * *", BERLIN, "test", "s", b"work", datetime(2026, 7, 3, 7, tzinfo=UTC))
    assert made.job().idempotency_key == f"cron:{tenant}:daily:20260703T070000Z"
    assert made.job().digest() == made.job().digest()
    assert made.after(datetime(2026, 7, 9, 12, tzinfo=UTC)).next_time == datetime(2026, 7, 10, 7, tzinfo=UTC)
