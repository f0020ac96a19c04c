"""The agent's sessions: made once, ahead of the first turn, and deleted with ours."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import pytest
from orginabox.errors.v1 import error_reason_pb2 as reasons
from orginabox.sandbox.v1 import sandbox_service_pb2 as pb

from services.kit.ids import DEFAULT_TENANT, OPERATOR, new_id
from services.kit.tenancy import as_system
from services.sandbox.opencode import AgentUnreadable, Opencode, OpencodeError
from tests.contract.sandbox.rig import Event, Rig, text_of
from tests.model_server import scenario


async def test_a_session_is_made_once_and_before_its_first_turn(
    rig: Rig, sandbox_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = count_made(monkeypatch)
    session = str(new_id())
    await rig.claim(OPERATOR, session)
    await rig.claim(OPERATOR, session)
    events = await rig.run(rig.turn(sandbox_id, "say it went well", session_id=session))
    assert text_of(events) == "it went well"
    assert made == [f"Session {session}"]


async def test_a_session_that_could_not_be_made_ahead_is_made_by_its_turn(
    rig: Rig, sandbox_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Opencode, title: str) -> str:
        raise OpencodeError("not now", 500)

    session = str(new_id())
    with monkeypatch.context() as patch:
        patch.setattr(Opencode, "create_session", fail)
        await rig.claim(OPERATOR, session)
        await until(lambda: not rig.live(sandbox_id).sessions.get(UUID(session)))
    events = await rig.run(rig.turn(sandbox_id, "say it went well", session_id=session))
    assert text_of(events) == "it went well"


async def test_a_forgotten_session_leaves_nothing_at_the_agent(rig: Rig, sandbox_id: str) -> None:
    session, other = str(new_id()), str(new_id())
    for each in (session, other):
        request = rig.turn(sandbox_id, "say something secret", session_id=each)
        await rig.run(request)
    live = rig.live(sandbox_id)
    name, other_name = [await live.sessions[UUID(each)] for each in (session, other)]
    await forget(rig, session)
    await forget(rig, session)
    await until(lambda: UUID(session) not in live.sessions)
    assert not await live.agent.has_session(name)
    assert await live.agent.has_session(other_name)
    await until_forgotten(rig, session)
    assert UUID(session) not in {run.turn.session_id for run in rig.fleet.runs.values()}


async def test_what_a_stopped_sandbox_keeps_is_deleted_when_it_runs_again(rig: Rig) -> None:
    user, session = new_id(), str(new_id())
    sandbox_id = (await rig.claim(user)).sandbox.sandbox_id
    await rig.run(rig.turn(sandbox_id, "say something secret", session_id=session))
    name = await rig.live(sandbox_id).sessions[UUID(session)]
    stop = pb.StopSandboxRequest(tenant_id=str(DEFAULT_TENANT), sandbox_id=sandbox_id)
    await rig.stub.StopSandbox(stop)
    await forget(rig, session)
    await rig.claim(user)
    assert await rig.live(sandbox_id).agent.has_session(name)
    with as_system():
        await rig.handler._forgetting.sweep()
    assert not await rig.live(sandbox_id).agent.has_session(name)
    await rig.stub.StopSandbox(stop)


async def test_a_session_that_is_not_deleted_yet_is_tried_again(
    rig: Rig, sandbox_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = str(new_id())
    await rig.run(rig.turn(sandbox_id, "say something secret", session_id=session))
    name = await rig.live(sandbox_id).sessions[UUID(session)]
    tries: list[str] = []

    async def fail(_: Opencode, session_id: str) -> None:
        tries.append(session_id)
        raise OpencodeError("not now")

    with monkeypatch.context() as patch:
        patch.setattr(Opencode, "delete_session", fail)
        await forget(rig, session)
        await until(lambda: tries == [name])
    with as_system():
        await rig.handler._forgetting.sweep()
    assert not await rig.live(sandbox_id).agent.has_session(name)


@pytest.mark.parametrize("answer", [b"<html>", b'"text"', b"[[[", b"7"])
async def test_answers_that_cannot_be_read_are_refused_as_such(
    rig: Rig, sandbox_id: str, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nonsense(*_: object) -> bytes:
        return answer

    agent = rig.live(sandbox_id).agent
    monkeypatch.setattr(Opencode, "_call", nonsense)
    for call in (agent.messages("ses"), agent.permissions(), agent.busy_sessions(), agent.create_session("x")):
        with pytest.raises(AgentUnreadable):
            await call


async def test_a_turn_whose_agent_cannot_be_read_ends_with_a_reason(
    rig: Rig, sandbox_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def nonsense(_: Opencode) -> set[str]:
        nonlocal asked
        asked += 1
        raise AgentUnreadable("the agent answered no JSON")

    monkeypatch.setattr(Opencode, "busy_sessions", nonsense)
    request = rig.turn(sandbox_id, scenario("slow", deltas=200, interval=0.05))
    found: list[Event] = []
    async for event in rig.stream(request):
        if not found:
            await rig.cut_events(sandbox_id)
        found.append(event)
    assert found[-1].failed.reason == reasons.ERROR_REASON_AGENT_ERROR
    assert "cannot be read" in found[-1].failed.message
    assert asked > 1


def count_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of the sessions that the agent makes from now on."""
    made: list[str] = []
    create = Opencode.create_session

    async def counted(agent: Opencode, title: str) -> str:
        made.append(title)
        await asyncio.sleep(0.2)  # whoever asks meanwhile asks for the same
        return await create(agent, title)

    monkeypatch.setattr(Opencode, "create_session", counted)
    return made


async def forget(rig: Rig, session_id: str) -> None:
    """Forget a session."""
    await rig.stub.ForgetSession(pb.ForgetSessionRequest(tenant_id=str(DEFAULT_TENANT), session_id=session_id))


async def until_forgotten(rig: Rig, session_id: str) -> None:
    """Wait until nothing is noted of a session."""
    for _ in range(100):
        running = [live.sandbox.id for live in rig.fleet.running()]
        with as_system():
            async with rig.store.transaction() as tx:
                left = await tx._sql.many("list_forgotten", sandboxes=running)
        if not any(row["session_id"] == UUID(session_id) for row in left):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it is still noted")


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that happens soon."""
    for _ in range(200):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen within 4 seconds")
