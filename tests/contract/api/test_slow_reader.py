"""A reader that does not read: it holds up nobody, costs little, and gets every event once when it reads again."""

import asyncio
import gc
from collections.abc import AsyncIterable, AsyncIterator

from orginabox.api.v1 import turn_service_pb2, turn_service_pb2_grpc
from orginabox.turn.v1 import turn_event_pb2, turn_log_service_pb2

from services.api.turn import Event
from services.kit.channel import connect
from tests.contract.api.conftest import Rig
from tests.contract.api.test_turn_log import completed, delta, make_turn, numbers, open_turn, read
from tests.identities import identity

EVENTS = 20_000
TEXT = "x" * 1_000


async def append_many(api: Rig, turn_id: str) -> int:
    """Append 20,000 deltas of a kilobyte and the end, as fast as it goes."""

    async def requests() -> AsyncIterator[turn_log_service_pb2.AppendTurnEventsRequest]:
        for first in range(1, EVENTS, 100):
            events = [delta(number, TEXT) for number in range(first, first + 100)]
            yield turn_log_service_pb2.AppendTurnEventsRequest(turn_id=turn_id, lease_token="t1", events=events)
        end = completed(EVENTS + 1)
        yield turn_log_service_pb2.AppendTurnEventsRequest(turn_id=turn_id, lease_token="t1", events=[end])

    return [answer.durable_sequence async for answer in api.log.AppendTurnEvents(requests())][-1]


async def test_a_reader_that_does_not_read_blocks_nobody_and_gets_everything_once(api: Rig) -> None:
    turn_id = await make_turn(api)
    await open_turn(api, turn_id)
    request = turn_service_pb2.StreamTurnEventsRequest(turn_id=turn_id)
    own = connect(api.settings.address("api"), to="api", identity=identity("envoy"))
    async with own as channel:
        stuck = turn_service_pb2_grpc.TurnServiceStub(channel).StreamTurnEvents(request, metadata=api.key)
        await check(api, turn_id, stuck)


async def check(api: Rig, turn_id: str, stuck: AsyncIterable[turn_event_pb2.TurnEvent]) -> None:
    reading = asyncio.create_task(read(api, turn_id))
    # Nothing waits for the one that does not read, neither the writer nor the one who does.
    assert await asyncio.wait_for(append_many(api, turn_id), 60) == EVENTS + 1
    assert numbers(await asyncio.wait_for(reading, 60)) == list(range(1, EVENTS + 2))
    # What is held for it is what it had asked for last, however many have passed.
    assert sum(isinstance(held, Event) for held in gc.get_objects()) < EVENTS / 2
    assert [event.sequence async for event in stuck] == list(range(1, EVENTS + 2))
