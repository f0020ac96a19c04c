"""What is said into a running turn: the agent reads it once, and the turn does not end before it has."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from orginabox.sandbox.v1 import sandbox_service_pb2 as pb

from services.kit.ids import new_id
from services.kit.status import reason_of
from services.sandbox.opencode import Opencode
from services.sandbox.run import Model
from tests.contract.sandbox.rig import Event, Rig, kinds, text_of
from tests.model_server import Fault, Script, Step, scenario

SLOW_TOOL = scenario("bash", command="sleep 0.8; echo done", before="Calling. ", after="After the tool.")


def terminals(events: list[Event]) -> list[str]:
    """How the turn ended, which it does once."""
    ends = {"completed", "failed", "aborted"}
    return [kind for event in events if (kind := event.WhichOneof("event") or "") in ends]


def steered(events: list[Event]) -> list[str]:
    """What was said into the turn."""
    return [event.user_steered.text for event in events if event.HasField("user_steered")]


async def start(rig: Rig, request: pb.RunTurnRequest, until: Callable[[Event], bool]) -> asyncio.Task[list[Event]]:
    """Run a turn in the background until something has happened in it."""
    reached = asyncio.Event()

    async def read() -> list[Event]:
        found = []
        async for event in rig.stream(request):
            found.append(event)
            if until(event):
                reached.set()
        return found

    task = asyncio.create_task(read())
    await asyncio.wait_for(reached.wait(), 20)
    return task


async def refusal(rig: Rig, turn_id: str, text: str) -> str:
    """Say something into a turn; the reason of the refusal, or nothing when it was taken."""
    try:
        await rig.steer(turn_id, text)
    except grpc.aio.AioRpcError as refused:
        return reason_of(refused)
    return ""


def tool_runs(event: Event) -> bool:
    """Whether a tool has started."""
    return event.HasField("tool_started")


def speaks(event: Event) -> bool:
    """Whether the agent has said something."""
    return event.HasField("text_delta")


async def test_the_model_reads_it_with_its_next_call(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, SLOW_TOOL)
    running = await start(rig, request, tool_runs)
    name = str(new_id())
    await asyncio.gather(*(rig.steer(request.turn_id, "say As you wish.", name) for _ in range(3)))
    events = await running
    await rig.steer(request.turn_id, "say As you wish.", name)
    assert steered(events) == ["say As you wish."]
    assert text_of(events) == "Calling. As you wish."
    assert terminals(events) == ["completed"]
    told = kinds(events)
    assert told.index("tool_started") < told.index("user_steered") < told.index("tool_finished")
    said = [message["content"] for message in rig.model.requests[-1].body["messages"] if message["role"] == "user"]
    assert said == [request.text, "say As you wish."]


async def test_several_are_read_in_their_order(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, SLOW_TOOL)
    running = await start(rig, request, tool_runs)
    for text in ("first", "second", "say All read."):
        await rig.steer(request.turn_id, text)
    events = await running
    assert steered(events) == ["first", "second", "say All read."]
    assert text_of(events) == "Calling. All read."
    assert terminals(events) == ["completed"]
    said = [message["content"] for message in rig.model.requests[-1].body["messages"] if message["role"] == "user"]
    assert said[-3:] == ["first", "second", "say All read."]


async def test_the_last_answer_is_followed_by_one_more(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("slow", deltas=10, interval=0.05))
    running = await start(rig, request, speaks)
    await rig.steer(request.turn_id, "say And more.")
    events = await running
    assert text_of(events) == "".join(f"word{i} " for i in range(10)) + "And more."
    assert terminals(events) == ["completed"]


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2])
async def test_what_was_taken_is_answered_before_the_end(rig: Rig, sandbox_id: str, delay: float) -> None:
    """Said around the end of a turn: it is either refused, or part of the turn with an answer of its own."""
    request = rig.turn(sandbox_id, "say Nearly done.")
    running = await start(rig, request, lambda event: event.HasField("usage"))
    await asyncio.sleep(delay)
    refused = await refusal(rig, request.turn_id, "say And this.")
    events = await running
    assert refused in {"", "TURN_ENDED"}
    assert steered(events) == ([] if refused else ["say And this."])
    assert text_of(events) == ("Nearly done." if refused else "Nearly done.And this.")
    assert terminals(events) == ["completed"]
    after = await rig.run(rig.turn(sandbox_id, "say fine", session_id=request.session_id))
    assert text_of(after) == "fine"


async def test_what_the_agent_leaves_unread_is_said_again(
    rig: Rig, sandbox_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = rig.turn(sandbox_id, scenario("slow", deltas=5, interval=0.05))
    running = await start(rig, request, speaks)
    prompt, calls = Opencode.prompt, 0

    async def lay_down(agent: Opencode, session_id: str, message_id: str, text: str, model: Model, *more: Any) -> None:
        """The first time opencode ends before it has read the message: here it never had it."""
        nonlocal calls
        calls += 1
        if calls > 1:
            await prompt(agent, session_id, message_id, text, model, *more)

    monkeypatch.setattr(Opencode, "prompt", lay_down)
    await rig.steer(request.turn_id, "say Heard.")
    events = await running
    assert calls == 2
    assert steered(events) == ["say Heard."]
    assert text_of(events).endswith("Heard.")
    assert terminals(events) == ["completed"]


async def test_said_twice_to_opencode_is_read_once(rig: Rig, sandbox_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    request = rig.turn(sandbox_id, SLOW_TOOL)
    running = await start(rig, request, tool_runs)
    prompt = Opencode.prompt

    async def twice(agent: Opencode, session_id: str, message_id: str, text: str, model: Model, *more: Any) -> None:
        await prompt(agent, session_id, message_id, text, model, *more)
        await prompt(agent, session_id, message_id, text, model, *more)

    monkeypatch.setattr(Opencode, "prompt", twice)
    await rig.steer(request.turn_id, "say Once.")
    events = await running
    assert text_of(events) == "Calling. Once."
    messages = rig.model.requests[-1].body["messages"]
    assert str(messages).count("say Once.") == 1


async def test_a_turn_that_is_stopped_takes_nothing_more(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("slow", deltas=200, interval=0.05))
    running = await start(rig, request, speaks)
    await rig.steer(request.turn_id, "say Not read.")
    await rig.stub.AbortTurn(pb.AbortTurnRequest(turn_id=request.turn_id))
    assert await refusal(rig, request.turn_id, "say Too late.") == "TURN_ENDED"
    events = await running
    assert steered(events) == ["say Not read."]
    assert terminals(events) == ["aborted"]
    after = await rig.run(rig.turn(sandbox_id, "say fine", session_id=request.session_id))
    assert text_of(after) == "fine"


async def test_a_turn_that_fails_ends_all_the_same(rig: Rig, sandbox_id: str) -> None:
    steps = [Step(text="One two three four.", interval=0.2, fault=Fault(bad_json_after=3))]
    request = rig.turn(sandbox_id, Script(steps).prompt(str(new_id())))
    running = await start(rig, request, speaks)
    await rig.steer(request.turn_id, "say Not read.")
    events = await running
    assert terminals(events) == ["failed"]


async def test_a_turn_that_begins_takes_what_is_said(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("say", text="Hello."))
    running = asyncio.create_task(rig.run(request))
    while refused := await refusal(rig, request.turn_id, "say At once."):
        assert refused == "RUN_LOST"
    events = list(await running)
    assert steered(events) == ["say At once."]
    assert text_of(events).endswith("At once.")
    assert terminals(events) == ["completed"]


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.06, 0.09, 0.12])
async def test_what_crosses_the_first_model_call_is_answered(rig: Rig, sandbox_id: str, delay: float) -> None:
    """It may be noted before the answer to the prompt and still not be in what the model was given."""
    request = rig.turn(sandbox_id, "say One.")
    running = await start(rig, request, lambda event: event.HasField("started"))
    await asyncio.sleep(delay)
    refused = await refusal(rig, request.turn_id, "say Two.")
    events = await running
    assert text_of(events) in ({"One."} if refused else {"Two.", "One.Two."})
    assert terminals(events) == ["completed"]


async def test_an_unknown_turn_takes_nothing(rig: Rig) -> None:
    assert await refusal(rig, str(new_id()), "hello") == "RUN_LOST"


async def test_a_cut_event_stream_does_not_lose_what_was_said(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, SLOW_TOOL)
    running = await start(rig, request, tool_runs)
    await rig.steer(request.turn_id, "say Still here.")
    await rig.cut_events(sandbox_id, pause=1.5)
    events = await running
    assert steered(events) == ["say Still here."]
    assert text_of(events) == "Calling. Still here."
    assert terminals(events) == ["completed"]
