"""The run buffer: numbers, boundaries, readers, limits."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.ids import new_id
from services.sandbox import mapping
from services.sandbox.event import Completed, Event, Failed, Started, TextDelta, ToolOutput, ToolStarted, Usage, merged
from services.sandbox.run import Numbered, Run, RunLost, SessionBusy, Turn

USAGE = Usage(1, 2, 3, 4, 5, 6)


def new_run(limit: int = 64 * 2**20) -> Run:
    """A run of nothing in particular."""
    return Run(Turn(new_id(), new_id(), new_id(), new_id(), "hello"), limit)


async def read(run: Run, after: int = 0) -> Sequence[Numbered]:
    """All events after a number."""
    return [numbered async for batch in run.read(after) for numbered in batch]


async def test_a_slow_reader_gets_few_large_events() -> None:
    run = new_run()
    run.append(Started("p", "m"))
    for word in ("one ", "two ", "three"):
        run.append(TextDelta("part", word))
    run.append(TextDelta("next", "four"))
    run.append(Completed())
    assert [(n.sequence, n.event) for n in await read(run)] == [
        (1, Started("p", "m")),
        (2, TextDelta("part", "one two three")),
        (3, TextDelta("next", "four")),
        (4, Completed()),
    ]


async def test_an_event_is_made_fit_for_its_readers() -> None:
    run = new_run()
    run.append(TextDelta("part", "a\ud83db"))
    run.append(Completed())
    assert (await read(run))[0].event == TextDelta("part", "a\N{REPLACEMENT CHARACTER}b")


@pytest.mark.parametrize("word", ["x", "\N{GRINNING FACE}"])
async def test_a_batch_fits_into_a_message(word: str) -> None:
    run = new_run()
    for number in range(256):
        run.append(ToolOutput(str(number), word * 30_000))
        run.append(ToolStarted(str(number), "bash", "", {"files": [{"content": word * 3_000}] * 10}))
    run.append(ToolOutput("large", word * 3_000_000))
    run.append(Completed())
    batches = [batch async for batch in run.read()]
    assert [numbered.sequence for batch in batches for numbered in batch] == list(range(1, 515))
    assert len(batches[0]) > 5
    assert max(mapping.batch_to_proto(run.turn.id, batch).ByteSize() for batch in batches) <= 2**20


async def test_a_fast_reader_gets_every_piece_at_once() -> None:
    run = new_run()
    got: list[Event] = []

    async def follow() -> None:
        async for batch in run.read():
            got.extend(numbered.event for numbered in batch)

    reader = asyncio.create_task(follow())
    for word in ("one", "two", "three"):
        run.append(TextDelta("part", word))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert got[-1] == TextDelta("part", word)
    run.append(Completed())
    await reader
    assert len(got) == 4


async def test_what_was_handed_out_never_changes() -> None:
    run = new_run()
    run.append(TextDelta("part", "one "))
    first = await anext(run.read())
    run.append(TextDelta("part", "two"))
    run.append(Completed())
    assert [numbered.event for numbered in await read(run)] == [
        TextDelta("part", "one "), TextDelta("part", "two"), Completed(),
    ]  # fmt: skip
    assert (await read(run))[0] == first[0]


async def test_nothing_follows_the_end() -> None:
    run = new_run()
    run.append(Completed())
    run.append(TextDelta("part", "late"))
    run.append(Failed("X", "y"))
    assert [numbered.event for numbered in await read(run)] == [Completed()]
    assert run.terminal() == Completed()
    assert await read(run, after=1) == []


async def test_a_refusal_reaches_every_reader() -> None:
    run = new_run()
    readers = [asyncio.create_task(read(run)) for _ in range(3)]
    await asyncio.sleep(0)
    run.refuse(SessionBusy("busy"))
    for result in await asyncio.gather(*readers, return_exceptions=True):
        assert isinstance(result, SessionBusy)


async def test_a_full_buffer_forgets_what_was_handed_out() -> None:
    run = new_run(limit=5000)
    run.append(TextDelta("0", "x" * 1000))
    for number in range(1, 20):
        await anext(run.read(number - 1))
        run.append(TextDelta(str(number), "x" * 1000))
    assert not run.full
    with pytest.raises(RunLost):
        await anext(run.read(0))
    assert (await anext(run.read(18)))[0].sequence == 19


async def test_a_buffer_that_nobody_reads_fills_up() -> None:
    run = new_run(limit=5000)
    for number in range(20):
        run.append(TextDelta(str(number), "x" * 1000))
    assert run.full
    run.append(Failed("AGENT_ERROR", "nobody read"))
    assert (await read(run))[-1].event == Failed("AGENT_ERROR", "nobody read")


async def test_events_that_never_were_are_refused() -> None:
    run = new_run()
    run.append(Started("p", "m"))
    with pytest.raises(RunLost):
        await anext(run.read(7))


pieces = st.one_of(
    st.builds(TextDelta, st.sampled_from(["a", "b"]), st.text(min_size=1, max_size=5)),
    st.builds(ToolOutput, st.sampled_from(["a", "b"]), st.text(min_size=1, max_size=5)),
    st.just(USAGE),
)


@given(st.lists(st.tuples(pieces, st.lists(st.integers(0, 2), max_size=2)), max_size=40))
def test_all_readers_see_the_same_story(story: list[tuple[Event, list[int]]]) -> None:
    """Whoever reads when, from wherever: the same numbers mean the same events, and nothing is lost or doubled."""

    async def tell() -> None:
        run = new_run()
        seen: list[list[Numbered]] = [[], [], []]
        for event, readers in story:
            run.append(event)
            for reader in readers:
                after = seen[reader][-1].sequence if seen[reader] else 0
                if run.last_sequence > after:
                    seen[reader].extend(await anext(run.read(after)))
        run.append(Completed())
        whole = list(await read(run))
        assert [numbered.sequence for numbered in whole] == list(range(1, len(whole) + 1))
        for got in seen:
            assert got == whole[: len(got)]
        assert flat(n.event for n in whole) == flat([*(event for event, _ in story), Completed()])

    asyncio.run(tell())


def flat(events: object) -> list[Event]:
    """Events with all that can be one made one."""
    found: list[Event] = []
    for event in events:  # type: ignore[attr-defined]
        if found and (joined := merged(found[-1], event)):
            found[-1] = joined
        else:
            found.append(event)
    return found
