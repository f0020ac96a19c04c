"""The hand-out: claims ready jobs for the workers that granted credit, and settles what they send back.

Claims and settlements run in two loops on two connections, so neither waits for the other's commit. Nothing here runs
in the task of a call: a stream that is cut cuts no transaction.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from services.kit.errors import ServiceUnavailable
from services.kit.telemetry import log
from services.queue import metrics, operations
from services.queue.batch import Batcher
from services.queue.bell import Bell
from services.queue.job import Failure, Held, LeasedJob
from services.queue.operations import MAX_BATCH, Settlement
from services.queue.pace import Pace
from services.queue.store import Store
from services.queue.work_session import WorkSession

RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Settling:
    session: WorkSession
    settlements: Sequence[Settlement]


@dataclass(frozen=True, slots=True)
class _Closing:
    session: WorkSession
    returned: bool


class Dispatcher:
    """Hands jobs to the streams of this process.

    Args:
        store: The queue's tables.
        bell: Wakes the claim loop.
        pace: Who may run how much.
        instance: The name of this Queue process, the same in its next life.
    """

    def __init__(self, store: Store, bell: Bell, pace: Pace, instance: str) -> None:
        self._store = store
        self._bell = bell
        self._pace = pace
        self._instance = instance
        self._sessions: dict[UUID, WorkSession] = {}
        self._settler: Batcher[_Settling | _Closing, None] = Batcher(self._settle, MAX_BATCH, _weight)
        self._drained_at: dict[frozenset[str], int] = {}
        self._in_doubt = False
        self._stopping = False

    @property
    def sessions(self) -> Mapping[UUID, WorkSession]:
        """The open streams by session."""
        return self._sessions

    async def open(self, session: WorkSession) -> None:
        """Take a stream in."""
        if self._stopping:
            raise ServiceUnavailable("the queue is stopping; connect again in a moment", service="queue")
        await operations.open_session(self._store, session.id, self._instance, session.worker_id, tuple(session.kinds))
        self._sessions[session.id] = session
        metrics.WORKERS.set(len(self._sessions))
        log().info("worker came", worker_id=session.worker_id, session_id=str(session.id))

    def close(self, session: WorkSession, *, returned: bool = False) -> None:
        """Let a stream go: its leases end with the next commit of the settle loop.

        Args:
            session: The stream. Closing it again changes nothing.
            returned: Whether it ended as it should, so that its jobs are not to blame.
        """
        if session.closed:
            return
        session.closed = True
        self._sessions.pop(session.id, None)
        metrics.WORKERS.set(len(self._sessions))
        self._settler.put(_Closing(session, returned))
        log().info(
            "worker went",
            worker_id=session.worker_id,
            session_id=str(session.id),
            leases=len(session.holdings),
            returned=returned,
        )

    def grant(self, session: WorkSession, credit: int) -> None:
        """Take credit in."""
        session.grant(credit)
        if self._may_find_work(session.kinds):
            self._bell.work.set()

    def settle(self, session: WorkSession, done: Sequence[str], failed: Mapping[str, Failure]) -> None:
        """Take settlements in, by token: jobs that are done, and why others failed. The worker hears of the commit."""
        settlements = [Settlement(job) for token in done if (job := session.begin_settling(token))]
        settlements += [
            Settlement(job, failure) for token, failure in failed.items() if (job := session.begin_settling(token))
        ]
        for first in range(0, len(settlements), MAX_BATCH):
            self._settler.put(_Settling(session, settlements[first : first + MAX_BATCH]))

    def doubt(self) -> None:
        """Compare the leases in memory with those on disk before the next claim: an answer or a commit was lost."""
        self._in_doubt = True
        self._bell.ready(here_only=True)

    async def stop(self) -> None:
        """End every stream, and return when the settlements that came are on disk."""
        self._stopping = True
        for session in tuple(self._sessions.values()):
            session.say_goodbye()
            self.close(session, returned=True)
        await self._settler.drained()

    async def run(self) -> None:
        """Hand out and settle until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._claim_forever())
            loops.create_task(self._settler.run())

    async def _claim_forever(self) -> None:
        while True:
            await self._bell.work.wait()
            self._bell.work.clear()
            try:
                if self._in_doubt:
                    await self._compare()
                await self._claim_for_all()
            except Exception as error:  # noqa: BLE001 - the loop has to go on, whatever it met
                if not isinstance(error, ServiceUnavailable):
                    log().error("claim failed", exc_info=error)
                await asyncio.sleep(RETRY_SECONDS)
                self.doubt()

    async def _claim_for_all(self) -> None:
        groups: dict[frozenset[str], list[WorkSession]] = defaultdict(list)
        for session in self._sessions.values():
            if session.room > 0:
                groups[session.kinds].append(session)
        for kinds, sessions in groups.items():
            while self._may_find_work(kinds) and (slots := _slots(sessions)):
                seen = self._bell.arrivals
                with metrics.CLAIM_SECONDS.time():
                    numbers = {session: number for number, session in enumerate(dict.fromkeys(slots), 1)}
                    leased = await operations.claim(
                        self._store,
                        self._pace,
                        self._bell.heads,
                        kinds,
                        [session.id for session in numbers],
                        [numbers[session] for session in slots],
                    )
                if sum(map(len, leased.values())) < len(slots):
                    self._drained_at[kinds] = seen
                await self._deliver(leased)

    def _may_find_work(self, kinds: frozenset[str]) -> bool:
        """Whether jobs may be ready: none were found last time, and none came since, is the usual case."""
        return self._drained_at.get(kinds) != self._bell.arrivals

    async def _deliver(self, leased: Mapping[UUID, Sequence[LeasedJob]]) -> None:
        if leased:
            metrics.tell_claim([job for jobs in leased.values() for job in jobs], datetime.now(UTC))
        strays: list[LeasedJob] = []
        for session_id, jobs in leased.items():
            session = self._sessions.get(session_id)
            if session is None or session.draining:
                strays += jobs
            else:
                session.deliver(jobs)
        if strays:
            await self._withdraw(strays)

    async def _withdraw(self, leases: Collection[Held]) -> None:
        """Take back leases that no worker heard of."""
        settled = await operations.withdraw(self._store, leases)
        if settled.freed:
            self._bell.ready(settled.freed)
        if settled.delayed:
            self._bell.delayed()

    async def _compare(self) -> None:
        """Make the leases in memory and those on disk agree.

        After a crash of the database a claim may be gone that a worker has; after a lost answer a claim may stand that
        no worker heard of.
        """
        sessions = dict(self._sessions)
        on_disk = await operations.leases_of(self._store, sessions.keys())
        self._in_doubt = False
        unheard = [
            lease
            for lease in on_disk
            if lease.session_id in self._sessions and lease.token not in sessions[lease.session_id].holdings
        ]
        standing = {lease.token for lease in on_disk}
        for session in sessions.values():
            session.drop_all_but(standing)
        if unheard:
            await self._withdraw(unheard)

    async def _settle(self, items: Sequence[_Settling | _Closing]) -> Sequence[None]:
        settling = [item for item in items if isinstance(item, _Settling)]
        closing = [item for item in items if isinstance(item, _Closing)]
        standing = await self._settle_surely([found for item in settling for found in item.settlements], closing)
        for item in settling:
            full = item.session.room < item.session.credit
            item.session.end_settling([settlement.lease.token for settlement in item.settlements], standing)
            if full:
                self._bell.work.set()
        return [None] * len(items)

    async def _settle_surely(self, settlements: Sequence[Settlement], closing: Collection[_Closing]) -> Collection[str]:
        """Settle, however long the database is away. Returns the tokens of what is on disk."""
        pause = RETRY_SECONDS
        lost = [item.session.id for item in closing if not item.returned]
        returned = [item.session.id for item in closing if item.returned]
        while True:
            try:
                settled = await operations.settle(self._store, settlements, lost, returned)
            except ServiceUnavailable:
                self.doubt()
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_RETRY_SECONDS)
                continue
            except Exception as error:  # noqa: BLE001 - one bad settlement must not stop all others
                log().error("settlement failed", exc_info=error, settlements=len(settlements), sessions=len(closing))
                return await self._settle_apart(settlements, closing)
            metrics.SETTLED.observe(len(settlements))
            metrics.tell_outcomes(settled.outcomes)
            metrics.LEASES_LOST.labels("stream broke").inc(settled.lost)
            if settled.freed or closing or self._pace.lanes:
                self._bell.ready(settled.freed)
            if settled.delayed:
                self._bell.delayed()
            if settled.more:
                for closed in closing:
                    self._settler.put(closed)
            return settled.tokens

    async def _settle_apart(self, settlements: Sequence[Settlement], closing: Collection[_Closing]) -> Collection[str]:
        """Settle one by one. A settlement that fails alone is refused; a session that does is left to the reaper."""
        if len(settlements) + len(closing) <= 1:
            return frozenset()
        settled: set[str] = set()
        for settlement in settlements:
            settled.update(await self._settle_surely([settlement], []))
        for closed in closing:
            await self._settle_surely([], [closed])
        return settled


def _weight(item: _Settling | _Closing) -> int:
    return len(item.settlements) if isinstance(item, _Settling) else 1


def _slots(sessions: Sequence[WorkSession]) -> list[WorkSession]:
    """Who gets the next jobs: those with most credit first, one job each before anybody gets a second."""
    able = sorted((session for session in sessions if session.room > 0 and not session.closed), key=_room)
    if len(able) == 1:
        return able * min(able[0].room, MAX_BATCH)
    slots: list[WorkSession] = []
    taken = 0
    while able and len(slots) < MAX_BATCH:
        taken += 1
        slots += reversed(able)
        able = [session for session in able if session.room > taken]
    return slots[:MAX_BATCH]


def _room(session: WorkSession) -> int:
    return session.room
