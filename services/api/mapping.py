"""Between the contract and the nouns of Api, field by field."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.api.v1 import session_pb2, session_service_pb2, turn_pb2
from orginabox.errors.v1 import error_reason_pb2
from orginabox.runtime.v1 import model_pb2
from orginabox.turn.v1 import tool_ceiling_pb2, turn_event_pb2

from services.api.principal import ToolCeiling
from services.api.session import BusyPolicy, ModelRef, Session
from services.api.turn import Ending, Event, ToolUse, Turn, TurnState
from services.kit.status import PREFIX

_STATES = {state: turn_pb2.TurnState.Value(f"TURN_STATE_{state.name}") for state in TurnState}
_POLICIES = {session_pb2.BusyPolicy.Value(f"BUSY_POLICY_{policy.name}"): policy for policy in BusyPolicy}
_ENDINGS = {"completed": TurnState.COMPLETED, "failed": TurnState.FAILED, "aborted": TurnState.ABORTED}


def time_to_proto(time: datetime | None) -> Timestamp | None:
    """A time on the wire."""
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def model_from_proto(model: model_pb2.Model | None) -> ModelRef | None:
    """A model that was asked for, or None when none was."""
    return ModelRef(model.provider_id, model.model_id) if model and model.provider_id else None


def model_to_proto(model: ModelRef | None) -> model_pb2.Model | None:
    """A model on the wire."""
    return model_pb2.Model(provider_id=model.provider_id, model_id=model.model_id) if model else None


def policy_from_proto(policy: session_pb2.BusyPolicy.ValueType) -> BusyPolicy | None:
    """A policy that was asked for, or None when none was."""
    return _POLICIES.get(policy)


def session_to_proto(session: Session) -> session_pb2.Session:
    """A session on the wire."""
    return session_pb2.Session(
        session_id=str(session.id),
        title=session.title,
        model=model_to_proto(session.model),
        create_time=time_to_proto(session.create_time),
        update_time=time_to_proto(session.update_time),
        active_turn_id=str(session.active_turn_id or ""),
        busy_policy=session_pb2.BusyPolicy.Value(f"BUSY_POLICY_{session.busy_policy.name}"),
    )


def turn_to_proto(turn: Turn) -> turn_pb2.Turn:
    """A turn on the wire."""
    return turn_pb2.Turn(
        turn_id=str(turn.id),
        session_id=str(turn.session_id),
        state=_STATES[turn.state],
        text=turn.text,
        model=model_to_proto(turn.model),
        last_sequence=turn.last_sequence,
        failure_reason=error_reason_pb2.ErrorReason.Value(PREFIX + turn.failure_reason)
        if turn.failure_reason
        else error_reason_pb2.ERROR_REASON_UNSPECIFIED,
        failure_message=turn.failure_message or "",
        create_time=time_to_proto(turn.create_time),
        start_time=time_to_proto(turn.start_time),
        end_time=time_to_proto(turn.end_time),
    )


def event_from_proto(event: turn_event_pb2.TurnEvent) -> Event:
    """An event as it is kept."""
    return Event(event.sequence, event.SerializeToString(), _ending(event), _used(event))


def _used(event: turn_event_pb2.TurnEvent) -> ToolUse | None:
    if not event.HasField("tool_finished"):
        return None
    failed = event.tool_finished.outcome == turn_event_pb2.TOOL_OUTCOME_ERROR
    return ToolUse(event.tool_finished.tool, "error" if failed else "completed")


def _ending(event: turn_event_pb2.TurnEvent) -> Ending | None:
    state = _ENDINGS.get(event.WhichOneof("event") or "")
    if state is TurnState.FAILED:
        reason = error_reason_pb2.ErrorReason.Name(event.failed.reason).removeprefix(PREFIX)
        return Ending(state, reason, event.failed.message)
    return Ending(state) if state else None


def ending_event(turn_id: UUID, sequence: int, ending: Ending, time: datetime | None = None) -> Event:
    """The terminal event of a turn that ends without its worker, now unless a time is given."""
    event = turn_event_pb2.TurnEvent(
        sequence=sequence, turn_id=str(turn_id), create_time=time_to_proto(time or datetime.now(UTC))
    )
    match ending.state:
        case TurnState.ABORTED:
            event.aborted.SetInParent()
        case TurnState.FAILED:
            event.failed.reason = error_reason_pb2.ErrorReason.Value(PREFIX + (ending.reason or "INTERNAL"))
            event.failed.message = ending.message or ""
        case _:
            event.completed.SetInParent()
    return event_from_proto(event)


def tools_to_proto(tools: ToolCeiling) -> tool_ceiling_pb2.ToolCeiling:
    """The tools that an agent may use at most."""
    return tool_ceiling_pb2.ToolCeiling(allowed=sorted(tools.allowed), denied=sorted(tools.denied))


def end_of(turn: Turn) -> Event:
    """The terminal event of a turn that has ended and whose log is no longer kept."""
    ending = turn.ending() or Ending(TurnState.COMPLETED)
    return ending_event(turn.id, max(turn.last_sequence, 1), ending, turn.end_time)


def checkpoint(turn_id: UUID, sequence: int) -> turn_event_pb2.TurnEvent:
    """A sign of life after an event; it is not part of the log."""
    return turn_event_pb2.TurnEvent(
        sequence=sequence,
        turn_id=str(turn_id),
        create_time=time_to_proto(datetime.now(UTC)),
        checkpoint=turn_event_pb2.Checkpoint(),
    )


def answer_of(turn: Turn, events: list[bytes]) -> bytes:
    """What was said in a turn after its prompt, out of its events, as the messages of a ListMessagesResponse.

    Texts and tool calls stand in the order in which they began, and what the user said meanwhile stands between them.
    """
    parts: dict[str, session_pb2.MessagePart] = {}
    times: dict[str, Timestamp] = {}
    # Joined at the end: a message copies the whole of a text that grows, and keeps every copy while it lives.
    texts: dict[str, list[str]] = {}
    for data in events:
        event = turn_event_pb2.TurnEvent.FromString(data)
        match event.WhichOneof("event"):
            case "text_delta":
                name = f"text:{event.text_delta.part_id}"
                parts.setdefault(name, session_pb2.MessagePart())
                texts.setdefault(name, []).append(event.text_delta.text)
            case "parts_voided":
                for part_id in event.parts_voided.part_ids:
                    parts.pop(f"text:{part_id}", None)
                    texts.pop(f"text:{part_id}", None)
            case "tool_started":
                call = _tool_call(parts, event.tool_started.call_id)
                call.tool, call.title = event.tool_started.tool, event.tool_started.title
                call.input.CopyFrom(event.tool_started.input)
            case "tool_finished":
                call = _tool_call(parts, event.tool_finished.call_id)
                done = event.tool_finished
                call.tool, call.outcome, call.output, call.error = done.tool, done.outcome, done.output, done.error
                call.title = done.title or call.title
            case "user_steered":
                name = f"said:{event.sequence}"
                parts[name], times[name] = session_pb2.MessagePart(text=event.user_steered.text), event.create_time
            case _:
                pass
    for name, pieces in texts.items():
        parts[name].text = "".join(pieces)
    return session_service_pb2.ListMessagesResponse(messages=_messages(turn, parts, times)).SerializeToString()


def _messages(
    turn: Turn, parts: dict[str, session_pb2.MessagePart], times: dict[str, Timestamp]
) -> Iterator[session_pb2.Message]:
    """The messages that parts make: a new one whenever another one speaks. The last is the agent's, if an empty one."""
    speeches = [(steered, list(names)) for steered, names in groupby(parts, times.__contains__)]
    if not speeches or speeches[-1][0]:
        speeches.append((False, []))
    for number, (steered, names) in enumerate(speeches):
        # The prompt is the turn's `user`, the first answer its `assistant`.
        speaker = f"user:{number}" if steered else f"assistant:{number}" if number else "assistant"
        yield session_pb2.Message(
            message_id=f"{turn.id}:{speaker}",
            turn_id=str(turn.id),
            role=session_pb2.ROLE_USER if steered else session_pb2.ROLE_ASSISTANT,
            parts=[parts[name] for name in names],
            create_time=times[names[0]] if steered else time_to_proto(turn.end_time),
        )


def _tool_call(parts: dict[str, session_pb2.MessagePart], call_id: str) -> session_pb2.ToolCall:
    part = parts.setdefault(f"tool:{call_id}", session_pb2.MessagePart())
    part.tool_call.call_id = call_id
    return part.tool_call


def messages_to_proto(turn: Turn, answer: bytes | None) -> list[session_pb2.Message]:
    """What was said in a turn: the prompt, and what followed once it has ended."""
    said = session_pb2.Message(
        message_id=f"{turn.id}:user",
        turn_id=str(turn.id),
        role=session_pb2.ROLE_USER,
        parts=[session_pb2.MessagePart(text=turn.text)],
        create_time=time_to_proto(turn.create_time),
    )
    return [said, *(session_service_pb2.ListMessagesResponse.FromString(answer).messages if answer else ())]
