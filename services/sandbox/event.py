"""What happens in a turn, in our words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any


class Reply(StrEnum):
    """How a permission is answered."""

    ONCE = "once"
    ALWAYS = "always"
    REJECT = "reject"


@dataclass(frozen=True)
class Started:
    """The turn began to run."""

    provider_id: str
    model_id: str


@dataclass(frozen=True)
class TextDelta:
    """More text of the answer."""

    part_id: str
    text: str


@dataclass(frozen=True)
class ReasoningDelta:
    """More of the model's reasoning."""

    part_id: str
    text: str


@dataclass(frozen=True)
class ToolStarted:
    """The agent calls a tool."""

    call_id: str
    tool: str
    title: str
    input: Mapping[str, Any]


@dataclass(frozen=True)
class ToolOutput:
    """A running tool printed something: the new text only."""

    call_id: str
    text: str


@dataclass(frozen=True)
class ToolFinished:
    """A tool ended. `error` is None when it ran to its end."""

    call_id: str
    tool: str
    title: str
    output: str
    error: str | None
    seconds: float


@dataclass(frozen=True)
class PermissionAsked:
    """The agent waits for a permission."""

    permission_id: str
    permission: str
    title: str
    patterns: Sequence[str]
    always_patterns: Sequence[str]
    diff: str
    call_id: str


@dataclass(frozen=True)
class PermissionReplied:
    """The permission was answered."""

    permission_id: str
    reply: Reply


@dataclass(frozen=True)
class TodoItem:
    """One task of the agent's list."""

    content: str
    status: str
    priority: str


@dataclass(frozen=True)
class TodoUpdated:
    """The agent's list of tasks, whole."""

    items: Sequence[TodoItem]


@dataclass(frozen=True)
class FileEdited:
    """The agent changed a file."""

    path: str


@dataclass(frozen=True)
class Usage:
    """What one model call cost."""

    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_micro_usd: int


@dataclass(frozen=True)
class Retrying:
    """A model call failed and is tried again."""

    attempt: int
    message: str
    next_time: datetime


@dataclass(frozen=True)
class PartsVoided:
    """What a failed model call had said does not count: the call is made again."""

    part_ids: Sequence[str]


@dataclass(frozen=True)
class UserSteered:
    """The user said something into the turn."""

    text: str = field(repr=False)


@dataclass(frozen=True)
class WrapUpAsked:
    """The turn nears its limit in time: the agent was told to wrap up."""

    hard_limit_time: datetime


@dataclass(frozen=True)
class PermissionExpired:
    """Nobody answered the permission in time."""

    permission_id: str


@dataclass(frozen=True)
class Completed:
    """The turn ended well."""


@dataclass(frozen=True)
class Failed:
    """The turn ended with an error; `reason` is a name of the contract's ErrorReason."""

    reason: str
    message: str


@dataclass(frozen=True)
class Aborted:
    """The turn was aborted by its user."""


Event = (
    Started | TextDelta | ReasoningDelta | ToolStarted | ToolOutput | ToolFinished | PermissionAsked
    | PermissionReplied | PermissionExpired | TodoUpdated | FileEdited | Usage | Retrying | PartsVoided | UserSteered
    | WrapUpAsked | Completed | Failed | Aborted
)  # fmt: skip

Terminal = Completed | Failed | Aborted


def merged(first: Event, second: Event) -> Event | None:
    """The two as one event, or None when they are more than two pieces of one text."""
    match first, second:
        case TextDelta(), TextDelta() if first.part_id == second.part_id:
            return replace(first, text=first.text + second.text)
        case ReasoningDelta(), ReasoningDelta() if first.part_id == second.part_id:
            return replace(first, text=first.text + second.text)
        case ToolOutput(), ToolOutput() if first.call_id == second.call_id:
            return replace(first, text=first.text + second.text)
    return None


def text_size(text: str) -> int:
    """How many bytes a text takes on the wire."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def size_of(event: Event) -> int:
    """About how many bytes an event takes, on the wire as in memory."""
    return 200 + sum(map(_size, vars(event).values()))


def _size(value: object) -> int:
    match value:
        case str():
            return 16 + text_size(value)
        case Mapping():
            return 16 + sum(_size(name) + _size(item) for name, item in value.items())
        case list() | tuple():
            return 16 + sum(map(_size, value))
        case TodoItem():
            return 16 + sum(map(_size, vars(value).values()))
    return 16
