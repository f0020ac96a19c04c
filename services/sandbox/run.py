"""The noun: the run of one turn, as a buffer of numbered events that several readers follow, each at its own pace."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from uuid import UUID

from services.kit.errors import DomainError, Kind
from services.sandbox.bounds import bounded
from services.sandbox.ceiling import Ceiling
from services.sandbox.event import (
    Aborted,
    Completed,
    Event,
    Failed,
    PermissionAsked,
    PermissionExpired,
    PermissionReplied,
    Reply,
    Terminal,
    merged,
    size_of,
)
from services.sandbox.metrics import TurnMeasures

# A merged event stays small enough to be shown and stored as one.
_MERGED_LIMIT = 16 * 1024
_BATCH_LIMIT = 256
# A message of the mesh holds 4 MiB.
_BATCH_BYTES = 2**20


class RunLost(DomainError):
    """No such run is known here: it never was, it was kept long enough, or the service that ran it was restarted."""

    kind = Kind.NOT_FOUND
    reason = "RUN_LOST"


class SessionBusy(DomainError):
    """Another turn of the session runs."""

    kind = Kind.FAILED_PRECONDITION
    reason = "SESSION_BUSY"


class TurnEnded(DomainError):
    """Nothing can be said into the turn any more."""

    kind = Kind.FAILED_PRECONDITION
    reason = "TURN_ENDED"


class PermissionNotFound(DomainError):
    """The run does not wait for this permission."""

    kind = Kind.NOT_FOUND
    reason = "PERMISSION_NOT_FOUND"


class PermissionTimeout(DomainError):
    """Nobody answered in time, so the run went on without the permission. Nobody has refused it."""

    kind = Kind.FAILED_PRECONDITION
    reason = "PERMISSION_TIMEOUT"


@dataclass(frozen=True)
class Model:
    """A model of a provider."""

    provider_id: str
    model_id: str


@dataclass(frozen=True)
class Turn:
    """What is to run."""

    id: UUID
    tenant_id: UUID
    sandbox_id: UUID
    session_id: UUID
    text: str = field(repr=False)
    model: Model | None = None
    ceiling: Ceiling = field(default_factory=Ceiling)


@dataclass(frozen=True)
class Numbered:
    """An event with its place in the turn."""

    sequence: int
    create_time: datetime
    event: Event


class Run:
    """The events of one turn, numbered 1, 2, 3 and so on.

    A piece of text joins the piece before it as long as no reader has that one: a slow reader gets few large events, a
    fast one gets every piece at once, and what was handed out never changes. The buffer is bounded: when it is full it
    forgets what was handed out longest ago, and a turn that nobody reads ends.
    """

    def __init__(self, turn: Turn, limit: int = 64 * 2**20) -> None:
        self.turn = turn
        self.end_time: datetime | None = None
        # An abort may come before there is anything to stop; who begins the turn looks here first.
        self.abort_requested = False
        # The requests whose words are in the turn.
        self.steered: set[UUID] = set()
        # The answers that the user's permissions got, for who did not hear that they took effect.
        self.replies: dict[str, Reply] = {}
        self.size = 0
        self._limit = limit
        self._events: deque[Numbered] = deque()
        self._last = 0
        self._handed_out = 0
        self._refusal: Exception | None = None
        self._asked: set[str] = set()
        self._expired: set[str] = set()
        self._measures = TurnMeasures()
        self._changed = asyncio.Event()
        self._begun = asyncio.Event()

    @property
    def last_sequence(self) -> int:
        """The number of the last event."""
        return self._last

    @property
    def ended(self) -> bool:
        """Whether the terminal event is in the buffer."""
        return self.end_time is not None

    @property
    def waits_for_user(self) -> bool:
        """Whether the turn waits for an answer of its user."""
        return bool(self._asked) and not self.ended

    @property
    def full(self) -> bool:
        """Whether nobody has read for so long that no further event fits."""
        return self.size > self._limit

    def append(self, event: Event, time: datetime | None = None) -> None:
        """Add an event. What comes after the terminal one is dropped."""
        if self.ended:
            return
        self._measures.tell(event)
        event = bounded(event)
        time = time or datetime.now(UTC)
        if not self._merge(event):
            self._last += 1
            self._events.append(Numbered(self._last, time, event))
            self.size += size_of(event)
        match event:
            case PermissionAsked():
                self._asked.add(event.permission_id)
            case PermissionReplied():
                self._asked.discard(event.permission_id)
            case PermissionExpired():
                self._asked.discard(event.permission_id)
                self._expired.add(event.permission_id)
            case Completed() | Failed() | Aborted():
                self.end_time = time
        self._forget()
        self._begun.set()
        self._wake()

    def no_such_permission(self, permission_id: str) -> DomainError:
        """What to tell somebody who answers a permission that the run does not wait for."""
        if permission_id in self._expired:
            message = "nobody answered in time, and the turn went on without it; say what you want in a prompt"
            return PermissionTimeout(message, permissionId=permission_id)
        return PermissionNotFound("the turn does not wait for this permission", permissionId=permission_id)

    def refuse(self, refusal: Exception) -> None:
        """Tell every reader that the run did not begin."""
        self._refusal = refusal
        self._begun.set()
        self._wake()

    async def begun(self) -> None:
        """Wait until the run has begun.

        Raises:
            RunLost: It was refused, so there is none.
        """
        await self._begun.wait()
        if self._refusal:
            raise RunLost("the run of this turn did not begin", turnId=self.turn.id) from self._refusal

    async def read(self, after: int = 0) -> AsyncIterator[Sequence[Numbered]]:
        """The events after a number, in batches of what has happened meanwhile, until the terminal one.

        Raises:
            RunLost: Events after that number are not in the buffer any more, or never were.
        """
        while True:
            if self._refusal:
                raise self._refusal
            if batch := self._take(after):
                after = batch[-1].sequence
                yield batch
            elif self.ended:
                return
            else:
                await self._changed.wait()

    def terminal(self) -> Terminal | None:
        """The terminal event, once there is one."""
        last = self._events[-1].event if self._events else None
        return last if isinstance(last, Completed | Failed | Aborted) else None

    def _merge(self, event: Event) -> bool:
        if not self._events or self._last <= self._handed_out:
            return False
        last = self._events[-1]
        joined = merged(last.event, event)
        if joined is None or size_of(joined) > _MERGED_LIMIT:
            return False
        self._events[-1] = Numbered(last.sequence, last.create_time, joined)
        self.size += size_of(joined) - size_of(last.event)
        return True

    def _take(self, after: int) -> Sequence[Numbered]:
        if after > self._last:
            raise RunLost("the run has fewer events than that; start again from the last one you have")
        first = self._events[0].sequence if self._events else 1
        if after < first - 1:
            raise RunLost("these events of the run are not kept any more; the turn's log has them")
        start = after - first + 1
        batch: list[Numbered] = []
        size = 0
        for numbered in islice(self._events, start, start + _BATCH_LIMIT):
            size += size_of(numbered.event)
            if batch and size > _BATCH_BYTES:
                break
            batch.append(numbered)
        if batch:
            self._handed_out = max(self._handed_out, batch[-1].sequence)
        return batch

    def _forget(self) -> None:
        while self.full and self._events[0].sequence <= self._handed_out:
            self.size -= size_of(self._events.popleft().event)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
