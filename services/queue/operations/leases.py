"""Jobs on their way out: claims, settlements, and the sessions under which leases stand."""

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from services.queue.heads import Heads, Place, Stretch
from services.queue.job import (
    ENDED,
    MAX_BATCH,
    Failure,
    Held,
    JobState,
    Lease,
    LeasedJob,
    Outcome,
)
from services.queue.operations.dependencies import follow
from services.queue.pace import Pace
from services.queue.store import QueueTransaction, Store

LEASE_DURATION = timedelta(seconds=15)
STOP_GRACE = timedelta(seconds=30)
"""How long a worker may take to say that it stopped a cancelled job, before the job ends without its word."""


class Settlement(NamedTuple):
    """What a worker says of a job that it was given: it is done, or it failed."""

    lease: Held
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What a transaction did to leases.

    Attributes:
        tokens: Those of the settlements that are on disk. The others came too late.
        freed: The jobs that are ready now and were not.
        delayed: Whether a job waits for a time now.
        more: Whether there is more of the same to do, in another transaction.
        outcomes: What became of the jobs.
        lost: How many leases ended because the stream of their worker broke.
    """

    tokens: set[str] = field(default_factory=set)
    freed: list[Place] = field(default_factory=list)
    delayed: bool = False
    more: bool = False
    outcomes: list[JobState] = field(default_factory=list)
    lost: int = 0


async def claim(
    store: Store, pace: Pace, heads: Heads, kinds: Collection[str], sessions: Sequence[UUID], turns: Sequence[int]
) -> dict[UUID, list[LeasedJob]]:
    """Lease ready jobs, at most one for each turn, and of no tenant more than it may run at once.

    Args:
        store: The queue's tables.
        pace: Who may run how much, and how far the virtual times have come.
        heads: Where claims begin.
        kinds: Which jobs.
        sessions: Who gets them.
        turns: Whose each next job is: the number of a session, counted from 1.

    Returns:
        The jobs of each session, in the order in which they have to run.
    """
    rooms = {(kind, 0): len(turns) for kind in sorted(kinds)}
    if pace.lanes:
        async with store.claiming.transaction() as tx:
            await tx.lock_lanes(pace.lanes)
            for lane, room in (await tx.rooms_in_lanes(pace.lanes)).items():
                rooms |= {(kind, lane): min(room, len(turns)) for kind in kinds if room > 0}
            return await _claim(tx, pace, heads, rooms, sessions, turns)
    async with store.claiming.statement() as tx:
        return await _claim(tx, pace, heads, rooms, sessions, turns)


async def _claim(
    tx: QueueTransaction,
    pace: Pace,
    heads: Heads,
    rooms: Mapping[Stretch, int],
    sessions: Sequence[UUID],
    turns: Sequence[int],
) -> dict[UUID, list[LeasedJob]]:
    begins = heads.begin(rooms)
    asked = {stretch: (room, begin) for (stretch, room), begin in zip(rooms.items(), begins, strict=True)}
    claimed = await tx.claim(asked, sessions, turns)
    heads.end(claimed.reached)
    pace.served(claimed.served)
    return claimed.leased


async def settle(
    store: Store, settlements: Sequence[Settlement], lost: Collection[UUID] = (), returned: Collection[UUID] = ()
) -> Settled:
    """Settle leases, and end sessions with the leases that they still have. All in one commit.

    Args:
        store: The queue's tables.
        settlements: What workers said of their leases.
        lost: Sessions whose streams broke.
        returned: Sessions that ended as they should: a worker or the queue stops, which is no fault of the jobs.
    """
    async with store.settling.transaction() as tx:
        settled = {settlement.lease.token for settlement in settlements}
        left = await tx.leases_of([*lost, *returned], MAX_BATCH)
        dropped = [lease for lease in left if lease.token not in settled]
        leases = [*(settlement.lease for settlement in settlements), *dropped]
        lines = _lines(leases)
        await tx.lock_keys(lines)
        done, failed = _split(settlements)
        completed = await tx.complete_leases(done)
        tokens = completed.tokens
        standing = await tx.lock_leases([*(settlement.lease for settlement in failed), *dropped])
        endings = _fail(failed, standing) + _drop(dropped, standing, returned)
        tokens |= {lease.token for lease, _ in endings}
        freed, released = await _end(tx, endings)
        released |= await follow(tx, completed.needed)
        if late := [lease for lease in leases if lease.token not in tokens]:
            tokens |= await tx.settled_before(late)
        freed += await tx.promote(lines)
        more = len(left) == MAX_BATCH
        if not more:
            await tx.close_sessions([*lost, *returned])
        outcomes = completed.states + _outcomes(endings)
        return Settled(
            tokens,
            freed,
            released or JobState.RETRYING in outcomes,
            more,
            outcomes,
            lost=sum(lease.session_id not in returned for lease in dropped),
        )


def _lines(leases: Iterable[Held]) -> set[tuple[UUID, str]]:
    """The lines that these jobs stand in."""
    return {(UUID(str(lease.tenant_id)), lease.key) for lease in leases if lease.key}


def _fail(failed: Sequence[Settlement], standing: Mapping[str, Lease]) -> list[tuple[Lease, Outcome]]:
    """What becomes of the attempts that failed, of those whose leases stand."""
    return [
        (lease, lease.failed(settlement.failure, random.random()))  # noqa: S311 - spreads load
        for settlement in failed
        if settlement.failure and (lease := standing.get(settlement.lease.token))
    ]


def _drop(
    dropped: Sequence[Lease], standing: Mapping[str, Lease], returned: Collection[UUID]
) -> list[tuple[Lease, Outcome]]:
    """What becomes of the leases of sessions that ended."""
    leases = [lease for found in dropped if (lease := standing.get(found.token))]
    return [(lease, lease.withdrawn() if lease.session_id in returned else lease.lost()) for lease in leases]


def _split(settlements: Sequence[Settlement]) -> tuple[list[Held], list[Settlement]]:
    done = [settlement.lease for settlement in settlements if settlement.failure is None]
    return done, [settlement for settlement in settlements if settlement.failure is not None]


async def _end(tx: QueueTransaction, endings: Sequence[tuple[Lease, Outcome]]) -> tuple[list[Place], bool]:
    """Write down what becomes of leases. Their jobs are held and the keys locked.

    Returns:
        What is ready now, and whether a job that waited for one of them may have its time now.
    """
    ended = await tx.end_leases([ending for ending in endings if ending[1].state in ENDED])
    freed = await tx.requeue_leases([ending for ending in endings if ending[1].state not in ENDED])
    return freed, await follow(tx, ended.values())


def _outcomes(endings: Sequence[tuple[Lease, Outcome]]) -> list[JobState]:
    return [outcome.state for _, outcome in endings]


async def withdraw(store: Store, leases: Collection[Held]) -> Settled:
    """Take back leases that no worker knows of. Belongs to the claim loop, and has its line."""
    async with store.claiming.transaction() as tx:
        return await _take_back(tx, leases, Lease.withdrawn)


async def forget_earlier_life(store: Store, instance: str) -> bool:
    """End the sessions that this Queue process had before it was killed. Returns whether there were any."""
    async with store.transaction() as tx:
        return await tx.close_sessions_of(instance) > 0


async def withdraw_orphans(store: Store) -> Settled:
    """Take back the leases that have no session any more, without blame."""
    async with store.transaction() as tx:
        return await _take_back(tx, await tx.orphaned_leases(STOP_GRACE, MAX_BATCH), Lease.withdrawn)


async def reap(store: Store, living: Collection[UUID] = ()) -> Settled:
    """End the sessions that nobody renewed, and every lease that has no session any more.

    Args:
        store: The queue's tables.
        living: The sessions whose streams are open here. They live, however late their renewal is.
    """
    async with store.transaction() as tx:
        await tx.close_expired_sessions(living)
        return await _take_back(tx, await tx.orphaned_leases(STOP_GRACE, MAX_BATCH), Lease.lost)


async def _take_back(tx: QueueTransaction, leases: Collection[Held], outcome: Callable[[Lease], Outcome]) -> Settled:
    if not leases:
        return Settled()
    lines = _lines(leases)
    await tx.lock_keys(lines)
    endings = [(lease, outcome(lease)) for lease in (await tx.lock_leases(leases)).values()]
    freed, released = await _end(tx, endings)
    freed += await tx.promote(lines)
    tokens = {lease.token for lease, _ in endings}
    outcomes = _outcomes(endings)
    return Settled(tokens, freed, released or JobState.RETRYING in outcomes, len(leases) == MAX_BATCH, outcomes)


async def open_session(store: Store, session_id: UUID, instance: str, worker_id: str, kinds: Collection[str]) -> None:
    """Remember the stream of a worker."""
    async with store.transaction() as tx:
        await tx.open_session(session_id, instance, worker_id, kinds, LEASE_DURATION)


async def renew_sessions(store: Store, sessions: Collection[UUID]) -> set[UUID]:
    """Keep sessions for another while, and return those that are still there."""
    async with store.renewing.statement() as tx:
        return await tx.renew_sessions(sessions, LEASE_DURATION)


async def leases_of(store: Store, sessions: Collection[UUID]) -> list[Lease]:
    """Read the leases that sessions have. Belongs to the claim loop, and has its line."""
    async with store.claiming.statement() as tx:
        return await tx.leases_of(sessions, count=None)


async def cancelled_leases(store: Store, sessions: Collection[UUID]) -> list[tuple[UUID, UUID, str]]:
    """Read session, job and token of the leases whose workers have to be told to stop."""
    async with store.transaction() as tx:
        return await tx.cancelled_leases(sessions)
