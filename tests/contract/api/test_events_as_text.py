"""The stream of events as text, which REST reads."""

import asyncio
import re
import time

from google.api import httpbody_pb2
from google.protobuf import json_format
from orginabox.api.v1 import turn_service_pb2
from orginabox.turn.v1 import turn_event_pb2

from tests.contract.api.conftest import Rig
from tests.contract.api.test_turn_log import append, completed, delta, make_turn, numbers, open_turn, read


async def read_text(api: Rig, turn_id: str, after: int = 0, last_event_id: str = "") -> list[httpbody_pb2.HttpBody]:
    metadata = (*api.key, ("last-event-id", last_event_id)) if last_event_id else api.key
    request = turn_service_pb2.StreamTurnEventsAsTextRequest(turn_id=turn_id, from_sequence=after)
    return [body async for body in api.turns.StreamTurnEventsAsText(request, metadata=metadata)]


def events_of(bodies: list[httpbody_pb2.HttpBody]) -> list[turn_event_pb2.TurnEvent]:
    text = b"".join(body.data for body in bodies).decode()
    found = re.findall(r"^id: (\d+)\ndata: (.*)\n\n", text, re.MULTILINE)
    parsed = [json_format.Parse(data, turn_event_pb2.TurnEvent()) for _, data in found]
    assert [number for number, _ in found] == [str(event.sequence) for event in parsed]
    return parsed


async def test_the_text_says_what_the_events_say_and_resumes_like_them(api: Rig) -> None:
    turn_id = await make_turn(api)
    await open_turn(api, turn_id)
    live = asyncio.create_task(read_text(api, turn_id))
    await append(api, turn_id, *(delta(number, f"é{number}\n") for number in range(1, 30)), completed(30))
    bodies = await live
    assert (bodies[0].content_type, bodies[0].data) == ("text/event-stream", b"")
    assert events_of(bodies) == await read(api, turn_id)
    assert numbers(events_of(await read_text(api, turn_id, last_event_id="27"))) == [28, 29, 30]
    assert numbers(events_of(await read_text(api, turn_id, after=28, last_event_id="27"))) == [29, 30]


async def test_whoever_comes_late_gets_many_events_with_one_message(api: Rig) -> None:
    turn_id = await make_turn(api)
    await open_turn(api, turn_id)
    await append(api, turn_id, *(delta(number) for number in range(1, 400)), completed(400))
    bodies = await read_text(api, turn_id)
    assert numbers(events_of(bodies)) == list(range(1, 401))
    assert len(bodies) <= 3


async def test_a_lone_event_is_sent_at_once(api: Rig) -> None:
    turn_id = await make_turn(api)
    await open_turn(api, turn_id)
    request = turn_service_pb2.StreamTurnEventsAsTextRequest(turn_id=turn_id)
    call = api.turns.StreamTurnEventsAsText(request, metadata=api.key)
    bodies = aiter(call)
    await anext(bodies)
    began = time.monotonic()
    writing = asyncio.create_task(append(api, turn_id, delta(1)))
    assert numbers(events_of([await anext(bodies)])) == [1]
    assert time.monotonic() - began < 0.9  # sooner than a reader would look at the disk by itself
    await writing
    call.cancel()
