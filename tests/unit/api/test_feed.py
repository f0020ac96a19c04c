"""The live end of a log."""

import asyncio
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.api.feed import KEPT_BYTES, KEPT_EVENTS, Feed, Feeds
from services.api.neighbours import Neighbours
from services.api.turn import Event

TURN = UUID(int=1)


def events(first: int, last: int) -> list[Event]:
    return [Event(number, b"") for number in range(first, last + 1)]


def numbers(found: list[Event] | None) -> list[int] | None:
    return None if found is None else [event.sequence for event in found]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.data())
def test_a_reader_at_any_pace_gets_each_event_once(batches: list[int], data: st.DataObject) -> None:
    feed, last, cursor, seen = Feed(), 0, 0, []
    for size in batches:
        feed.publish(events(last + 1, last + size))
        last += size
        if data.draw(st.booleans()):
            found = numbers(feed.after(cursor)) or []
            seen += found
            cursor = seen[-1] if seen else 0
    seen += numbers(feed.after(cursor)) or []
    assert seen == list(range(1, last + 1))


def test_a_reader_who_is_too_far_behind_is_told_to_look_elsewhere() -> None:
    feed = Feed()
    feed.publish(events(1, KEPT_EVENTS + 10))
    assert feed.after(9) is None
    assert numbers(feed.after(10)) == list(range(11, KEPT_EVENTS + 11))


def test_a_feed_that_holds_nothing_cannot_tell() -> None:
    assert Feed().after(0) is None


def test_after_a_jump_a_feed_begins_anew() -> None:
    feed = Feed()
    feed.publish(events(1, 3))
    feed.publish(events(6, 7))
    assert feed.after(3) is None
    assert numbers(feed.after(5)) == [6, 7]


async def test_a_change_wakes_all_who_wait_and_whoever_looked_before_it() -> None:
    feed = Feed()
    before = feed.version
    waiting = [asyncio.create_task(feed.change(before, 10)) for _ in range(3)]
    await asyncio.sleep(0)
    feed.publish(events(1, 1))
    assert await asyncio.gather(*waiting) == [True] * 3
    assert await feed.change(before, 10)
    assert not await feed.change(feed.version, 0.01)
    assert not feed._waiting


def test_a_feed_lives_as_long_as_somebody_uses_it() -> None:
    feeds = Feeds(Neighbours(""))
    with feeds.join(TURN) as first:
        with feeds.join(TURN) as second:
            assert first is second
        with feeds.join(TURN) as third:
            assert third is first
    with feeds.join(TURN) as fresh:
        assert fresh is not first


def test_large_events_are_held_for_a_shorter_time() -> None:
    feed, large = Feed(), KEPT_BYTES // 4 + 1
    feed.publish([Event(number, bytes(large)) for number in range(1, 11)])
    assert feed.after(6) is None
    assert numbers(feed.after(7)) == [8, 9, 10]
    feed.publish([Event(11, bytes(KEPT_BYTES * 2))])
    assert feed.after(9) is None
    assert numbers(feed.after(10)) == [11]


def test_a_feed_knows_whether_it_says_all_there_is() -> None:
    feeds, told = Feeds(Neighbours("")), []
    with feeds.join(TURN) as feed:
        told.append(feed.written_here)
        with feeds.write(TURN):
            told.append(feed.written_here)
            feeds.hear(TURN)
            told.append(feed.written_here)
            with feeds.write(TURN):
                told.append(feed.written_here)
        told.append(feed.written_here)
    assert told == [False, True, False, True, False]
