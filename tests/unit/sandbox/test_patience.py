"""The clock of a turn."""

from hypothesis import given
from hypothesis import strategies as st

from services.sandbox.patience import TurnClock


def test_the_clock_stands_still_while_the_user_is_waited_for() -> None:
    clock = TurnClock(now=100)
    assert clock.worked(103) == 3
    clock.wait(waits=True, now=105)
    clock.wait(waits=True, now=110)
    assert clock.worked(1000) == 5
    clock.wait(waits=False, now=1000)
    clock.wait(waits=False, now=1001)
    assert clock.worked(1002) == 7


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100))))
def test_it_counts_every_second_of_work_once(story: list[tuple[bool, int]]) -> None:
    clock, now, waiting, worked = TurnClock(now=0), 0, False, 0
    for waits, seconds in story:
        clock.wait(waits, now)
        waiting = waits
        now += seconds
        worked += 0 if waiting else seconds
        assert clock.worked(now) == worked
