"""One stream of one worker: the credit that it granted, the leases that it has, and what it is still to be told."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from services.kit.ids import new_id
from services.queue.job import Job, Lease, WorkProtocolBroken

MAX_CREDIT = 10_000


@dataclass(frozen=True, slots=True)
class Leased:
    """Run this job."""

    job: Job
    job_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The settlement is on disk."""

    job_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The lease has ended: stop the job."""

    job_id: str
    token: str
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The stream ends: well, or with a refusal."""

    error: Exception | None = None


Message = Leased | Settled | Ended | Goodbye


@dataclass(slots=True)
class Holding:
    """A lease in the hands of the worker.

    Attributes:
        job_id: As the worker knows it: ids are turned into text once.
        settling: The worker has settled it, and the commit is under way.
        asked_to_stop: The worker was told that the job was cancelled.
    """

    lease: Lease
    job_id: str
    settling: bool = False
    asked_to_stop: bool = False


@dataclass(eq=False)
class WorkSession:
    """The stream of a worker.

    Attributes:
        draining: The worker takes nothing more, and settles what it has.
        outbox: What the worker is still to be told, in order.
        told: Set while there is something to tell.
    """

    worker_id: str
    kinds: frozenset[str]
    id: UUID = field(default_factory=new_id)
    credit: int = 0
    draining: bool = False
    closed: bool = False
    holdings: dict[str, Holding] = field(default_factory=dict)
    outbox: deque[Message] = field(default_factory=deque)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def grant(self, credit: int) -> None:
        """The worker can take this many more jobs."""
        if self.draining:
            raise WorkProtocolBroken("a worker that drains takes nothing more")
        if self.credit + len(self.holdings) + credit > MAX_CREDIT:
            raise WorkProtocolBroken(f"a stream has at most {MAX_CREDIT} credits and leases at a time")
        self.credit += credit

    def drain(self) -> None:
        """The worker takes nothing more."""
        self.draining = True
        self.credit = 0

    def deliver(self, job: Job, lease: Lease) -> None:
        """Hand a job to the worker."""
        self.credit -= 1
        job_id = str(lease.id)
        self.holdings[lease.token] = Holding(lease, job_id)
        self._tell(Leased(job, job_id, lease.token))

    def begin_settling(self, job_id: str, token: str) -> Lease | None:
        """The lease that the worker settles, if it stands and is not being settled already.

        A token that the session does not hold is answered with the end of its lease.
        """
        holding = self.holdings.get(token)
        if holding is None or holding.job_id != job_id:
            self._tell(Ended(job_id, token))
            return None
        if holding.settling:
            return None
        holding.settling = True
        return holding.lease

    def end_settling(self, lease: Lease, *, settled: bool) -> None:
        """Tell the worker what became of its settlement."""
        if holding := self.holdings.pop(lease.token, None):
            self._tell(Settled(holding.job_id, lease.token) if settled else Ended(holding.job_id, lease.token))

    def ask_to_stop(self, token: str) -> None:
        """Tell the worker, once, that a job was cancelled. The lease stands until it settles it."""
        holding = self.holdings.get(token)
        if holding and not holding.asked_to_stop:
            holding.asked_to_stop = True
            self._tell(Ended(holding.job_id, token, cancelled=True))

    def drop_all_but(self, standing: Iterable[str]) -> None:
        """Tell the worker of every lease that does not stand any more, unless its settlement is under way."""
        gone = self.holdings.keys() - set(standing)
        for token in [token for token in gone if not self.holdings[token].settling]:
            self._tell(Ended(self.holdings.pop(token).job_id, token))

    async def next_messages(self, seconds: float) -> Sequence[Message]:
        """All that the worker is to be told, or nothing when there was nothing for so long."""
        if not self.outbox:  # a busy stream sets up no timer
            self.told.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self.told.wait()
            except TimeoutError:
                return ()
        messages = tuple(self.outbox)
        self.outbox.clear()
        return messages

    def say_goodbye(self, error: Exception | None = None) -> None:
        """End the stream once everything before this is told."""
        self._tell(Goodbye(error))

    def _tell(self, message: Message) -> None:
        self.outbox.append(message)
        self.told.set()
