"""Domain and contract agree: every value has its counterpart."""

import typing
from datetime import UTC, datetime

import pytest
from google.protobuf import json_format
from orginabox.errors.v1 import error_reason_pb2
from orginabox.turn.v1 import turn_event_pb2

from services.kit.errors import DomainError
from services.sandbox import driving, event, failures, mapping, operations, run, sandbox
from services.sandbox.run import Numbered


def test_every_event_has_its_field() -> None:
    assert set(mapping.EVENTS) == set(typing.get_args(event.Event))
    fields = {field.name for field in turn_event_pb2.TurnEvent.DESCRIPTOR.oneofs_by_name["event"].fields}
    assert {field for field, _ in mapping.EVENTS.values()} == fields - {"checkpoint"}


def test_every_state_and_reply_has_its_value() -> None:
    assert set(mapping.STATES) == set(sandbox.SandboxState)
    assert set(mapping.REPLIES) == set(event.Reply)
    for reply, number in mapping.REPLIES.items():
        assert mapping.reply_from_proto(number) is reply


def test_every_reason_is_in_the_contract() -> None:
    refusals = [
        thing.reason
        for module in (run, sandbox)
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, DomainError)
    ]
    endings = [
        thing.reason
        for module in (driving, failures, operations)
        for thing in vars(module).values()
        if isinstance(thing, event.Failed)
    ]
    for reason in (*refusals, *endings, "AGENT_ERROR", "INTERNAL"):
        assert f"ERROR_REASON_{reason}" in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118 - an enum, not a dict


@pytest.mark.parametrize("odd", [{"a": object()}, {"a": 2**70}, {"a": {"b": [1, None, "x"]}}, {"a": float("nan")}, {}])
def test_any_input_of_a_tool_can_be_told(odd: dict[str, object]) -> None:
    told = mapping.event_to_proto("t", Numbered(1, datetime.now(UTC), event.ToolStarted("c", "bash", "", odd)))
    assert set(told.tool_started.input) == set(odd)
    assert json_format.MessageToJson(told)
    assert told.SerializeToString()
