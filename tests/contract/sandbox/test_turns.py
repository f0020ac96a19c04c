"""Turns through the real agent: what they say, in which order, and how they end."""

import asyncio
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

import grpc
import pytest
from orginabox.errors.v1 import error_reason_pb2 as reasons
from orginabox.sandbox.v1 import sandbox_service_pb2 as pb
from orginabox.turn.v1 import turn_event_pb2 as turns

from services.kit.errors import ServiceUnavailable
from services.kit.ids import DEFAULT_TENANT, new_id
from services.kit.status import reason_of
from services.kit.tenancy import as_tenant
from services.sandbox.opencode import Opencode, OpencodeError
from services.sandbox.run import Turn
from services.sandbox.store import Transaction
from tests.contract.sandbox.rig import Event, Rig, bash_output, kinds, text_of
from tests.model_server import Fault, Script, Step, ToolCall, scenario


async def test_text(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("say", text="Hello there, my friend.", interval=0.01))
    events = await rig.run(request)
    assert kinds(events) == ["started", "text_delta", "usage", "completed"]
    assert text_of(events) == "Hello there, my friend."
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert {event.turn_id for event in events} == {request.turn_id}
    assert (events[0].started.provider_id, events[0].started.model_id) == ("scripted", "m")


async def test_a_tool_runs_in_the_sandbox(rig: Rig, sandbox_id: str) -> None:
    command = "for i in 1 2 3; do echo line $i; sleep 0.2; done; pwd"
    events = await rig.run(rig.turn(sandbox_id, scenario("bash", command=command, before="Calling. ", after="Done.")))
    assert kinds(events) == [
        "started", "text_delta", "tool_started", "tool_output", "tool_finished", "usage",
        "text_delta", "usage", "completed",
    ]  # fmt: skip
    started = next(event.tool_started for event in events if event.HasField("tool_started"))
    finished = next(event.tool_finished for event in events if event.HasField("tool_finished"))
    printed = "".join(event.tool_output.text for event in events if event.HasField("tool_output"))
    assert started.tool == "bash"
    assert started.input["command"] == command
    assert printed == "line 1\nline 2\nline 3\n/workspace\n"
    assert finished.outcome == turns.TOOL_OUTCOME_COMPLETED
    assert finished.call_id == started.call_id
    assert printed.strip() in finished.output
    assert finished.duration.ToTimedelta().total_seconds() > 0.5
    assert text_of(events) == "Calling. Done."


async def test_usage_counts_tokens_and_money(rig: Rig, sandbox_id: str) -> None:
    usage = {"prompt": 1000, "cached": 400, "completion": 20}
    events = await rig.run(rig.turn(sandbox_id, Script([Step(text="Hi.", usage=usage)]).prompt()))
    counted = [event.usage for event in events if event.HasField("usage")]
    assert counted == [
        turns.Usage(input_tokens=600, output_tokens=20, cache_read_tokens=400, cost_micro_usd=680),
    ]


async def test_reasoning_files_and_tasks(rig: Rig, sandbox_id: str) -> None:
    call = ToolCall("write", {"filePath": "made.txt", "content": "one\n"})
    edit = ToolCall("edit", {"filePath": "made.txt", "oldString": "one", "newString": "two"})
    todo = ToolCall("todowrite", {"todos": [{"content": "first", "status": "pending", "priority": "high"}]})
    steps = [Step(reasoning="Let me think. ", tools=[call]), Step(tools=[edit]), Step(tools=[todo]), Step(text="Done.")]
    events = await rig.run(rig.turn(sandbox_id, Script(steps).prompt()))
    assert [event.reasoning_delta.text for event in events if event.HasField("reasoning_delta")] == ["Let me think. "]
    assert [event.file_edited.path for event in events if event.HasField("file_edited")] == ["/workspace/made.txt"] * 2
    lists = [event.todo_updated for event in events if event.HasField("todo_updated")]
    assert lists == [turns.TodoUpdated(items=[turns.TodoItem(content="first", status="pending", priority="high")])]
    assert events[-1].HasField("completed")


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (turns.PERMISSION_REPLY_ONCE, turns.TOOL_OUTCOME_COMPLETED),
        (turns.PERMISSION_REPLY_REJECT, turns.TOOL_OUTCOME_ERROR),
    ],
)
async def test_a_permission_is_asked_and_answered(rig: Rig, sandbox_id: str, reply: int, outcome: int) -> None:
    request = rig.turn(sandbox_id, scenario("bash", command="rm -f nothing", after="Done."))

    def answer(event: Event) -> Coroutine[Any, Any, None] | None:
        if event.HasField("permission_asked"):
            return rig.reply(request.turn_id, event.permission_asked.permission_id, reply)
        return None

    events = await rig.run(request, answer)
    asked = next(event.permission_asked for event in events if event.HasField("permission_asked"))
    replied = next(event.permission_replied for event in events if event.HasField("permission_replied"))
    started = next(event.tool_started for event in events if event.HasField("tool_started"))
    finished = next(event.tool_finished for event in events if event.HasField("tool_finished"))
    assert (asked.permission, asked.title, list(asked.patterns)) == ("bash", "rm -f nothing", ["rm -f nothing"])
    assert asked.always_patterns
    assert asked.call_id == started.call_id
    assert (replied.permission_id, replied.reply) == (asked.permission_id, reply)
    assert finished.outcome == outcome
    assert events[-1].HasField("completed")
    await rig.reply(request.turn_id, asked.permission_id, reply)
    for permission, other in ((asked.permission_id, turns.PERMISSION_REPLY_ALWAYS), ("per_none", reply)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rig.reply(request.turn_id, permission, other)
        assert reason_of(refused.value) == "PERMISSION_NOT_FOUND"


async def test_the_same_answer_at_the_same_time_is_one(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("bash", command="rm -f nothing; sleep 0.3", after="Done."))

    async def thrice(permission_id: str) -> None:
        once = turns.PERMISSION_REPLY_ONCE
        await asyncio.gather(*(rig.reply(request.turn_id, permission_id, once) for _ in range(3)))

    events = await rig.run(
        request, lambda e: thrice(e.permission_asked.permission_id) if e.HasField("permission_asked") else None
    )
    assert sum(event.HasField("permission_replied") for event in events) == 1
    assert events[-1].HasField("completed")


async def test_a_refusal_with_a_word_lets_the_agent_go_on(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("bash", command="rm -f nothing", after="Then not."))

    def answer(event: Event) -> Coroutine[Any, Any, None] | None:
        asked = event.permission_asked
        return (
            rig.reply(request.turn_id, asked.permission_id, turns.PERMISSION_REPLY_REJECT, "Keep it.")
            if asked.permission_id
            else None
        )

    events = await rig.run(request, answer)
    assert text_of(events).endswith("Then not.")
    assert "Keep it." in next(event.tool_finished.error for event in events if event.HasField("tool_finished"))


async def test_an_abort_keeps_what_was_said(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("slow", deltas=200, interval=0.05))

    async def run() -> list[Event]:
        found: list[Event] = []
        async for event in rig.stream(request):
            found.append(event)
            if "word5 " in text_of(found):
                await rig.stub.AbortTurn(pb.AbortTurnRequest(turn_id=request.turn_id))
        return found

    events = await asyncio.wait_for(run(), 15)
    assert events[-1].HasField("aborted")
    assert text_of(events).startswith("word0 word1 word2 word3 word4 word5 ")
    await rig.stub.AbortTurn(pb.AbortTurnRequest(turn_id=request.turn_id))
    again = await rig.run(rig.turn(sandbox_id, scenario("say", text="Here."), session_id=request.session_id))
    assert text_of(again) == "Here."
    assert again[-1].HasField("completed")


@pytest.mark.parametrize("error", [ValueError("unheard of"), OpencodeError("refused", 500)])
async def test_a_turn_that_breaks_stops_its_agent(
    rig: Rig, sandbox_id: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = rig.turn(sandbox_id, scenario("bash", command="for i in $(seq 40); do echo $i; sleep 0.5; done"))

    async def hear(_: object) -> None:
        raise error

    def break_turn(event: Event) -> None:
        if event.HasField("tool_output"):
            monkeypatch.setattr(rig.live(sandbox_id).active[UUID(request.turn_id)].driver, "_hear", hear)

    events = await rig.run(request, break_turn)
    assert events[-1].HasField("failed")
    assert not await rig.live(sandbox_id).agent.busy_sessions()
    after = await rig.run(rig.turn(sandbox_id, "say fine", session_id=request.session_id))
    assert text_of(after) == "fine"
    assert after[-1].HasField("completed")


async def test_readers_get_the_same_events_from_anywhere(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("slow", deltas=40, interval=0.02))
    first: list[Event] = []
    async for event in rig.stream(request):
        first.append(event)
        if len(first) == 5:
            break
    request.after_sequence = first[-1].sequence
    rest = list(await rig.run(request))
    request.after_sequence = 0
    whole = await rig.run(request)
    assert [*first, *rest] == list(whole)
    assert text_of(whole) == "".join(f"word{i} " for i in range(40))


async def test_an_answer_that_does_not_reach_the_agent_can_be_given_again(
    rig: Rig, sandbox_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = rig.turn(sandbox_id, scenario("bash", command="rm -f nothing"))

    async def lost(*_: object) -> None:
        raise OpencodeError("POST did not reach the agent")

    async def answer(permission_id: str) -> None:
        monkeypatch.setattr(Opencode, "reply_permission", lost)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rig.reply(request.turn_id, permission_id, turns.PERMISSION_REPLY_ONCE)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        monkeypatch.undo()
        await rig.reply(request.turn_id, permission_id, turns.PERMISSION_REPLY_ONCE)

    def when(event: Event) -> Coroutine[Any, Any, None] | None:
        return answer(event.permission_asked.permission_id) if event.HasField("permission_asked") else None

    assert kinds(await rig.run(request, when))[-1] == "completed"


async def test_a_turn_runs_once(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("say", text="Once."))
    seen = len(rig.model.requests)
    one, two = await asyncio.gather(rig.run(request), rig.run(request))
    assert one == two
    assert len(rig.model.requests) == seen + 1
    # As after a restart of the service: the run is forgotten, the turn is not.
    del rig.fleet.runs[UUID(request.turn_id)]
    for after in (0, 3):
        request.after_sequence = after
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rig.run(request)
        assert reason_of(refused.value) == "RUN_LOST"


async def test_a_turn_runs_although_the_answer_to_its_first_commit_was_lost(
    rig: Rig, sandbox_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = rig.turn(sandbox_id, "say At last.")
    begin_run = Transaction.begin_run

    async def cut(tx: Transaction, turn: Turn) -> bool:
        async with rig.store.transaction() as other:
            await begin_run(other, turn)
        raise ServiceUnavailable("the database fell", service="database")

    monkeypatch.setattr(Transaction, "begin_run", cut)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rig.run(request)
    monkeypatch.undo()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert text_of(await rig.run(request)) == "At last."


async def test_one_turn_of_a_session_at_a_time(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("slow", deltas=20, interval=0.05))
    second = rig.turn(sandbox_id, "say no", session_id=request.session_id)
    other = rig.turn(sandbox_id, "say yes")
    running = asyncio.create_task(rig.run(request))
    await asyncio.sleep(0.3)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rig.run(second)
    assert reason_of(refused.value) == "SESSION_BUSY"
    assert text_of(await rig.run(other)) == "yes"
    assert text_of(await running) == "".join(f"word{i} " for i in range(20))


async def test_the_agent_remembers_the_session(rig: Rig, sandbox_id: str) -> None:
    session = str(new_id())
    await rig.run(rig.turn(sandbox_id, "say first answer", session_id=session))
    await rig.run(rig.turn(sandbox_id, "say second answer", session_id=session))
    said = str(rig.model.requests[-1].body["messages"])
    assert said.index("say first answer") < said.index("'first answer'") < said.index("say second answer")


async def test_the_agent_forgot_the_session(rig: Rig, sandbox_id: str) -> None:
    session = new_id()
    with as_tenant(DEFAULT_TENANT):
        async with rig.store.transaction() as tx:
            await tx.save_agent_session(DEFAULT_TENANT, session, UUID(sandbox_id), "ses_never_was")
    events = await rig.run(rig.turn(sandbox_id, "say again", session_id=str(session)))
    assert text_of(events) == "again"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=401), reasons.ERROR_REASON_PROVIDER_UNAUTHENTICATED),
        (Fault(status=403), reasons.ERROR_REASON_PROVIDER_UNAUTHENTICATED),
        (Fault(status=404), reasons.ERROR_REASON_MODEL_NOT_FOUND),
        (Fault(status=400), reasons.ERROR_REASON_AGENT_ERROR),
        (Fault(status=429, retry_after=3600), reasons.ERROR_REASON_PROVIDER_RATE_LIMITED),
        (Fault(status=500), reasons.ERROR_REASON_PROVIDER_UNAVAILABLE),
        (Fault(bad_json_after=2), reasons.ERROR_REASON_PROVIDER_BAD_RESPONSE),
    ],
    ids=["401", "403", "404", "400", "429", "500", "bad-json"],
)
async def test_a_provider_that_fails(rig: Rig, sandbox_id: str, fault: Fault, reason: int) -> None:
    text = "One two three four."
    request = rig.turn(sandbox_id, Script([Step(text=text, fault=fault)]).prompt())
    events = await rig.run(request)
    assert events[-1].failed.reason == reason
    assert "upstream detail" not in str(events)
    assert "127.0.0.1" not in str(events)
    after = await rig.run(rig.turn(sandbox_id, "say fine", session_id=request.session_id))
    assert text_of(after) == "fine"
    assert after[-1].HasField("completed")


@pytest.mark.parametrize("fault", [Fault(status=500, times=1), Fault(cut_after=0, times=1)], ids=["500", "cut"])
async def test_a_provider_that_comes_back(rig: Rig, sandbox_id: str, fault: Fault) -> None:
    events = await rig.run(rig.turn(sandbox_id, Script([Step(text="At last.", fault=fault)]).prompt(str(new_id()))))
    retrying = next(event.retrying for event in events if event.HasField("retrying"))
    assert retrying.attempt == 1
    assert "upstream detail" not in retrying.message
    assert text_of(events) == "At last."
    assert events[-1].HasField("completed")


@pytest.mark.parametrize("model", ["gone", "unheard-of"])
async def test_a_model_that_is_not_there(rig: Rig, sandbox_id: str, model: str) -> None:
    events = await rig.run(rig.turn(sandbox_id, "say hi", model=model))
    assert events[-1].failed.reason == reasons.ERROR_REASON_MODEL_NOT_FOUND


async def test_a_cut_event_stream_loses_and_doubles_nothing(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("slow", deltas=60, interval=0.03))
    running = asyncio.create_task(rig.run(request))
    for _ in range(3):
        await asyncio.sleep(0.4)
        await rig.cut_events(sandbox_id)
    events = await running
    assert text_of(events) == "".join(f"word{i} " for i in range(60))
    assert kinds(events) == ["started", "text_delta", "usage", "completed"]


async def test_the_end_comes_while_the_event_stream_is_cut(rig: Rig, sandbox_id: str) -> None:
    request = rig.turn(sandbox_id, scenario("bash", command="sleep 0.6; echo hi", after="Done."))
    running = asyncio.create_task(rig.run(request))
    await asyncio.sleep(0.4)
    await rig.cut_events(sandbox_id, pause=1.5)
    events = await running
    assert bash_output(events) == "hi\n"
    assert text_of(events) == "Calling. Done."
    assert events[-1].HasField("completed")
    assert sum(event.HasField("usage") for event in events) == 2
