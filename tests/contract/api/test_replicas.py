"""Two replicas of Api on one database: any of them serves any turn."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from statistics import median

import pytest
from orginabox.api.v1 import session_service_pb2 as pb
from orginabox.api.v1 import turn_pb2, turn_service_pb2
from orginabox.turn.v1 import turn_event_pb2, turn_log_service_pb2

from services.api import reader
from services.api.neighbours import Neighbours
from services.kit.ids import new_id
from tests.contract.api.conftest import Rig, running
from tests.contract.api.test_turn_log import append, completed, delta, make_turn, numbers, open_turn, read

Replicas = tuple[Rig, Rig]


async def write_slowly(api: Rig, turn_id: str, first: int, last: int, *, token: str = "t1") -> dict[int, float]:
    """Append deltas, one every 20 ms, and tell when each was sent."""
    sent = {}

    async def requests() -> AsyncIterator[turn_log_service_pb2.AppendTurnEventsRequest]:
        for number in range(first, last + 1):
            sent[number] = time.monotonic()
            event = delta(number, f"{number} ")
            yield turn_log_service_pb2.AppendTurnEventsRequest(turn_id=turn_id, lease_token=token, events=[event])
            await asyncio.sleep(0.02)

    async for _ in api.log.AppendTurnEvents(requests()):
        pass
    return sent


async def read_with_times(api: Rig, turn_id: str) -> dict[int, float]:
    """Read a log to its end, and tell when each event came."""
    request = turn_service_pb2.StreamTurnEventsRequest(turn_id=turn_id)
    return {event.sequence: time.monotonic() async for event in api.turns.StreamTurnEvents(request, metadata=api.key)}


async def test_what_one_writes_is_read_through_the_other_at_once(replicas: Replicas) -> None:
    one, other = replicas
    turn_id = await make_turn(one)
    reading = asyncio.create_task(read_with_times(other, turn_id))
    await asyncio.sleep(0.1)
    await open_turn(one, turn_id)
    sent = await write_slowly(one, turn_id, 1, 100)
    await append(one, turn_id, completed(101))
    came = await reading
    assert list(came) == list(range(1, 102))
    delays = sorted(came[number] - sent[number] for number in sent)
    assert median(delays) < 0.06
    assert delays[-5] < reader.POLL_SECONDS / 2, "no poll is that quick"


async def test_a_lone_event_after_silence_comes_at_once(replicas: Replicas) -> None:
    one, other = replicas
    turn_id = await make_turn(one)
    reading = asyncio.create_task(read_with_times(other, turn_id))
    await open_turn(one, turn_id)
    await asyncio.sleep(2.5)
    sent = await write_slowly(one, turn_id, 1, 1)
    await append(one, turn_id, completed(2))
    assert (await reading)[1] - sent[1] < 0.3


async def test_a_reader_at_each_sees_the_same_when_the_writer_moves_to_and_fro(replicas: Replicas) -> None:
    one, _ = replicas
    turn_id = await make_turn(one)
    reading = [asyncio.create_task(read(replica, turn_id)) for replica in replicas for _ in range(3)]
    for attempt in range(1, 7):
        writer, token = replicas[attempt % 2], f"t{attempt}"
        assert (await open_turn(writer, turn_id, attempt, token)).last_sequence == (attempt - 1) * 20
        await write_slowly(writer, turn_id, attempt * 20 - 19, attempt * 20, token=token)
    await append(one, turn_id, completed(121), token="t6")
    logs = await asyncio.wait_for(asyncio.gather(*reading), 20)
    assert numbers(logs[0]) == list(range(1, 122))
    assert all(log == logs[0] for log in logs)


async def test_a_writer_that_hangs_at_one_holds_up_nobody_when_the_turn_goes_on_at_the_other(
    replicas: Replicas,
) -> None:
    one, other = replicas
    turn_id = await make_turn(one)
    reading = asyncio.create_task(read_with_times(one, turn_id))
    await open_turn(one, turn_id, 1, "old")
    hanging = one.log.AppendTurnEvents()
    await hanging.write(
        turn_log_service_pb2.AppendTurnEventsRequest(turn_id=turn_id, lease_token="old", events=[delta(1)])
    )
    await hanging.read()
    await open_turn(other, turn_id, 2, "new")
    await asyncio.sleep(0.1)
    sent = await write_slowly(other, turn_id, 2, 30, token="new")
    await append(other, turn_id, completed(31), token="new")
    came = await asyncio.wait_for(reading, 5)
    assert list(came) == list(range(1, 32))
    assert median(came[number] - sent[number] for number in sent) < 0.06
    hanging.cancel()


async def test_prompts_aborts_and_answers_go_through_either(replicas: Replicas) -> None:
    one, other = replicas
    session = (await one.sessions.CreateSession(pb.CreateSessionRequest(), metadata=one.key)).session_id
    prompt = pb.PromptRequest(session_id=session, text="once", request_id=str(new_id()))
    said = [await replica.sessions.Prompt(prompt, metadata=replica.key) for replica in (one, other, one)]
    turn_id = said[0].turn_id
    assert {answer.turn_id for answer in said} == {turn_id}
    await open_turn(one, turn_id)
    reply = turn_service_pb2.ReplyPermissionRequest(
        turn_id=turn_id, permission_id="per_1", reply=turn_event_pb2.PERMISSION_REPLY_ONCE
    )
    await other.turns.ReplyPermission(reply, metadata=other.key)
    assert [answered.turn_id for answered in one.peers.replies] == [turn_id]
    await other.turns.AbortTurn(turn_service_pb2.AbortTurnRequest(turn_id=turn_id), metadata=other.key)
    assert one.peers.aborted == [turn_id]
    await one.until(lambda: len(one.peers.jobs) >= 1)
    assert {job.idempotency_key for job in one.peers.jobs} == {f"turn:{turn_id}"}


async def test_a_waiting_turn_aborted_at_one_ends_for_a_reader_at_the_other(replicas: Replicas) -> None:
    one, other = replicas
    turn_id = await make_turn(one)
    reading = asyncio.create_task(read(other, turn_id))
    await asyncio.sleep(0.3)
    answer = await one.turns.AbortTurn(turn_service_pb2.AbortTurnRequest(turn_id=turn_id), metadata=one.key)
    assert answer.turn.state == turn_pb2.TURN_STATE_ABORTED
    assert [event.WhichOneof("event") for event in await asyncio.wait_for(reading, 0.5)] == ["aborted"]


async def test_without_any_hint_the_poll_finds_everything(
    database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf_and_dumb(*_: object) -> None:
        return

    monkeypatch.setattr(Neighbours, "run", deaf_and_dumb)
    async with running(database("api", "identity"), 2) as (one, other):
        turn_id = await make_turn(one)
        reading = asyncio.create_task(read(other, turn_id))
        await open_turn(one, turn_id)
        await write_slowly(one, turn_id, 1, 60)
        await append(one, turn_id, completed(61))
        assert numbers(await asyncio.wait_for(reading, 5)) == list(range(1, 62))
