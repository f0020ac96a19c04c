"""The noun: one user's sandbox, its states, and the refusals about it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from services.kit.errors import DomainError, Kind


class SandboxState(StrEnum):
    """Where a sandbox stands."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"


@dataclass(frozen=True)
class Sandbox:
    """One user's sandbox. Its files outlive its processes."""

    id: UUID
    tenant_id: UUID
    user_id: UUID
    state: SandboxState
    create_time: datetime
    # The revision of the bundle that it runs; empty while it is stopped.
    runtime_revision: str = ""
    start_time: datetime | None = None


@dataclass(frozen=True)
class Forgotten:
    """A session that was deleted, and what the agent in a sandbox calls it."""

    sandbox_id: UUID
    session_id: UUID
    agent_session: str


class SandboxNotFound(DomainError):
    """No sandbox of the tenant has this id."""

    kind = Kind.NOT_FOUND
    reason = "SANDBOX_NOT_FOUND"


class SandboxIsolationUnavailable(DomainError):
    """This host cannot isolate a sandbox, so none is started."""

    kind = Kind.FAILED_PRECONDITION
    reason = "SANDBOX_ISOLATION_UNAVAILABLE"


class SandboxStartFailed(DomainError):
    """The sandbox did not come up."""

    kind = Kind.UNAVAILABLE
    reason = "SANDBOX_START_FAILED"


class RuntimeNotApplied(DomainError):
    """There is no applied bundle to run."""

    kind = Kind.FAILED_PRECONDITION
    reason = "RUNTIME_NOT_APPLIED"
