"""Whatever the agent's side says, each event of it can be told."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf import json_format
from orginabox.sandbox.v1 import sandbox_service_pb2 as pb

from services.kit.ids import new_id
from services.sandbox import event as events
from services.sandbox import mapping
from services.sandbox.bounds import bounded
from services.sandbox.event import Event
from services.sandbox.run import Numbered

MESSAGE_BYTES = 2**20


def nested(depth: int, kind: type[dict[str, Any]] | type[list[Any]] = dict) -> Any:
    """Something in something in something."""
    value: Any = "inside"
    for _ in range(depth):
        value = {"a": value} if kind is dict else [value]
    return value


def tool(**given: Any) -> events.ToolStarted:
    """A tool call with these arguments."""
    return events.ToolStarted("call", "bash", "", given)


def on_the_wire(event: Event) -> pb.RunTurnResponse:
    """What a reader gets of an event, once it was made fit."""
    told = mapping.batch_to_proto(new_id(), [Numbered(1, datetime.now(UTC), bounded(event))])
    data = told.SerializeToString()
    assert len(data) < MESSAGE_BYTES
    read = pb.RunTurnResponse.FromString(data)
    assert json_format.MessageToJson(read)
    assert read.events[0].WhichOneof("event") == mapping.EVENTS[type(event)][0]
    return read


HALF = "a\ud83db"
LONG = "x" * 3_000_000


@pytest.mark.parametrize(
    "event",
    [
        events.TextDelta("p", HALF),
        events.ToolOutput("c", HALF),
        events.ToolFinished("c", HALF, HALF, HALF, HALF, 1.0),
        events.PermissionAsked("p", HALF, HALF, [HALF], [HALF], HALF, "c"),
        events.TodoUpdated([events.TodoItem(HALF, HALF, HALF)]),
        events.FileEdited(HALF),
        events.PartsVoided([HALF]),
        tool(**{HALF: {HALF: [HALF]}}),
    ],
)
def test_half_a_character_is_replaced(event: Event) -> None:
    told = json.dumps(json_format.MessageToDict(on_the_wire(event)), ensure_ascii=False)
    assert "a\N{REPLACEMENT CHARACTER}b" in told


@pytest.mark.parametrize("kind", [dict, list])
@pytest.mark.parametrize("depth", [17, 34, 100, 900, 5000])
def test_what_is_nested_too_deeply_is_cut(depth: int, kind: type[dict[str, Any]] | type[list[Any]]) -> None:
    started = on_the_wire(tool(command="ls", deep=nested(depth, kind))).events[0].tool_started
    assert started.input["command"] == "ls"
    assert "nested too deeply" in str(started.input)
    assert "inside" not in str(started.input)


def test_what_is_nested_a_little_is_told_whole() -> None:
    for event in (tool(deep=nested(15), list=nested(15, list), odd=[1, 2.5, True, None, {}, []]), tool()):
        assert bounded(event) == event
        on_the_wire(event)


@pytest.mark.parametrize("number", [2**63, -(2**70), 10**4000, float("inf"), float("nan")])
def test_a_number_that_json_cannot_say_is_told_as_text(number: float) -> None:
    started = on_the_wire(tool(n=[number])).events[0].tool_started
    assert json_format.MessageToDict(started.input) == {"n": [str(number)]}


@pytest.mark.parametrize(
    "event",
    [
        events.ToolOutput("c", LONG),
        events.ToolFinished("c", LONG, LONG, LONG, LONG, 1.0),
        events.ToolFinished("c", "bash", "", "\N{GRINNING FACE}" * 1_000_000, None, 1.0),
        events.PermissionAsked("p", "edit", LONG, [LONG] * 9, ["x"] * 1_000_000, LONG, "c"),
        events.TodoUpdated([events.TodoItem(LONG, "pending", "high")] * 9),
        events.TodoUpdated([events.TodoItem("x", "pending", "high")] * 200_000),
        events.PartsVoided(["p"] * 1_000_000),
        events.FileEdited(LONG),
        tool(command="ls", files=[{"content": LONG}] * 9),
        tool(command="ls", ones=[1] * 1_000_000),
        tool(command="ls", **{f"k{i}": {} for i in range(200_000)}),
    ],
)
def test_what_is_too_large_is_cut_and_said_so(event: Event) -> None:
    assert "(cut)" in str(on_the_wire(event))


def test_ids_are_told_whole_however_long_the_rest_is() -> None:
    asked = on_the_wire(events.PermissionAsked("per_1", "edit", LONG, [LONG], [LONG], LONG, "call_1")).events[0]
    assert (asked.permission_asked.permission_id, asked.permission_asked.call_id) == ("per_1", "call_1")


def test_an_event_that_cannot_be_told_all_the_same_leaves_its_place() -> None:
    odd: Any = object()
    made: list[Event] = [events.FileEdited(odd), tool()]
    batch = [Numbered(n, datetime.now(UTC), event) for n, event in enumerate(made, 1)]
    told = mapping.batch_to_proto(new_id(), batch).events
    assert [(event.sequence, event.WhichOneof("event")) for event in told] == [(1, "text_delta"), (2, "tool_started")]
