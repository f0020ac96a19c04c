"""What an opencode server says, as far as we use it: the shapes of its events and answers.

The server runs beside the agent, so none of it is trusted: unknown shapes and unknown fields are left out.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from services.kit import telemetry


def _or_empty(value: object) -> object:
    return {} if value is None else value


class _Shape(BaseModel):
    """A part of what opencode sends; what we do not name is ignored."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True, frozen=True)


ShapeT = TypeVar("ShapeT", bound=_Shape)


class ErrorData(_Shape):
    """What is said of an error. The provider's whole answer stands there too, and is left out."""

    message: str = ""
    status_code: int | None = Field(None, alias="statusCode")


class AgentError(_Shape):
    """An error by its name."""

    name: str
    data: Annotated[ErrorData, BeforeValidator(_or_empty)] = Field(default_factory=lambda: ErrorData.model_validate({}))


class Rule(_Shape):
    """What an agent may do: which permission, with what, and whether it is `allow`, `ask` or `deny`."""

    permission: str
    pattern: str
    action: str


class AgentInfo(_Shape):
    """An agent of the bundle."""

    name: str
    permission: list[Rule] = []


class SessionInfo(_Shape):
    """A session; one with a parent is a sub-agent's."""

    id: str
    parent_id: str | None = Field(None, alias="parentID")
    permission: list[Rule] | None = None


class Status(_Shape):
    """What a session does: `busy`, `idle` or `retry`."""

    type: str
    attempt: int = 0
    message: str = ""
    next: float = 0


class MessageTime(_Shape):
    """When a message was made."""

    created: float = 0


class MessageInfo(_Shape):
    """A message without its parts."""

    id: str
    session_id: str = Field(alias="sessionID")
    role: str
    parent_id: str | None = Field(None, alias="parentID")
    time: Annotated[MessageTime, BeforeValidator(_or_empty)] = MessageTime()
    # True for the message that a compaction writes; otherwise it holds something else or nothing.
    summary: Any = None
    error: AgentError | None = None
    provider_id: str = Field("", alias="providerID")
    model_id: str = Field("", alias="modelID")


class Cache(_Shape):
    """Tokens of the provider's cache."""

    read: float = 0
    write: float = 0


class Tokens(_Shape):
    """Tokens of one model call."""

    input: float = 0
    output: float = 0
    reasoning: float = 0
    cache: Cache = Cache()


class PartTime(_Shape):
    """When a part began, and when it ended."""

    start: float = 0
    end: float | None = None


class ToolState(_Shape):
    """How a tool call stands."""

    status: str
    input: Annotated[dict[str, Any], BeforeValidator(_or_empty)] = {}
    output: str = ""
    error: str = ""
    title: str | None = None
    metadata: Annotated[dict[str, Any], BeforeValidator(_or_empty)] = {}
    time: PartTime = PartTime()


class Part(_Shape):
    """A part of a message: text, reasoning, a tool call, the beginning or the end of a step."""

    id: str
    session_id: str = Field(alias="sessionID")
    message_id: str = Field(alias="messageID")
    type: str
    text: str = ""
    time: Annotated[PartTime, BeforeValidator(_or_empty)] = PartTime()
    tool: str = ""
    call_id: str = Field("", alias="callID")
    state: ToolState | None = None
    cost: float = 0
    tokens: Tokens = Tokens()


class ToolReference(_Shape):
    """The tool call that a permission is for."""

    message_id: str = Field("", alias="messageID")
    call_id: str = Field("", alias="callID")


class Todo(_Shape):
    """One task of the agent's list."""

    content: str = ""
    status: str = ""
    priority: str = ""


class Connected(_Shape):
    """The stream is open: everything from here on will be seen."""


class SessionChanged(_Shape):
    """A session was made."""

    info: SessionInfo


class StatusChanged(_Shape):
    """A session does something else."""

    session_id: str = Field(alias="sessionID")
    status: Status


class SessionIdle(_Shape):
    """A session is done for now."""

    session_id: str = Field(alias="sessionID")


class SessionFailed(_Shape):
    """Something went wrong in a session."""

    session_id: str = Field("", alias="sessionID")
    error: AgentError


class MessageChanged(_Shape):
    """A message was made or changed."""

    info: MessageInfo

    @property
    def session_id(self) -> str:
        """The session of the message."""
        return self.info.session_id


class PartChanged(_Shape):
    """A part was made or changed; the whole of it is told."""

    part: Part

    @property
    def session_id(self) -> str:
        """The session of the part."""
        return self.part.session_id


class PartGrew(_Shape):
    """A part has more text."""

    session_id: str = Field(alias="sessionID")
    message_id: str = Field(alias="messageID")
    part_id: str = Field(alias="partID")
    field: str
    delta: str


class PermissionRequested(_Shape):
    """An agent waits for a permission."""

    id: str
    session_id: str = Field(alias="sessionID")
    permission: str
    patterns: list[str] = []
    always: list[str] = []
    metadata: Annotated[dict[str, Any], BeforeValidator(_or_empty)] = {}
    tool: ToolReference | None = None


class PermissionAnswered(_Shape):
    """A permission was answered."""

    session_id: str = Field(alias="sessionID")
    request_id: str = Field(alias="requestID")
    reply: str


class QuestionAsked(_Shape):
    """An agent asks its user something."""

    id: str
    session_id: str = Field(alias="sessionID")


class TodoChanged(_Shape):
    """The agent's list of tasks changed."""

    session_id: str = Field(alias="sessionID")
    todos: list[Todo]


AgentEvent = (
    Connected | SessionChanged | StatusChanged | SessionIdle | SessionFailed | MessageChanged | PartChanged | PartGrew
    | PermissionRequested | PermissionAnswered | QuestionAsked | TodoChanged
)  # fmt: skip

_EVENTS: Mapping[str, type[AgentEvent]] = {
    "server.connected": Connected,
    "session.created": SessionChanged,
    "session.status": StatusChanged,
    "session.idle": SessionIdle,
    "session.error": SessionFailed,
    "message.updated": MessageChanged,
    "message.part.updated": PartChanged,
    "message.part.delta": PartGrew,
    "permission.asked": PermissionRequested,
    "permission.replied": PermissionAnswered,
    "question.asked": QuestionAsked,
    "todo.updated": TodoChanged,
}


class Message(_Shape):
    """A message of a session with its parts."""

    info: MessageInfo
    parts: list[Part]


def parse_event(data: str | bytes) -> AgentEvent | None:
    """One event of the stream, or None when it is none that we use."""
    try:
        envelope = json.loads(data)
        shape = _EVENTS.get(envelope["type"])
        return shape.model_validate(envelope.get("properties") or {}) if shape else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # ValidationError is a ValueError. The content may be personal, so only its kind is logged.
        telemetry.log().warning("opencode.event_unreadable", error=type(error).__name__)
        return None


def each(shape: type[ShapeT], items: Sequence[object]) -> list[ShapeT]:
    """The items that have the shape."""
    shaped: list[ShapeT] = []
    for item in items:
        with contextlib.suppress(ValidationError):
            shaped.append(shape.model_validate(item))
    return shaped
