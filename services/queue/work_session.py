"""One stream of one worker: the credit that it granted, the leases that it has, and what it is still to be told."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from services.kit.ids import new_id
from services.queue.job import LeasedJob, WorkProtocolBroken

MAX_CREDIT = 10_000
MAX_HOLDINGS = 10_000
"""How many leases of a stream may stand at once, those included whose settlement is on its way to the disk."""


@dataclass(frozen=True, slots=True)
class Leased:
    """Run these jobs."""

    jobs: Sequence[LeasedJob]


@dataclass(frozen=True, slots=True)
class Settled:
    """The settlements of these leases are on disk."""

    tokens: Sequence[str]


@dataclass(frozen=True, slots=True)
class Ended:
    """The lease has ended: stop the job."""

    token: str
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The stream ends: well, or with a refusal."""

    error: Exception | None = None


Message = Leased | Settled | Ended | Goodbye


@dataclass(eq=False)
class WorkSession:
    """The stream of a worker.

    Attributes:
        draining: The worker takes nothing more, and settles what it has.
        holdings: The leases in the hands of the worker, by token.
        settling: The tokens of those that it has settled, whose commit is under way.
        stopping: The tokens of those whose worker was told that the job was cancelled.
        outbox: What the worker is still to be told, in order.
        told: Set while there is something to tell.
    """

    worker_id: str
    kinds: frozenset[str]
    id: UUID = field(default_factory=new_id)
    credit: int = 0
    draining: bool = False
    closed: bool = False
    holdings: dict[str, LeasedJob] = field(default_factory=dict)
    settling: set[str] = field(default_factory=set)
    stopping: set[str] = field(default_factory=set)
    outbox: deque[Message] = field(default_factory=deque)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def grant(self, credit: int) -> None:
        """The worker can take this many more jobs."""
        if self.draining:
            raise WorkProtocolBroken("a worker that drains takes nothing more")
        if self.credit + credit > MAX_CREDIT:
            raise WorkProtocolBroken(f"a stream has at most {MAX_CREDIT} credits at a time")
        self.credit += credit

    @property
    def room(self) -> int:
        """How many jobs it is given now at most. A worker that is faster than the disk waits for it."""
        return min(self.credit, MAX_HOLDINGS - len(self.holdings))

    def drain(self) -> None:
        """The worker takes nothing more."""
        self.draining = True
        self.credit = 0

    def deliver(self, jobs: Sequence[LeasedJob]) -> None:
        """Hand jobs to the worker."""
        self.credit -= len(jobs)
        self.holdings.update((job.token, job) for job in jobs)
        self._tell(Leased(jobs))

    def begin_settling(self, token: str) -> LeasedJob | None:
        """The job that the worker settles, if its lease stands and it is not being settled already.

        A token that the session does not hold is answered with the end of its lease.
        """
        held = self.holdings.get(token)
        if held is None:
            self._tell(Ended(token))
        elif token not in self.settling:
            self.settling.add(token)
            return held
        return None

    def end_settling(self, tokens: Collection[str], standing: Collection[str]) -> None:
        """Tell the worker what became of its settlements: of those on disk, and of those that came too late."""
        self.settling.difference_update(tokens)
        self.stopping.difference_update(tokens)
        held = [token for token in tokens if self.holdings.pop(token, None)]
        settled = [token for token in held if token in standing]
        if settled:
            self._tell(Settled(settled))
        if len(settled) < len(held):
            for token in held:
                if token not in standing:
                    self._tell(Ended(token))

    def ask_to_stop(self, token: str) -> None:
        """Tell the worker, once, that a job was cancelled. The lease stands until it settles it."""
        if token in self.holdings and token not in self.stopping:
            self.stopping.add(token)
            self._tell(Ended(token, cancelled=True))

    def drop_all_but(self, standing: Iterable[str]) -> None:
        """Tell the worker of every lease that does not stand any more, unless its settlement is under way."""
        for token in self.holdings.keys() - set(standing) - self.settling:
            del self.holdings[token]
            self.stopping.discard(token)
            self._tell(Ended(token))

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
