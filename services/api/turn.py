"""A turn: what follows from one prompt; and the events of its log."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from uuid import UUID

from services.api.session import ModelRef
from services.kit.errors import DomainError, Kind

INBOX_LIMIT = 100
"""How many turns of a session may wait or run at once."""


class TurnState(Enum):
    """Where a turn stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    ABORTED = "aborted"


ENDED = frozenset({TurnState.COMPLETED, TurnState.FAILED, TurnState.ABORTED})


class TurnNotFound(DomainError):
    """No turn of the caller has this id."""

    kind = Kind.NOT_FOUND
    reason = "TURN_NOT_FOUND"

    def __init__(self, turn_id: UUID) -> None:
        super().__init__("you have no turn with this id", turnId=turn_id)


class TurnEnded(DomainError):
    """The turn has ended."""

    kind = Kind.FAILED_PRECONDITION
    reason = "TURN_ENDED"

    def __init__(self, turn_id: UUID) -> None:
        super().__init__("this turn has ended, so it cannot be changed any more", turnId=turn_id)


class TurnStarted(DomainError):
    """The turn runs already."""

    kind = Kind.FAILED_PRECONDITION
    reason = "TURN_STARTED"

    def __init__(self, turn_id: UUID) -> None:
        super().__init__("this turn has started, so its words stay as they are; steer it, or abort it", turnId=turn_id)


class InboxFull(DomainError):
    """Too many turns of the session wait."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "INBOX_FULL"

    def __init__(self, session_id: UUID) -> None:
        super().__init__(
            f"{INBOX_LIMIT} turns of this session wait already; wait for one to end, or abort some",
            sessionId=session_id,
            limit=INBOX_LIMIT,
        )


class LeaseLost(DomainError):
    """Another worker writes the turn now."""

    kind = Kind.ABORTED
    reason = "LEASE_LOST"

    def __init__(self, turn_id: UUID) -> None:
        super().__init__("another worker has this turn now; stop writing", turnId=turn_id)


class SequenceGap(DomainError):
    """The events do not continue the log."""

    kind = Kind.OUT_OF_RANGE
    reason = "SEQUENCE_GAP"

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(
            f"the log goes on with event {expected}, not {got}; open it again and go on from its end",
            expected=expected,
            got=got,
        )


@dataclass(frozen=True)
class Ending:
    """How a turn ended."""

    state: TurnState
    reason: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class ToolUse:
    """A tool that an agent used, and how that ended."""

    tool: str
    outcome: str


@dataclass(frozen=True)
class Event:
    """One event of a turn as it is kept: its number, the contract's TurnEvent in bytes, and the ending if it is one."""

    sequence: int
    data: bytes
    ending: Ending | None = None
    used: ToolUse | None = None
    shown: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """What was made of it for its readers, once for all of them, by content type."""


@dataclass(frozen=True)
class Lease:
    """The right to write a turn's log: the worker's attempt at the job, and its fence token."""

    attempt: int
    token: str


@dataclass(frozen=True)
class Turn:
    """What follows from one prompt."""

    id: UUID
    ordinal: int
    tenant_id: UUID
    user_id: UUID
    session_id: UUID
    state: TurnState
    text: str
    model: ModelRef | None
    last_sequence: int
    attempt: int
    lease_token: str | None
    job_id: UUID | None
    abort_requested: bool
    failure_reason: str | None
    failure_message: str | None
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    reworded: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen in it."""
        return self.state in ENDED

    def ending(self) -> Ending | None:
        """How it ended, or None while it lives."""
        return Ending(self.state, self.failure_reason, self.failure_message) if self.ended else None

    def check_waits(self) -> None:
        """Refuse unless it waits.

        Raises:
            TurnStarted: It runs.
            TurnEnded: It has ended.
        """
        if self.ended:
            raise TurnEnded(self.id)
        if self.state is not TurnState.QUEUED:
            raise TurnStarted(self.id)

    def open_by(self, lease: Lease, now: datetime) -> "Turn":
        """The turn with its log open for the holder of a lease.

        Raises:
            LeaseLost: A later attempt, or another lease of the same attempt, has opened it.
        """
        if lease.attempt < self.attempt or (lease.attempt == self.attempt and lease.token != self.lease_token):
            raise LeaseLost(self.id)
        return replace(
            self,
            state=TurnState.RUNNING,
            attempt=lease.attempt,
            lease_token=lease.token,
            start_time=self.start_time or now,
        )

    def end(self, ending: Ending, now: datetime) -> "Turn":
        """The turn, ended."""
        return replace(
            self, state=ending.state, failure_reason=ending.reason, failure_message=ending.message, end_time=now
        )
