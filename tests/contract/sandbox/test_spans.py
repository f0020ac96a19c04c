"""A trace shows where the time of a turn went."""

from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from orginabox.turn.v1 import turn_event_pb2 as turns

from services.kit import telemetry
from services.kit.ids import new_id
from tests.contract.sandbox.rig import Event, Rig
from tests.model_server import Script, Step, ToolCall, scenario
from tests.spans import named, recorded_spans


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """The spans that end during the test."""
    with recorded_spans() as exporter:
        yield exporter


def seconds(span: ReadableSpan) -> float:
    """How long a span lasted."""
    assert span.start_time
    assert span.end_time
    return (span.end_time - span.start_time) / 1e9


async def test_model_calls_tools_and_waits_are_told_apart(
    rig: Rig, sandbox_id: str, spans: InMemorySpanExporter
) -> None:
    call = ToolCall("bash", {"command": "rm -f nothing; sleep 0.5", "description": "Wait"})
    script = Script([Step(text="Calling. ", first_delay=0.4, tools=[call]), Step(text="Done.", first_delay=0.3)])
    request = rig.turn(sandbox_id, script.prompt())

    def answer(event: Event) -> Coroutine[Any, Any, None] | None:
        asked = event.permission_asked.permission_id
        return rig.reply(request.turn_id, asked, turns.PERMISSION_REPLY_ONCE) if asked else None

    with telemetry.span("the worker's job"):
        ours = telemetry.trace_id()
        await rig.run(request, answer)

    (turn,) = named(spans, "turn run")
    first, second = named(spans, "model call")
    (tool,) = named(spans, "tool bash")
    (wait,) = named(spans, "permission wait")
    assert {f"{span.context.trace_id:032x}" for span in (turn, first, second, tool, wait)} == {ours}
    (rpc,) = (
        s
        for s in named(spans, "orginabox.sandbox.v1.SandboxService/RunTurn")
        if s.context.trace_id == turn.context.trace_id
    )
    assert turn.parent
    assert turn.parent.span_id == rpc.context.span_id
    assert {span.parent.span_id for span in (first, second, tool) if span.parent} == {turn.context.span_id}
    assert wait.parent
    assert wait.parent.span_id == tool.context.span_id
    assert 0.35 < seconds(first) < seconds(turn)
    assert seconds(second) > 0.25
    assert seconds(tool) > 0.5
    assert seconds(wait) < seconds(tool)
    assert (first.end_time or 0) <= (second.start_time or 0)
    # The tool runs between the two calls and is a part of neither.
    assert seconds(first) < seconds(first) + seconds(tool) < seconds(turn)
    assert (tool.start_time or 0) - (first.end_time or 0) < 2e8
    assert wait.attributes
    assert dict(wait.attributes) == {"permission": "bash", "outcome": "once"}
    assert tool.attributes
    assert tool.attributes["outcome"] == "completed"
    assert "rm -f" not in str([span.to_json() for span in spans.get_finished_spans()])


async def test_a_turn_that_is_cut_leaves_no_span_open(rig: Rig, spans: InMemorySpanExporter) -> None:
    sandbox_id = (await rig.claim(new_id())).sandbox.sandbox_id
    request = rig.turn(sandbox_id, scenario("bash", command="sleep 30"))
    async for event in rig.stream(request):
        if event.HasField("tool_started"):
            await rig.fleet.stop(rig.live(sandbox_id).sandbox.id)
    (tool,) = named(spans, "tool bash")
    assert tool.attributes
    assert tool.attributes["outcome"] == "cut"
    assert len(named(spans, "turn run")) == len(named(spans, "model call")) == len(named(spans, "sandbox start")) == 1
