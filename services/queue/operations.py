"""The verbs of the queue: each is one transaction.

Whoever changes a line holds the lock of its key first, and takes the locks of several keys in one order.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple
from uuid import UUID

from services.kit.errors import DomainError
from services.queue.heads import Heads, Place, Stretch
from services.queue.job import (
    ENDED,
    OVERDUE,
    EndedJob,
    Failure,
    Held,
    IdempotencyKeyReused,
    Job,
    JobNotFound,
    JobState,
    JobStateRefused,
    KindStats,
    Lease,
    LeasedJob,
    NewJob,
    Outcome,
    PlacedJob,
)
from services.queue.pace import Pace, TenantShare
from services.queue.schedule import Schedule
from services.queue.store import QueueTransaction, Store

LEASE_DURATION = timedelta(seconds=15)
STOP_GRACE = timedelta(seconds=30)
"""How long a worker may take to say that it stopped a cancelled job, before the job ends without its word."""
MAX_BATCH = 500
FIRST_PAGE = UUID(int=2**128 - 1)


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


async def enqueue(store: Store, pace: Pace, groups: Sequence[Sequence[NewJob]]) -> list[list[PlacedJob] | DomainError]:
    """Put groups of jobs in, all in one commit. A repeated intent gives the first job.

    Returns:
        For each group its jobs, or the refusal of a group of one.

    Raises:
        DomainError: A job of a larger group was refused. None is put in, of any group.
    """
    async with store.enqueueing.statement() if _loose(groups) else store.enqueueing.transaction() as tx:
        answers = iter(await _put(tx, pace, [job for group in groups for job in group]))
        return [_whole(list(islice(answers, len(group)))) for group in groups]


def _loose(groups: Sequence[Sequence[NewJob]]) -> bool:
    """Whether these jobs go in by one statement, which saves the way to the database and back before it and after it.

    So do those that stand in no line, depend on nothing, and do not have to go in or stay out together.
    """
    return all(len(group) == 1 and not group[0].key and not group[0].depends_on for group in groups)


def _whole(answers: list[PlacedJob | DomainError]) -> list[PlacedJob] | DomainError:
    placed = [answer for answer in answers if isinstance(answer, PlacedJob)]
    if len(placed) == len(answers):
        return placed
    refusal = next(answer for answer in answers if isinstance(answer, DomainError))
    if placed:
        raise refusal
    return refusal


async def _put(tx: QueueTransaction, pace: Pace, jobs: Sequence[NewJob]) -> list[PlacedJob | DomainError]:
    """Put jobs in, or answer with those that stand for the same intents, or refuse."""
    first: dict[tuple[UUID, str], NewJob] = {}
    for job in jobs:
        first.setdefault(job.intent, job)
    asked = list(first.values())
    await tx.lock_keys((job.tenant_id, job.key) for job in asked)
    needs = await _needs(tx, [job for job in asked if job.depends_on])
    able = [job for job in asked if job.id not in needs.refused] if needs.refused else asked
    placed = await tx.enqueue(able, [pace.stamp(job) for job in able])
    if needs.states:
        placed |= await _depend(tx, [job for job in able if job.depends_on and job.id in placed], needs)
    repeats = [job for job in jobs if job.id not in placed]
    if not repeats:
        return [placed[job.id] for job in jobs]
    return await _answer_repeats(tx, jobs, placed, needs.refused, repeats)


@dataclass(frozen=True, slots=True)
class _Needs:
    """What new jobs depend on: the state of each by tenant and id, ready standing for all that live; who is refused."""

    states: dict[tuple[UUID, UUID], JobState]
    refused: dict[UUID, DomainError]


async def _needs(tx: QueueTransaction, jobs: Sequence[NewJob]) -> _Needs:
    """Hold what new jobs depend on, so that none of it ends before they are in."""
    if not jobs:
        return _Needs({}, {})
    wanted = sorted({(job.tenant_id, needed_id) for job in jobs for needed_id in job.depends_on})
    living = await tx.need_jobs(wanted)
    # Read after the marking, which waits for a commit that ends one of them just now.
    ended = await tx.ended_states([needed for needed in wanted if needed not in living])
    states = dict.fromkeys(living, JobState.READY) | ended
    return _Needs(
        states,
        {
            job.id: JobNotFound("no job has this id", jobId=missing[0])
            for job in jobs
            if (missing := [needed for needed in job.depends_on if (job.tenant_id, needed) not in states])
        },
    )


async def _depend(tx: QueueTransaction, jobs: Sequence[NewJob], needs: _Needs) -> dict[UUID, PlacedJob]:
    """Let new jobs wait for what lives of what they depend on; end or release those that wait for nothing."""
    waits = [(job, needed, needs.states[job.tenant_id, needed]) for job in jobs for needed in job.depends_on]
    await tx.put_dependencies([(job.tenant_id, job.id, needed) for job, needed, state in waits if state not in ENDED])
    for state in (JobState.DEAD, JobState.CANCELLED):
        if doomed := {(job.tenant_id, job.id) for job, _, found in waits if found is state}:
            await tx.end_waiting_jobs(doomed, state, _lost(state))
            await tx.forget_waits(doomed)
    new = [(job.tenant_id, job.id) for job in jobs]
    await tx.release_jobs(new)
    return await tx.find_jobs(new)


def _lost(state: JobState) -> str:
    return f"a job that it depends on is {state.value}"


async def _answer_repeats(
    tx: QueueTransaction,
    jobs: Sequence[NewJob],
    placed: Mapping[UUID, PlacedJob],
    refused: Mapping[UUID, DomainError],
    repeats: Sequence[NewJob],
) -> list[PlacedJob | DomainError]:
    known = await tx.known_intents({job.intent for job in repeats})
    found = await tx.find_jobs({(job.tenant_id, known[job.intent][0]) for job in repeats if job.intent in known})

    def answer(job: NewJob) -> PlacedJob | DomainError:
        if job.id in placed:
            return placed[job.id]
        if job.intent not in known:
            return next(refused[twin.id] for twin in repeats if twin.intent == job.intent and twin.id in refused)
        job_id, digest = known[job.intent]
        if digest != job.digest() or job_id not in found:
            return IdempotencyKeyReused(
                "this idempotency key was used for another job; choose a new one for a new intent",
                idempotencyKey=job.idempotency_key,
            )
        return found[job_id]

    return [answer(job) for job in jobs]


async def get_job(store: Store, tenant_id: UUID, job_id: UUID) -> Job:
    """Read one job, live or ended."""
    async with store.transaction() as tx:
        return await _found(tx, tenant_id, job_id)


async def list_jobs(
    store: Store, tenant_id: UUID, *, states: Collection[JobState], kind: str, key: str, before: UUID | None, count: int
) -> list[Job]:
    """Read jobs, newest first."""
    async with store.transaction() as tx:
        return await tx.list_jobs(
            tenant_id, states=states, kind=kind, key=key, before=before or FIRST_PAGE, count=count
        )


async def _follow(tx: QueueTransaction, ended: Iterable[EndedJob]) -> bool:
    """Do what the end of jobs means to those that depend on them. Returns whether any may have its time now.

    Those that are released join no line here, which would need the locks of their keys: they wait for their time, which
    has come, and the next look finds them. Those that end stand in no line either.
    """
    released = 0
    gone = [job for job in ended if job.needed]
    while gone:
        dependents = await tx.lock_dependents([(job.tenant_id, job.id) for job in gone])
        await tx.forget_dependencies([(job.tenant_id, job.id) for job in gone])
        states = {(job.tenant_id, job.id): job.state for job in gone}
        lost: dict[JobState, list[tuple[UUID, UUID]]] = {JobState.DEAD: [], JobState.CANCELLED: []}
        for (tenant_id, job_id), needed in dependents.items():
            for state in {states[tenant_id, needed_id] for needed_id in needed} - {JobState.COMPLETED}:
                lost[state].append((tenant_id, job_id))
        gone = []
        for state, jobs in lost.items():
            if jobs:
                gone += [job for job in await tx.end_waiting_jobs(jobs, state, _lost(state)) if job.needed]
                await tx.forget_waits(jobs)
        if dependents:
            released += await tx.release_jobs(dependents.keys())
    return released > 0


async def cancel_job(store: Store, tenant_id: UUID, job_id: UUID) -> Job:
    """End a job that no worker has, or ask for the stop of one that a worker has. An ended job stays as it is."""
    async with store.transaction() as tx:
        if (key := await tx.key_of(tenant_id, job_id)) is not None:
            line = (tenant_id, key)
            await tx.lock_keys([line])
            state = await tx.lock_job(tenant_id, job_id)
            if state is JobState.LEASED:
                await tx.ask_to_stop(tenant_id, job_id)
            elif state is not None:
                ended = await tx.end_waiting_jobs([(tenant_id, job_id)], JobState.CANCELLED, "")
                await tx.forget_waits([(tenant_id, job_id)])
                await _follow(tx, ended)
                await tx.promote([line])
        return await _found(tx, tenant_id, job_id)


async def retry_job(store: Store, tenant_id: UUID, job_id: UUID) -> Job:
    """Give a dead job all its attempts again. It joins its line at the end."""
    async with store.transaction() as tx:
        ended = await tx.ended_job(tenant_id, job_id)
        if ended is None or ended[1] is not JobState.DEAD:
            job = await _found(tx, tenant_id, job_id)
            raise JobStateRefused("only a dead job can be retried", jobId=job_id, state=job.state.word)
        line = (tenant_id, ended[0])
        await tx.lock_keys([line])
        await tx.revive_job(tenant_id, job_id)
        await tx.promote([line])
        return await _found(tx, tenant_id, job_id)


async def _found(tx: QueueTransaction, tenant_id: UUID, job_id: UUID) -> Job:
    found = await tx.find_jobs([(tenant_id, job_id)])
    if job_id not in found:
        raise JobNotFound("no job has this id", jobId=job_id)
    return found[job_id].job


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
        released |= await _follow(tx, completed.needed)
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
    return freed, await _follow(tx, ended.values())


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


async def promote_due(store: Store) -> tuple[list[Place], float | None]:
    """Make ready what is due. Returns what is ready now, and in how many seconds the next is due."""
    async with store.transaction() as tx:
        ready = await tx.make_due_jobs_ready(MAX_BATCH)
        if due := await tx.due_keyed_jobs(MAX_BATCH):
            lines = {(tenant_id, key) for tenant_id, _, key in due}
            await tx.lock_keys(lines)
            await tx.join_lines(due)
            ready += await tx.promote(lines)
        return ready, await tx.next_due_seconds()


async def end_overdue(store: Store) -> tuple[Settled, bool, float | None]:
    """End the jobs whose deadline has passed, and ask for the stop of those that a worker has.

    Returns:
        What that did, whether a worker has to stop, and in how many seconds the next deadline passes.
    """
    async with store.transaction() as tx:
        overdue = await tx.overdue_jobs(MAX_BATCH)
        if not overdue:
            return Settled(), False, await tx.next_deadline_seconds()
        lines = {(tenant_id, key) for tenant_id, _, key in overdue}
        jobs = [(tenant_id, job_id) for tenant_id, job_id, _ in overdue]
        await tx.lock_keys(lines)
        ended = await tx.end_waiting_jobs(jobs, JobState.DEAD, OVERDUE)
        await tx.forget_waits(jobs)
        for tenant_id, job_id in set(jobs) - {(job.tenant_id, job.id) for job in ended}:
            await tx.ask_to_stop(tenant_id, job_id)
        released = await _follow(tx, ended)
        settled = Settled(freed=await tx.promote(lines), delayed=released)
        return settled, len(ended) < len(jobs), await tx.next_deadline_seconds()


async def pause(store: Store, kind: str) -> None:
    """Stop handing out a kind, or all. Every replica's next claim knows."""
    async with store.transaction() as tx:
        await tx.pause_kind(kind)


async def resume(store: Store, kind: str) -> None:
    """Hand out a kind again, or all."""
    async with store.transaction() as tx:
        await tx.resume_kind(kind)


async def count_jobs(store: Store) -> list[KindStats]:
    """Tell how the jobs of each kind stand."""
    async with store.transaction() as tx:
        return await tx.count_jobs()


async def put_schedule(store: Store, schedule: Schedule) -> Schedule:
    """Make a schedule, or change the one with its name."""
    async with store.transaction() as tx:
        await tx.put_schedule(schedule)
    return schedule


async def list_schedules(store: Store, tenant_id: UUID, after: str, count: int) -> list[Schedule]:
    """Read schedules by name."""
    async with store.transaction() as tx:
        return await tx.list_schedules(tenant_id, after, count)


async def delete_schedule(store: Store, tenant_id: UUID, name: str) -> None:
    """Remove a schedule."""
    async with store.transaction() as tx:
        await tx.delete_schedule(tenant_id, name)


async def due_schedules(store: Store) -> list[Schedule]:
    """Read the schedules with a tick that has come."""
    async with store.transaction() as tx:
        return await tx.due_schedules(MAX_BATCH)


async def advance_schedule(store: Store, schedule: Schedule, now: datetime) -> None:
    """Go on to the next tick: the job of this one is in."""
    async with store.transaction() as tx:
        await tx.advance_schedule(schedule, schedule.after(now).next_time)


async def set_share(store: Store, share: TenantShare) -> None:
    """Set what a tenant gets, of what waits now too."""
    async with store.transaction() as tx:
        await tx.put_share(share.tenant_id, share.weight, share.max_in_flight)
        await tx.move_to_lanes()


async def refresh_shares(store: Store, pace: Pace) -> int:
    """Take in what tenants get, and move what was on its way when that changed. Returns how many jobs were moved."""
    async with store.transaction() as tx:
        pace.share(await tx.shares())
        return await tx.move_to_lanes()


async def keep_pace(store: Store, pace: Pace, age: timedelta) -> None:
    """Tell other processes how far the virtual times have come here, and hear how far they have elsewhere."""
    async with store.telling.transaction() as tx:
        await tx.keep_pace(pace.moved())
        pace.heard(await tx.read_pace(age))


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


async def forget(store: Store) -> int:
    """Remove some of what has been kept long enough. Returns how much was."""
    async with store.transaction() as tx:
        return await tx.forget(count=5_000)
