"""An agent's tools end where its user's do: tried on the real opencode, turn by turn."""

from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from orginabox.turn.v1 import turn_event_pb2

from services.kit.ids import new_id
from services.kit.status import reason_of
from tests.contract.sandbox.rig import EVERYTHING, Event, Rig, ToolCeiling
from tests.model_server import scenario
from tests.model_server.script import Script, Step, ToolCall

NO_BASH = ToolCeiling(allowed=["*"], denied=["bash"])


def offered(rig: Rig) -> set[str]:
    """The tools that the model was offered with the last call."""
    return {tool["function"]["name"] for tool in rig.model.requests[-1].body.get("tools", [])}


def told(events: Sequence[Event]) -> list[tuple[str, str]]:
    """The tools that ran, and what came of each."""
    ended = [event.tool_finished for event in events if event.HasField("tool_finished")]
    return [(each.tool, each.output + each.error) for each in ended]


async def bash(rig: Rig, sandbox_id: str, session: str, tools: ToolCeiling) -> list[tuple[str, str]]:
    request = rig.turn(sandbox_id, scenario("bash", command="echo hel''lo"), session_id=session, tools=tools)
    events = await rig.run(request)
    assert events[-1].HasField("completed"), events[-1]
    return told(events)


async def test_a_denied_tool_is_not_offered_and_cannot_be_forced_and_comes_back_with_the_next_turn(
    rig: Rig, sandbox_id: str
) -> None:
    session = str(new_id())
    for _ in range(2):
        assert await bash(rig, sandbox_id, session, EVERYTHING) == [("bash", "hello\n")]
        assert "bash" in offered(rig)
        ((tool, output),) = await bash(rig, sandbox_id, session, NO_BASH)
        assert tool != "bash"
        assert "hello" not in output
        assert "bash" not in offered(rig)
        assert {"read", "grep", "edit"} <= offered(rig)


async def test_only_what_is_allowed_is_offered_and_asks_as_before(rig: Rig, sandbox_id: str) -> None:
    session = str(new_id())
    tools = ToolCeiling(allowed=["bash", "read", "ba*", "no-tool"], denied=["gr?p", "r*"])
    assert await bash(rig, sandbox_id, session, tools) == [("bash", "hello\n")]
    assert offered(rig) == {"bash", "read"}
    asked: list[str] = []

    async def refuse(event: Event) -> None:
        asked.append(event.permission_asked.permission)
        await rig.reply(event.turn_id, event.permission_asked.permission_id, turn_event_pb2.PERMISSION_REPLY_REJECT)

    request = rig.turn(sandbox_id, scenario("bash", command="rm nothing"), session_id=session, tools=tools)
    await rig.run(request, lambda event: refuse(event) if event.HasField("permission_asked") else None)
    assert asked == ["bash"]
    assert await bash(rig, sandbox_id, session, EVERYTHING) == [("bash", "hello\n")]
    assert {"bash", "read", "edit", "grep"} <= offered(rig)


@pytest.mark.parametrize(
    "tools", [ToolCeiling(), ToolCeiling(allowed=["*"], denied=["*"]), ToolCeiling(allowed=["bash"], denied=["bash"])]
)
async def test_nothing_is_offered_to_whom_nothing_is_allowed(rig: Rig, sandbox_id: str, tools: ToolCeiling) -> None:
    ((_, output),) = await bash(rig, sandbox_id, str(new_id()), tools)
    assert "unavailable tool" in output
    assert "hello" not in output
    assert offered(rig) == set()


@pytest.mark.parametrize("denied", ["edit", "write"])
async def test_who_may_not_edit_in_one_way_may_in_none(rig: Rig, sandbox_id: str, denied: str) -> None:
    tools = ToolCeiling(allowed=["*"], denied=[denied])
    events = await rig.run(rig.turn(sandbox_id, scenario("write", path="x.txt"), tools=tools))
    assert [tool for tool, _ in told(events)] != ["write"]
    assert not {"edit", "write", "apply_patch"} & offered(rig)


async def test_a_sub_agent_has_no_more_than_its_agent_and_is_not_taken_up_with_what_it_had(
    rig: Rig, sandbox_id: str
) -> None:
    session = str(new_id())

    async def child(tools: ToolCeiling, **more: Any) -> set[str]:
        asked = {"description": "look", "prompt": "say hi", "subagent_type": "general", **more}
        request = rig.turn(sandbox_id, Script([Step(tools=[ToolCall("task", asked)])]).prompt(), session_id=session)
        request.tools.CopyFrom(tools)
        before = len(rig.model.requests)
        await rig.run(request)
        calls = [call for call in rig.model.requests[before:] if "x-parent-session-id" in call.headers]
        return {tool["function"]["name"] for call in calls for tool in call.body["tools"]}

    assert "bash" in await child(EVERYTHING)
    live = rig.live(sandbox_id)
    name = next(reversed(live.ceilings))
    (first,) = await live.agent.children(name)
    narrowed = await child(NO_BASH, task_id=first.id)
    assert "read" in narrowed
    assert "bash" not in narrowed
    assert first.id not in {each.id for each in await live.agent.children(name)}
    assert "bash" in await child(EVERYTHING)


@pytest.mark.parametrize("now", [NO_BASH, EVERYTHING])
async def test_no_answer_allows_what_the_user_may_not_use(rig: Rig, sandbox_id: str, now: ToolCeiling) -> None:
    answers: list[str] = []

    async def allow(event: Event) -> None:
        permission = event.permission_asked.permission_id
        try:
            await rig.reply(event.turn_id, permission, turn_event_pb2.PERMISSION_REPLY_ONCE, tools=now)
            answers.append("")
        except grpc.aio.AioRpcError as error:
            answers.append(reason_of(error))
            await rig.reply(event.turn_id, permission, turn_event_pb2.PERMISSION_REPLY_REJECT, tools=now)

    request = rig.turn(sandbox_id, scenario("bash", command="rm -f nothing"))
    await rig.run(request, lambda event: allow(event) if event.HasField("permission_asked") else None)
    assert answers == ["PERMISSION_DENIED" if now is NO_BASH else ""]
