"""Domain to wire, field by field."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.errors.v1 import error_reason_pb2
from orginabox.sandbox.v1 import sandbox_pb2, sandbox_service_pb2
from orginabox.turn.v1 import tool_ceiling_pb2
from orginabox.turn.v1 import turn_event_pb2 as turn_pb

from services.kit import telemetry
from services.sandbox import event as events
from services.sandbox.ceiling import Ceiling
from services.sandbox.event import Event, Reply
from services.sandbox.run import Model, Numbered, Turn
from services.sandbox.sandbox import Sandbox, SandboxState

STATES: Mapping[SandboxState, sandbox_pb2.SandboxState.ValueType] = {
    SandboxState.STOPPED: sandbox_pb2.SANDBOX_STATE_STOPPED,
    SandboxState.STARTING: sandbox_pb2.SANDBOX_STATE_STARTING,
    SandboxState.RUNNING: sandbox_pb2.SANDBOX_STATE_RUNNING,
}
REPLIES: Mapping[Reply, turn_pb.PermissionReply.ValueType] = {
    Reply.ONCE: turn_pb.PERMISSION_REPLY_ONCE,
    Reply.ALWAYS: turn_pb.PERMISSION_REPLY_ALWAYS,
    Reply.REJECT: turn_pb.PERMISSION_REPLY_REJECT,
}
_REPLIES_BY_NUMBER = {number: reply for reply, number in REPLIES.items()}


def sandbox_to_proto(sandbox: Sandbox) -> sandbox_pb2.Sandbox:
    """A sandbox on the wire."""
    return sandbox_pb2.Sandbox(
        sandbox_id=str(sandbox.id),
        tenant_id=str(sandbox.tenant_id),
        user_id=str(sandbox.user_id),
        state=STATES[sandbox.state],
        runtime_revision=sandbox.runtime_revision,
        create_time=time_to_proto(sandbox.create_time),
        start_time=time_to_proto(sandbox.start_time),
    )


def turn_from_proto(request: sandbox_service_pb2.RunTurnRequest) -> Turn:
    """What is to run."""
    model = Model(request.model.provider_id, request.model.model_id) if request.HasField("model") else None
    return Turn(
        id=UUID(request.turn_id),
        tenant_id=UUID(request.tenant_id),
        sandbox_id=UUID(request.sandbox_id),
        session_id=UUID(request.session_id),
        text=request.text,
        model=model,
        ceiling=ceiling_from_proto(request.tools),
    )


def ceiling_from_proto(tools: tool_ceiling_pb2.ToolCeiling) -> Ceiling:
    """What an agent may use at most."""
    return Ceiling(frozenset(tools.allowed), frozenset(tools.denied))


def reply_from_proto(reply: turn_pb.PermissionReply.ValueType) -> Reply:
    """How a permission is answered."""
    return _REPLIES_BY_NUMBER[reply]


def batch_to_proto(
    turn_id: UUID, batch: Sequence[Numbered], *, waits_for_user: bool = False
) -> sandbox_service_pb2.RunTurnResponse:
    """Events on the wire."""
    turn = str(turn_id)
    return sandbox_service_pb2.RunTurnResponse(
        events=[event_to_proto(turn, numbered) for numbered in batch], waits_for_user=waits_for_user
    )


def event_to_proto(turn_id: str, numbered: Numbered) -> turn_pb.TurnEvent:
    """An event on the wire."""
    return turn_pb.TurnEvent(
        sequence=numbered.sequence,
        turn_id=turn_id,
        create_time=time_to_proto(numbered.create_time),
        **_told(numbered),
    )


def _told(numbered: Numbered) -> dict[str, Any]:
    """What happened. One event that cannot be told must not keep the others from their readers."""
    field, make = EVENTS[type(numbered.event)]
    try:
        return {field: make(numbered.event)}
    except Exception:  # noqa: BLE001 - whatever it is: the event has its number, so something has to stand there
        telemetry.log().exception("event cannot be told", kind=field, sequence=numbered.sequence)
        return {
            "text_delta": turn_pb.TextDelta(part_id=f"untold-{numbered.sequence}", text=f"(no {field}: unreadable)")
        }


def _started(event: events.Started) -> turn_pb.TurnStarted:
    return turn_pb.TurnStarted(provider_id=event.provider_id, model_id=event.model_id)


def _text_delta(event: events.TextDelta) -> turn_pb.TextDelta:
    return turn_pb.TextDelta(part_id=event.part_id, text=event.text)


def _reasoning_delta(event: events.ReasoningDelta) -> turn_pb.ReasoningDelta:
    return turn_pb.ReasoningDelta(part_id=event.part_id, text=event.text)


def _tool_started(event: events.ToolStarted) -> turn_pb.ToolStarted:
    return turn_pb.ToolStarted(
        call_id=event.call_id, tool=event.tool, title=event.title, input=struct_to_proto(event.input)
    )


def _tool_output(event: events.ToolOutput) -> turn_pb.ToolOutput:
    return turn_pb.ToolOutput(call_id=event.call_id, text=event.text)


def _tool_finished(event: events.ToolFinished) -> turn_pb.ToolFinished:
    return turn_pb.ToolFinished(
        call_id=event.call_id,
        tool=event.tool,
        outcome=turn_pb.TOOL_OUTCOME_COMPLETED if event.error is None else turn_pb.TOOL_OUTCOME_ERROR,
        title=event.title,
        output=event.output,
        error=event.error or "",
        duration=_duration(event.seconds),
    )


def _permission_asked(event: events.PermissionAsked) -> turn_pb.PermissionAsked:
    return turn_pb.PermissionAsked(
        permission_id=event.permission_id,
        permission=event.permission,
        title=event.title,
        patterns=event.patterns,
        always_patterns=event.always_patterns,
        diff=event.diff,
        call_id=event.call_id,
    )


def _permission_replied(event: events.PermissionReplied) -> turn_pb.PermissionReplied:
    return turn_pb.PermissionReplied(permission_id=event.permission_id, reply=REPLIES[event.reply])


def _todo_updated(event: events.TodoUpdated) -> turn_pb.TodoUpdated:
    return turn_pb.TodoUpdated(
        items=[turn_pb.TodoItem(content=i.content, status=i.status, priority=i.priority) for i in event.items]
    )


def _file_edited(event: events.FileEdited) -> turn_pb.FileEdited:
    return turn_pb.FileEdited(path=event.path)


def _usage(event: events.Usage) -> turn_pb.Usage:
    return turn_pb.Usage(
        input_tokens=event.input_tokens,
        output_tokens=event.output_tokens,
        reasoning_tokens=event.reasoning_tokens,
        cache_read_tokens=event.cache_read_tokens,
        cache_write_tokens=event.cache_write_tokens,
        cost_micro_usd=event.cost_micro_usd,
    )


def _retrying(event: events.Retrying) -> turn_pb.Retrying:
    return turn_pb.Retrying(attempt=event.attempt, message=event.message, next_time=time_to_proto(event.next_time))


def _parts_voided(event: events.PartsVoided) -> turn_pb.PartsVoided:
    return turn_pb.PartsVoided(part_ids=event.part_ids)


def _user_steered(event: events.UserSteered) -> turn_pb.UserSteered:
    return turn_pb.UserSteered(text=event.text)


def _wrap_up_asked(event: events.WrapUpAsked) -> turn_pb.WrapUpAsked:
    return turn_pb.WrapUpAsked(hard_limit_time=time_to_proto(event.hard_limit_time))


def _permission_expired(event: events.PermissionExpired) -> turn_pb.PermissionExpired:
    return turn_pb.PermissionExpired(permission_id=event.permission_id)


def _completed(_: events.Completed) -> turn_pb.TurnCompleted:
    return turn_pb.TurnCompleted()


def _failed(event: events.Failed) -> turn_pb.TurnFailed:
    return turn_pb.TurnFailed(
        reason=error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{event.reason}"), message=event.message
    )


def _aborted(_: events.Aborted) -> turn_pb.TurnAborted:
    return turn_pb.TurnAborted()


def time_to_proto(time: datetime | None) -> Timestamp | None:
    """A time on the wire."""
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def struct_to_proto(value: Mapping[str, Any]) -> Struct:
    """A JSON object on the wire. What JSON cannot say is left as its text."""
    struct = Struct()
    try:
        json.dumps(value, allow_nan=False)  # a Struct takes numbers that no JSON has
        struct.update(value)
    except (ValueError, TypeError):
        struct = Struct()
        struct.update({name: str(item) for name, item in value.items()})
    return struct


class _Make(Protocol):
    def __call__(self, event: Any, /) -> Message: ...


EVENTS: Mapping[type[Event], tuple[str, _Make]] = {
    events.Started: ("started", _started),
    events.TextDelta: ("text_delta", _text_delta),
    events.ReasoningDelta: ("reasoning_delta", _reasoning_delta),
    events.ToolStarted: ("tool_started", _tool_started),
    events.ToolOutput: ("tool_output", _tool_output),
    events.ToolFinished: ("tool_finished", _tool_finished),
    events.PermissionAsked: ("permission_asked", _permission_asked),
    events.PermissionReplied: ("permission_replied", _permission_replied),
    events.TodoUpdated: ("todo_updated", _todo_updated),
    events.FileEdited: ("file_edited", _file_edited),
    events.Usage: ("usage", _usage),
    events.Retrying: ("retrying", _retrying),
    events.PartsVoided: ("parts_voided", _parts_voided),
    events.UserSteered: ("user_steered", _user_steered),
    events.WrapUpAsked: ("wrap_up_asked", _wrap_up_asked),
    events.PermissionExpired: ("permission_expired", _permission_expired),
    events.Completed: ("completed", _completed),
    events.Failed: ("failed", _failed),
    events.Aborted: ("aborted", _aborted),
}
