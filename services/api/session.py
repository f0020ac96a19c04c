"""A session: one conversation of a user with the agent."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from uuid import UUID

from services.kit.errors import DomainError, Kind

MAX_TITLE = 60


class SessionNotFound(DomainError):
    """No session of the caller has this id."""

    kind = Kind.NOT_FOUND
    reason = "SESSION_NOT_FOUND"

    def __init__(self, session_id: UUID) -> None:
        super().__init__("you have no session with this id; `GET /v1/sessions` lists yours", sessionId=session_id)


class SessionBusy(DomainError):
    """A turn of the session runs or waits."""

    kind = Kind.FAILED_PRECONDITION
    reason = "SESSION_BUSY"

    def __init__(self, session_id: UUID) -> None:
        super().__init__("a turn of this session still runs or waits; abort it first", sessionId=session_id)


class NothingToChange(DomainError):
    """The request asks for no change."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"

    def __init__(self) -> None:
        super().__init__("say what to change: `title`, `busy_policy`, or both")


class BusyPolicy(Enum):
    """What a prompt does that comes while a turn of its session runs."""

    QUEUE = "queue"
    STEER = "steer"
    INTERRUPT = "interrupt"


@dataclass(frozen=True)
class ModelRef:
    """A model of a provider."""

    provider_id: str
    model_id: str

    @classmethod
    def from_columns(cls, provider_id: str | None, model_id: str | None) -> "ModelRef | None":
        """The model in two columns, or None when they are empty."""
        return cls(provider_id, model_id) if provider_id and model_id else None


@dataclass(frozen=True)
class Session:
    """One conversation of a user with the agent."""

    id: UUID
    tenant_id: UUID
    user_id: UUID
    title: str
    model: ModelRef | None
    create_time: datetime
    update_time: datetime
    busy_policy: BusyPolicy = BusyPolicy.QUEUE
    active_turn_id: UUID | None = None


def title_from(text: str) -> str:
    """The title that a first prompt gives to its session: its first line, cut at a word."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if len(line) <= MAX_TITLE:
        return line
    return line[:MAX_TITLE].rsplit(" ", 1)[0].rstrip(",;:.-") + "…"
