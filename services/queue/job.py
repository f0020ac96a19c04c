"""A job, the lease under which a worker runs it, and what becomes of it when that lease ends."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from services.kit.errors import DomainError, Kind
from services.kit.ids import new_id

MAX_BATCH = 500
"""How many jobs share a commit."""
DEFAULT_MAX_ATTEMPTS = 5
MAX_ERROR_CHARACTERS = 4_000
OVERDUE = "its deadline passed"
FIRST_BACKOFF = timedelta(seconds=1)
LONGEST_BACKOFF = timedelta(minutes=10)
LONGEST_RETRY_DELAY = timedelta(days=1)


class JobState(StrEnum):
    """Where a job stands. README.md draws how it moves."""

    SCHEDULED = "scheduled"
    """Waits for its time, and stands in no line yet."""
    WAITING = "waiting"
    """Waits for the jobs that it depends on, and stands in no line yet."""
    BLOCKED = "blocked"
    """Waits for an earlier job with the same key."""
    READY = "ready"
    LEASED = "leased"
    RETRYING = "retrying"
    """Waits for its next attempt, at the head of its line."""
    COMPLETED = "completed"
    DEAD = "dead"
    CANCELLED = "cancelled"

    @property
    def word(self) -> str:
        """The state as callers know it: what waits for a time is delayed, what waits for a job is blocked."""
        if self is JobState.WAITING:
            return JobState.BLOCKED.value
        return "delayed" if self in DELAYED else self.value


STATES = {state.value: state for state in JobState}
DELAYED = frozenset({JobState.SCHEDULED, JobState.RETRYING})
ENDED = frozenset({JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED})


class JobNotFound(DomainError):
    """No job of the tenant has this id."""

    kind = Kind.NOT_FOUND
    reason = "JOB_NOT_FOUND"


class JobStateRefused(DomainError):
    """The job is not in a state that allows this."""

    kind = Kind.FAILED_PRECONDITION
    reason = "JOB_STATE"


class IdempotencyKeyReused(DomainError):
    """The idempotency key stands for a job with other content."""

    kind = Kind.ALREADY_EXISTS
    reason = "IDEMPOTENCY_KEY_REUSED"


class WorkProtocolBroken(DomainError):
    """The worker said something that has no meaning at this point of its stream."""

    kind = Kind.FAILED_PRECONDITION
    reason = "WORK_PROTOCOL"


class InvalidJob(DomainError):
    """A value of the request cannot be kept."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that somebody wants done."""

    tenant_id: UUID
    kind: str
    key: str
    payload: bytes
    idempotency_key: str
    priority: int = 0
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    run_time: datetime | None = None
    trace_parent: str = ""
    deadline: datetime | None = None
    depends_on: tuple[UUID, ...] = ()
    id: UUID = field(default_factory=new_id)

    @property
    def intent(self) -> tuple[UUID, str]:
        """What makes two requests one: the tenant and the idempotency key."""
        return (self.tenant_id, self.idempotency_key)

    def digest(self) -> bytes:
        """A hash of what the idempotency key stands for."""
        found = hashlib.sha256()
        for part in (self.kind.encode(), self.key.encode(), self.payload):
            found.update(len(part).to_bytes(8) + part)
        return found.digest()


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is kept."""

    tenant_id: UUID
    id: UUID
    kind: str
    key: str
    state: JobState
    priority: int
    attempt: int
    max_attempts: int
    payload: bytes
    idempotency_key: str
    run_time: datetime
    create_time: datetime
    trace_parent: str = ""
    last_error: str = ""
    end_time: datetime | None = None
    deadline: datetime | None = None
    depends_on: tuple[UUID, ...] = ()
    vt: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that has just ended, and whether others may depend on it."""

    tenant_id: UUID
    id: UUID
    state: JobState
    needed: bool


@dataclass(frozen=True, slots=True)
class PlacedJob:
    """A job, and how many jobs of its key come before it."""

    job: Job
    position: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a job whose lease ends: its next state, why, and how long until then.

    Attributes:
        settled: Whether the worker's own word ended the lease. It may be sent again, and is told again that it counts.
    """

    state: JobState
    error: str = ""
    delay: timedelta = timedelta()
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Failure:
    """What a worker says of an attempt that failed."""

    error: str
    permanent: bool = False
    retry_delay: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one worker session to run a job, proven by a token that is random and never given twice."""

    tenant_id: UUID
    id: UUID
    key: str
    token: str
    session_id: UUID
    attempt: int
    max_attempts: int
    cancelled: bool = False
    overdue: bool = False

    def completed(self) -> Outcome:
        """The outcome of a job that was done. One that was told to stop meanwhile ends as that says."""
        return self._stopped() or Outcome(JobState.COMPLETED)

    def _stopped(self, *, settled: bool = True) -> Outcome | None:
        """The outcome of a job whose worker was told to stop."""
        if self.overdue:
            return Outcome(JobState.DEAD, OVERDUE, settled=settled)
        return Outcome(JobState.CANCELLED, settled=settled) if self.cancelled else None

    def failed(self, failure: Failure, roll: float) -> Outcome:
        """The outcome of a failed attempt.

        Args:
            failure: What the worker said.
            roll: A random number from 0 to 1 that spreads the next attempts of jobs that failed together.
        """
        error = failure.error[:MAX_ERROR_CHARACTERS]
        if stopped := self._stopped():
            return stopped
        if failure.permanent or self.attempt >= self.max_attempts:
            return Outcome(JobState.DEAD, error)
        if failure.retry_delay is None:
            return Outcome(JobState.RETRYING, error, backoff(self.attempt, roll))
        delay = min(max(failure.retry_delay, timedelta()), LONGEST_RETRY_DELAY)
        return Outcome(JobState.RETRYING if delay else JobState.READY, error, delay)

    def lost(self) -> Outcome:
        """The outcome of a job whose worker went away. Attempts are counted, so one that kills its workers dies."""
        if stopped := self._stopped(settled=False):
            return stopped
        if self.attempt >= self.max_attempts:
            return Outcome(JobState.DEAD, "the worker went away, and this was the last attempt", settled=False)
        return Outcome(JobState.READY, settled=False)

    def withdrawn(self) -> Outcome:
        """The outcome of a job that was given back, or taken back by the queue: it did not fail, so it never dies."""
        return self._stopped(settled=False) or Outcome(JobState.READY, settled=False)


class LeasedJob(NamedTuple):
    """A job that was just leased, and what its worker is told of it.

    Its ids are text, and it is no dataclass: tens of thousands a second come from the database so, and go on so.

    Attributes:
        slot: Its place among all that one claim leased.
        session: The number of the session that has it, among those that the claim named.
        waited_since: When it could have begun. Only known of the first.
    """

    slot: int
    session: int
    tenant_id: str
    id: str
    kind: str
    key: str
    token: str
    attempt: int
    max_attempts: int
    payload: bytes
    idempotency_key: str
    trace_parent: str
    priority: int
    vt: int
    lane: int
    waited_since: datetime | None


Held = Lease | LeasedJob
"""A lease, as much of it as is needed to settle it: tenant, job, key and token."""


@dataclass(frozen=True, slots=True)
class KindStats:
    """How the jobs of one kind stand."""

    kind: str
    paused: bool
    ready: int
    blocked: int
    delayed: int
    leased: int
    dead: int
    oldest_age: timedelta | None


def backoff(attempt: int, roll: float) -> timedelta:
    """How long to wait after a failed attempt: 1 s, doubled each time up to 10 min, and up to a quarter off or on."""
    exact = min(FIRST_BACKOFF * (1 << min(attempt - 1, 16)), LONGEST_BACKOFF)
    return exact * (0.75 + roll / 2)
