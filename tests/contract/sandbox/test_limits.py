"""How long a turn may take, and how long it waits for its user."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc
import pytest
from orginabox.errors.v1 import error_reason_pb2 as reasons
from orginabox.turn.v1 import turn_event_pb2 as turns

from services.kit.ids import new_id
from services.kit.status import reason_of
from services.sandbox.settings import SandboxSettings
from tests.contract.sandbox.rig import Event, Rig, kinds, text_of
from tests.model_server import scenario


def test_limits_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SandboxSettings(database_url="postgresql:///x").patience()
    assert (before.soft_limit, before.hard_limit, before.permission) == (3000, 3600, 0)
    for name, value in {"TURN_SOFT_LIMIT": "1", "TURN_HARD_LIMIT": "2", "PERMISSION_TIMEOUT": "3"}.items():
        monkeypatch.setenv(f"OIAB_{name}", value)
    after = SandboxSettings(database_url="postgresql:///x").patience()
    assert (after.soft_limit, after.hard_limit, after.permission) == (1, 2, 3)


async def test_the_agent_is_told_to_wrap_up(rig: Rig, sandbox_id: str) -> None:
    with rig.patience(soft_limit=0.5, hard_limit=100):
        events = await rig.run(rig.turn(sandbox_id, scenario("bash", command="sleep 1.2; echo done")))
    told = kinds(events)
    assert told.count("wrap_up_asked") == 1
    assert "user_steered" not in told
    assert told[-1] == "completed"
    asked = next(event for event in events if event.HasField("wrap_up_asked"))
    left = asked.wrap_up_asked.hard_limit_time.ToDatetime() - asked.create_time.ToDatetime()
    assert 80 < left.total_seconds() < 99.6
    assert "nears its time limit" in str(rig.model.requests[-1].body["messages"])


async def test_a_turn_without_end_is_stopped(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("slow", deltas=1000, interval=0.02))
    with rig.patience(soft_limit=0.3, hard_limit=1):
        events = await asyncio.wait_for(rig.run(request), 10)
    assert [kind for kind in kinds(events) if kind != "text_delta"] == ["started", "wrap_up_asked", "failed"]
    assert events[-1].failed.reason == reasons.ERROR_REASON_TURN_TIME_EXCEEDED
    assert "longer than a turn may" in events[-1].failed.message
    after = await rig.run(rig.turn(sandbox_id, "say fine", session_id=request.session_id))
    assert text_of(after) == "fine"


async def test_waiting_for_the_user_is_no_work(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("bash", command="rm -f nothing", after="Done."))

    async def answer_late(permission_id: str) -> None:
        await asyncio.sleep(6)
        await rig.reply(request.turn_id, permission_id, turns.PERMISSION_REPLY_ONCE)

    def when(event: Event) -> Coroutine[Any, Any, None] | None:
        return answer_late(event.permission_asked.permission_id) if event.HasField("permission_asked") else None

    with rig.patience(soft_limit=5, hard_limit=5.5):
        events = await rig.run(request, when)
    assert "wrap_up_asked" not in kinds(events)
    assert events[-1].HasField("completed")


async def test_a_permission_that_nobody_answers_expires(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("bash", command="rm -f nothing", after="Then without."))
    with rig.patience(permission=0.5):
        events = await rig.run(request)
    told = kinds(events)
    asked = next(event.permission_asked for event in events if event.HasField("permission_asked"))
    expired = [event.permission_expired.permission_id for event in events if event.HasField("permission_expired")]
    finished = next(event.tool_finished for event in events if event.HasField("tool_finished"))
    assert expired == [asked.permission_id]
    assert "permission_replied" not in told
    assert told.index("permission_asked") < told.index("permission_expired") < told.index("tool_finished")
    assert finished.error == "Nobody answered in time whether this may be done, so it was not done."
    assert "It was not refused by the user." in str(rig.model.requests[-1].body["messages"])
    assert text_of(events) == "Calling. Then without."
    assert events[-1].HasField("completed")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rig.reply(request.turn_id, asked.permission_id, turns.PERMISSION_REPLY_ONCE)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(refused.value) == "PERMISSION_TIMEOUT"


async def test_an_answer_after_the_time_finds_no_question(rig: Rig, sandbox_id: str) -> None:
    """While the turn goes on, and through a cut stream of events, which makes it ask the agent how things stand."""
    after = "Then without, and slowly." + "." * 40
    request = rig.turn(sandbox_id, scenario("bash", command="rm -f nothing", after=after))
    refusals: list[str] = []

    async def answer_too_late(permission_id: str) -> None:
        await rig.cut_events(sandbox_id)
        try:
            await rig.reply(request.turn_id, permission_id, turns.PERMISSION_REPLY_ONCE)
        except grpc.aio.AioRpcError as refused:
            refusals.append(reason_of(refused))

    def when(event: Event) -> Coroutine[Any, Any, None] | None:
        return answer_too_late(event.permission_expired.permission_id) if event.HasField("permission_expired") else None

    with rig.patience(permission=0.4):
        events = await rig.run(request, when)
    assert refusals == ["PERMISSION_TIMEOUT"]
    assert "permission_replied" not in kinds(events)
    assert text_of(events) == f"Calling. {after}"


async def test_without_a_time_a_permission_is_waited_for(rig: Rig, sandbox_id: str) -> None:
    session = str(new_id())
    request = rig.turn(sandbox_id, scenario("bash", command="rm -f nothing"), session_id=session)

    async def answer_late(permission_id: str) -> None:
        await asyncio.sleep(1.5)
        await rig.reply(request.turn_id, permission_id, turns.PERMISSION_REPLY_ONCE)

    def when(event: Event) -> Coroutine[Any, Any, None] | None:
        return answer_late(event.permission_asked.permission_id) if event.HasField("permission_asked") else None

    events = await rig.run(request, when)
    assert "permission_expired" not in kinds(events)
    assert events[-1].HasField("completed")
