"""Writes paced logs into Api, as workers do: `python -m tests.bench.fanout_driver ADDRESS RATE COUNT AT TURN...`."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import uvloop
from orginabox.turn.v1 import turn_event_pb2, turn_log_service_pb2, turn_log_service_pb2_grpc

from services.kit.channel import connect
from services.kit.settings import MeshSettings

TOKEN = "bench"


async def paced(
    turn_id: str, rate: float, count: int, at: int
) -> AsyncIterator[turn_log_service_pb2.AppendTurnEventsRequest]:
    """A log with one delta each time that one is due. A delta carries the time at which it was due."""
    for number in range(1, count + 2):
        event = turn_event_pb2.TurnEvent(sequence=number, turn_id=turn_id)
        event.create_time.GetCurrentTime()
        if number <= count:
            due = at + int(number / rate * 1e9)
            await asyncio.sleep(max((due - time.time_ns()) / 1e9, 0))
            event.text_delta.part_id, event.text_delta.text = "p", f"@{due}@"
        else:
            event.completed.SetInParent()
        yield turn_log_service_pb2.AppendTurnEventsRequest(turn_id=turn_id, lease_token=TOKEN, events=[event])


async def write(address: str, rate: float, count: int, at: int, turns: list[str]) -> None:
    """Write the logs of all turns at once."""
    async with connect(address, to="api", identity=MeshSettings().identity("worker")) as channel:
        log = turn_log_service_pb2_grpc.TurnLogServiceStub(channel)

        async def one(turn_id: str) -> None:
            async for _ in log.AppendTurnEvents(paced(turn_id, rate, count, at)):
                pass

        await asyncio.gather(*map(one, turns))


if __name__ == "__main__":
    address, rate, count, at, *turns = sys.argv[1:]
    uvloop.run(write(address, float(rate), int(count), int(at), turns))
