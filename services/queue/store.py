"""The queue's tables: named queries in, nouns out.

Each of the busy loops has a line of its own to the database: no pool stands in its way, and its plans suit its work.
The rest shares the pool.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import psycopg
from psycopg.rows import dict_row, tuple_row

from services.kit.errors import ServiceUnavailable
from services.kit.postgres import Database, Row, Transaction
from services.kit.queries import load_queries
from services.queue.heads import Place, Position, Stretch
from services.queue.job import (
    STATES,
    EndedJob,
    Held,
    Job,
    JobState,
    KindStats,
    Lease,
    LeasedJob,
    NewJob,
    Outcome,
    PlacedJob,
)
from services.queue.pace import NOBODY, Mark, Stride, TenantShare
from services.queue.schedule import Schedule

QUERIES = load_queries(Path(__file__).with_name("queries.sql"))
SCHEMA = "queue"
CHANNEL = "queue"

# The statistics of a queue are wrong by nature: the table is empty now and full in a second. Plans are made once, and
# always go by index.
STEADY_PLANS = "-c jit=off -c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
ROW_BY_ROW = "-c enable_hashjoin=off -c enable_mergejoin=off"

LineKey = tuple[UUID, str]


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim took.

    Attributes:
        leased: The jobs of each session, in their order.
        reached: How far it came in each stretch that it took from.
        served: The virtual time up to which jobs of each kind and priority are served.
    """

    leased: dict[UUID, list[LeasedJob]]
    reached: dict[Stretch, Position]
    served: dict[Stride, int]


@dataclass(frozen=True, slots=True)
class Completed:
    """Leases that ended with the completion of their jobs: tokens, states, and the jobs that others may depend on."""

    tokens: set[str] = field(default_factory=set)
    states: list[JobState] = field(default_factory=list)
    needed: list[EndedJob] = field(default_factory=list)


class QuickTransaction(Transaction):
    """A transaction that can also read many rows fast."""

    async def tuples(self, name: str, **params: object) -> list[tuple[Any, ...]]:
        """Run a named query and return its rows as tuples, read in the database's binary form."""
        async with self._connection.cursor(row_factory=tuple_row, binary=True) as cursor:
            return await (await cursor.execute(self._queries[name], params)).fetchall()


class QueueTransaction:
    """One transaction on the queue's tables."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    @property
    def _quick(self) -> QuickTransaction:
        if not isinstance(self._tx, QuickTransaction):
            raise TypeError("this belongs to a busy loop, which has a line of its own")
        return self._tx

    async def lock_keys(self, keys: Iterable[LineKey]) -> None:
        """Let nobody else change the lines of these keys until the transaction ends."""
        if numbers := sorted({_lock_number(tenant_id, key) for tenant_id, key in keys if key}):
            await self._tx.run("lock_keys", numbers=numbers)

    async def enqueue(self, jobs: Sequence[NewJob], vts: Sequence[int]) -> dict[UUID, PlacedJob]:
        """Put in the jobs whose intent is new, each with its virtual time, and return those by id.

        The intents differ from each other.
        """
        rows = await self._tx.many(
            "enqueue_jobs",
            tenant_ids=_array(job.tenant_id for job in jobs),
            ids=_array(job.id for job in jobs),
            kinds=[job.kind for job in jobs],
            keys=[job.key for job in jobs],
            priorities=_array(job.priority for job in jobs),
            max_attempts=_array(job.max_attempts for job in jobs),
            payloads=[job.payload for job in jobs],
            idempotency_keys=[job.idempotency_key for job in jobs],
            digests=[job.digest() for job in jobs],
            trace_parents=[job.trace_parent for job in jobs],
            run_times=[job.run_time for job in jobs],
            vts=_array(vts),
            deadlines=[job.deadline for job in jobs],
            depend=[_array(job.depends_on) for job in jobs],
        )
        asked = {job.id: job for job in jobs}
        return {row["id"]: _placed(asked[row["id"]], row) for row in rows}

    async def known_intents(self, intents: Collection[tuple[UUID, str]]) -> dict[tuple[UUID, str], tuple[UUID, bytes]]:
        """The job and the digest that stand for each intent."""
        rows = await self._tx.many(
            "known_intents",
            tenant_ids=[tenant_id for tenant_id, _ in intents],
            idempotency_keys=[key for _, key in intents],
        )
        return {(row["tenant_id"], row["idempotency_key"]): (row["job_id"], row["digest"]) for row in rows}

    async def find_jobs(self, ids: Collection[tuple[UUID, UUID]]) -> dict[UUID, PlacedJob]:
        """The jobs, live or ended, that these tenants have under these ids."""
        rows = await self._tx.many(
            "find_jobs", tenant_ids=[tenant_id for tenant_id, _ in ids], ids=[job_id for _, job_id in ids]
        )
        return {row["id"]: PlacedJob(_job(row), row["position"]) for row in rows}

    async def list_jobs(
        self, tenant_id: UUID, *, states: Collection[JobState], kind: str, key: str, before: UUID, count: int
    ) -> list[Job]:
        """Jobs with ids below one, newest first. No states means all."""
        rows = await self._tx.many(
            "list_jobs",
            tenant_id=tenant_id,
            every_state=not states,
            states=[state.value for state in states],
            kind=kind,
            key=key,
            before=before,
            count=count,
        )
        return [_job(row) for row in rows]

    async def claim(
        self, asked: Mapping[Stretch, tuple[int, Position]], sessions: Sequence[UUID], turns: Sequence[int]
    ) -> Claimed:
        """Lease ready jobs, one for each turn, in the order in which they have to run.

        Args:
            asked: From which stretches, how many at most, and from where on.
            sessions: Who gets them.
            turns: Whose each next job is: the number of a session, counted from 1.
        """
        rows = await self._quick.tuples(
            "claim_jobs",
            kinds=[kind for kind, _ in asked],
            lanes=[lane for _, lane in asked],
            rooms=[room for room, _ in asked.values()],
            priorities=[position[0] for _, position in asked.values()],
            vts=[position[1] for _, position in asked.values()],
            session_ids=list(sessions),
            turns=_array(turns),
        )
        rows.sort()
        jobs = list(map(LeasedJob._make, rows))
        leased: dict[UUID, list[LeasedJob]] = {}
        for number, session in enumerate(sessions, 1):
            if mine := [job for job in jobs if job.session == number] if len(sessions) > 1 else jobs:
                leased[session] = mine
        reached = {(job.kind, job.lane): (job.priority, job.vt) for job in jobs}
        return Claimed(leased, reached, {(job.kind, job.priority): job.vt for job in jobs})

    async def lock_lanes(self, lanes: Collection[int]) -> None:
        """Let nobody else claim from these lanes until the transaction ends."""
        await self._tx.run("lock_lanes", lanes=sorted(lanes))

    async def rooms_in_lanes(self, lanes: Collection[int]) -> dict[int, int]:
        """How many more jobs may run in each of these lanes, of those that still have a limit."""
        rows = await self._tx.many("rooms_in_lanes", lanes=list(lanes))
        return {row["lane"]: row["room"] for row in rows}

    async def lock_leases(self, leases: Collection[Held]) -> dict[str, Lease]:
        """Those leases that still stand, as they are now, by token. Their jobs are held until the transaction ends."""
        if not leases:
            return {}
        return {row["token"]: _lease(row) for row in await self._tx.many("lock_leases", **_lease_columns(leases))}

    async def complete_leases(self, leases: Collection[Held]) -> Completed:
        """Move jobs that are done to the ended ones, those of them whose leases still stand."""
        completed = Completed()
        if not leases:
            return completed
        rows = await self._tx.many(
            "complete_leases",
            tenant_ids=_array(lease.tenant_id for lease in leases),
            ids=_array(lease.id for lease in leases),
            tokens=_array(lease.token for lease in leases),
        )
        for row in rows:
            tokens = row["tokens"].split(",")
            completed.tokens.update(tokens)
            completed.states.extend([STATES[row["state"]]] * len(tokens))
            if row["needed"]:
                completed.needed.append(_ended(row))
        return completed

    async def end_leases(self, endings: Collection[tuple[Lease, Outcome]]) -> dict[str, EndedJob]:
        """Move jobs to the ended ones, and return those whose leases still stood, by token."""
        if not endings:
            return {}
        rows = await self._tx.many("end_leases", **_ending_columns(endings))
        return {row["token"]: _ended(row) for row in rows}

    async def end_waiting_jobs(
        self, jobs: Collection[tuple[UUID, UUID]], state: JobState, error: str
    ) -> list[EndedJob]:
        """End those jobs, by tenant and id, that no worker has, and return them."""
        rows = await self._tx.many(
            "end_waiting_jobs", **_id_columns(jobs), states=[state.value] * len(jobs), errors=[error] * len(jobs)
        )
        return [_ended(row) for row in rows]

    async def need_jobs(self, jobs: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
        """Mark jobs as needed, and return those that live, by tenant and id."""
        rows = await self._tx.many("need_jobs", **_id_columns(jobs))
        return {(row["tenant_id"], row["id"]) for row in rows}

    async def ended_states(self, jobs: Collection[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], JobState]:
        """How those jobs have ended that have, by tenant and id."""
        rows = await self._tx.many("ended_states", **_id_columns(jobs))
        return {(row["tenant_id"], row["id"]): STATES[row["state"]] for row in rows}

    async def put_dependencies(self, waits: Collection[tuple[UUID, UUID, UUID]]) -> None:
        """Remember which job waits for which: tenant, job, and the one that it needs."""
        await self._tx.run(
            "put_dependencies",
            tenant_ids=[tenant_id for tenant_id, _, _ in waits],
            ids=[job_id for _, job_id, _ in waits],
            needed_ids=[needed_id for _, _, needed_id in waits],
        )

    async def lock_dependents(self, jobs: Collection[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], set[UUID]]:
        """The jobs that wait for these, with what they need of these. They are held until the transaction ends."""
        found: dict[tuple[UUID, UUID], set[UUID]] = {}
        for row in await self._tx.many("lock_dependents", **_id_columns(jobs)):
            found.setdefault((row["tenant_id"], row["id"]), set()).add(row["needed_id"])
        return found

    async def forget_dependencies(self, jobs: Collection[tuple[UUID, UUID]]) -> None:
        """Remove what these jobs were needed for."""
        await self._tx.run("forget_dependencies", **_id_columns(jobs))

    async def forget_waits(self, jobs: Collection[tuple[UUID, UUID]]) -> None:
        """Remove what these jobs waited for."""
        await self._tx.run("forget_waits", **_id_columns(jobs))

    async def release_jobs(self, jobs: Collection[tuple[UUID, UUID]]) -> int:
        """Let those of these jobs that wait for no other any more wait for their time. Returns how many do."""
        return await self._tx.run("release_jobs", **_id_columns(jobs))

    async def overdue_jobs(self, count: int) -> list[tuple[UUID, UUID, str]]:
        """Tenant, id and key of the jobs whose deadline has passed and whose workers were not told to stop."""
        rows = await self._tx.many("overdue_jobs", count=count)
        return [(row["tenant_id"], row["id"], row["key"]) for row in rows]

    async def next_deadline_seconds(self) -> float | None:
        """In how many seconds the next deadline passes, if there is one."""
        row = await self._tx.one("next_deadline")
        return row["seconds"] if row else None

    async def requeue_leases(self, endings: Collection[tuple[Lease, Outcome]]) -> list[Place]:
        """Give jobs back to the queue, now or after a delay. Returns those that are ready now."""
        if not endings:
            return []
        delays = [outcome.delay for _, outcome in endings]
        rows = await self._tx.many("requeue_leases", **_ending_columns(endings), delays=delays)
        return _places(row for row in rows if row["state"] == JobState.READY)

    async def settled_before(self, leases: Collection[Held]) -> set[str]:
        """The tokens of those leases that an earlier commit settled."""
        rows = await self._tx.many("settled_before", **_lease_columns(leases))
        return {row["token"] for row in rows}

    async def promote(self, keys: Iterable[LineKey]) -> list[Place]:
        """Make ready the next job of each line that has no head. The keys are locked. Returns those that were."""
        lines = sorted({line for line in keys if line[1]})
        if not lines:
            return []
        return _places(
            await self._tx.many(
                "promote_keys", tenant_ids=[tenant_id for tenant_id, _ in lines], keys=[key for _, key in lines]
            )
        )

    async def make_due_jobs_ready(self, count: int) -> list[Place]:
        """Make ready what waited for its time and has no line to join. Returns those that were."""
        return _places(await self._tx.many("make_due_jobs_ready", count=count))

    async def due_keyed_jobs(self, count: int) -> list[tuple[UUID, UUID, str]]:
        """Tenant, id and key of the jobs whose time has come and that have a line to join."""
        rows = await self._tx.many("due_keyed_jobs", count=count)
        return [(row["tenant_id"], row["id"], row["key"]) for row in rows]

    async def join_lines(self, jobs: Sequence[tuple[UUID, UUID, str]]) -> None:
        """Put jobs whose time has come into their lines, as blocked. The keys are locked."""
        await self._tx.run("join_lines", tenant_ids=[job[0] for job in jobs], ids=[job[1] for job in jobs])

    async def next_due_seconds(self) -> float | None:
        """In how many seconds the next job is due, if one waits for its time."""
        row = await self._tx.one("next_due_time")
        return row["seconds"] if row else None

    async def key_of(self, tenant_id: UUID, job_id: UUID) -> str | None:
        """The key of a live job, empty if it has none. None when no such job lives."""
        row = await self._tx.one("key_of_job", tenant_id=tenant_id, id=job_id)
        return row["key"] if row else None

    async def lock_job(self, tenant_id: UUID, job_id: UUID) -> JobState | None:
        """The state of a live job, which is held until the transaction ends."""
        row = await self._tx.one("lock_job", tenant_id=tenant_id, id=job_id)
        return STATES[row["state"]] if row else None

    async def ended_job(self, tenant_id: UUID, job_id: UUID) -> tuple[str, JobState] | None:
        """The key and the state of an ended job, which is held until the transaction ends."""
        row = await self._tx.one("ended_job", tenant_id=tenant_id, id=job_id)
        return (row["key"], STATES[row["state"]]) if row else None

    async def ask_to_stop(self, tenant_id: UUID, job_id: UUID) -> None:
        """Mark a job that a worker has, so that the worker is told to stop."""
        await self._tx.run("ask_to_stop", tenant_id=tenant_id, id=job_id)

    async def cancelled_leases(self, sessions: Collection[UUID]) -> list[tuple[UUID, UUID, str]]:
        """Session, job and token of the leases whose workers have to stop."""
        rows = await self._tx.many("cancelled_leases", session_ids=list(sessions))
        return [(row["session_id"], row["id"], row["token"]) for row in rows]

    async def revive_job(self, tenant_id: UUID, job_id: UUID) -> None:
        """Put a dead job back at the end of its line, as blocked if it has one. The key is locked."""
        await self._tx.run("revive_job", tenant_id=tenant_id, id=job_id)

    async def open_session(
        self, session_id: UUID, instance: str, worker_id: str, kinds: Collection[str], duration: timedelta
    ) -> None:
        """Remember the stream of a worker."""
        await self._tx.run(
            "open_session",
            id=session_id,
            instance=instance,
            worker_id=worker_id,
            kinds=sorted(kinds),
            duration=duration,
        )

    async def renew_sessions(self, sessions: Collection[UUID], duration: timedelta) -> set[UUID]:
        """Keep sessions for another while, and return those that are still there."""
        rows = await self._tx.many("renew_sessions", ids=list(sessions), duration=duration)
        return {row["id"] for row in rows}

    async def close_sessions(self, sessions: Collection[UUID]) -> None:
        """Forget sessions."""
        if sessions:
            await self._tx.run("close_sessions", ids=list(sessions))

    async def close_expired_sessions(self, living: Collection[UUID]) -> int:
        """Forget the sessions that nobody renewed and that are not known to live. Returns how many there were."""
        return await self._tx.run("close_expired_sessions", living=list(living))

    async def close_sessions_of(self, instance: str) -> int:
        """Forget the sessions of one Queue process. Returns how many there were."""
        return await self._tx.run("close_sessions_of", instance=instance)

    async def leases_of(self, sessions: Collection[UUID], count: int | None) -> list[Lease]:
        """The leases of sessions: all, or at most so many."""
        if not sessions:
            return []
        rows = await self._tx.many("leases_of", session_ids=list(sessions), count=count)
        return [_lease(row) for row in rows]

    async def orphaned_leases(self, stop_grace: timedelta, count: int) -> list[Lease]:
        """The leases whose session is gone, or whose worker does not stop although it was asked to."""
        rows = await self._tx.many("orphaned_leases", stop_grace=stop_grace, count=count)
        return [_lease(row) for row in rows]

    async def pause_kind(self, kind: str) -> None:
        """Stop handing out a kind; the empty one stands for all."""
        await self._tx.run("pause_kind", kind=kind)

    async def resume_kind(self, kind: str) -> None:
        """Hand out a kind again; the empty one stands for all."""
        await self._tx.run("resume_kind", kind=kind)

    async def count_jobs(self) -> list[KindStats]:
        """How the jobs of each kind stand, by kind."""
        return [KindStats(**row) for row in await self._tx.many("count_jobs")]

    async def put_schedule(self, schedule: Schedule) -> None:
        """Make a schedule, or change the one with its name."""
        fields = asdict(schedule)
        await self._tx.run("put_schedule", called=fields.pop("name"), **fields)

    async def list_schedules(self, tenant_id: UUID, after: str, count: int) -> list[Schedule]:
        """Schedules with names after one, by name."""
        rows = await self._tx.many("list_schedules", tenant_id=tenant_id, after=after, count=count)
        return [Schedule(**row) for row in rows]

    async def delete_schedule(self, tenant_id: UUID, name: str) -> None:
        """Remove a schedule."""
        await self._tx.run("delete_schedule", tenant_id=tenant_id, called=name)

    async def due_schedules(self, count: int) -> list[Schedule]:
        """The schedules with a tick that has come."""
        return [Schedule(**row) for row in await self._tx.many("due_schedules", count=count)]

    async def advance_schedule(self, schedule: Schedule, next_time: datetime) -> None:
        """Go on to the next tick, unless somebody else has."""
        await self._tx.run(
            "advance_schedule",
            tenant_id=schedule.tenant_id,
            called=schedule.name,
            tick=schedule.next_time,
            next_time=next_time,
        )

    async def put_share(self, tenant_id: UUID, weight: int, max_in_flight: int) -> None:
        """Set what a tenant gets."""
        await self._tx.run("put_share", tenant_id=tenant_id, weight=weight, max_in_flight=max_in_flight)

    async def move_to_lanes(self) -> int:
        """Move jobs of tenants whose share was changed of late to where they belong. Returns how many were."""
        return await self._tx.run("move_to_lanes")

    async def shares(self) -> list[TenantShare]:
        """What tenants get, of those that do not get what everybody gets."""
        return [TenantShare(**row) for row in await self._tx.many("shares")]

    async def keep_pace(self, marks: Collection[Mark]) -> None:
        """Write down how far the virtual times have come."""
        if marks:
            await self._tx.run(
                "keep_pace",
                kinds=[mark.kind for mark in marks],
                priorities=[mark.priority for mark in marks],
                tenant_ids=[mark.tenant_id for mark in marks],
                vts=[mark.vt for mark in marks],
            )

    async def read_pace(self, age: timedelta) -> list[Mark]:
        """The marks that were changed not longer ago than this."""
        return [Mark(**row) for row in await self._tx.many("read_pace", age=age)]

    async def forget(self, count: int) -> int:
        """Remove what has been kept long enough. Returns how much was."""
        await self._tx.run("forget_pace", nobody=NOBODY)
        intents = await self._tx.run("forget_intents", count=count)
        return intents + await self._tx.run("forget_ended_jobs", count=count)


class Line:
    """One connection for one loop: opened when it is needed, and opened anew after it broke.

    Args:
        url: The address of the database.
        options: Settings of its session.
    """

    def __init__(self, url: str, options: str) -> None:
        self._url = url
        self._options = options
        self._connection: psycopg.AsyncConnection[Row] | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[QueueTransaction]:
        """A transaction of several statements."""
        async with self._connected() as connection, connection.transaction():
            yield QueueTransaction(QuickTransaction(connection, QUERIES))

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[QueueTransaction]:
        """Single statements, each a transaction of its own."""
        async with self._connected() as connection:
            yield QueueTransaction(QuickTransaction(connection, QUERIES))

    async def tell_others(self, instance: str) -> None:
        """Hint to the other Queue processes that there is something to do."""
        async with self._connected() as connection:
            await connection.execute(QUERIES["tell_others"], {"instance": instance})

    async def told_by_others(self, instance: str) -> AsyncIterator[None]:
        """Listen to the hints of the other Queue processes. The first comes when the listening begins."""
        async with self._connected() as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            yield
            async for hint in connection.notifies():
                if hint.payload != instance:
                    yield

    async def close(self) -> None:
        """Close the connection, until it is needed again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection[Row]]:
        async with self._turn:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = await self._connect()
                yield self._connection
            except psycopg.OperationalError as error:
                await self.close()
                raise ServiceUnavailable(
                    "the database cannot be reached just now; try again in a moment", service="database"
                ) from error

    async def _connect(self) -> psycopg.AsyncConnection[Row]:
        return await psycopg.AsyncConnection[Row].connect(
            self._url,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=5,
            prepare_threshold=1,
            application_name=f"oiab-{SCHEMA}",
            options=f"-c search_path={SCHEMA},public -c idle_in_transaction_session_timeout=60s {self._options}",
        )


class Store:
    """The queue's tables, and the lines to them.

    Args:
        url: The address of the database in libpq's form.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url, SCHEMA, QUERIES, size=16)
        self.enqueueing = Line(url, STEADY_PLANS)
        # A claim that a crash of the database undoes is only made again, so it need not wait for the disk.
        self.claiming = Line(url, f"{STEADY_PLANS} {ROW_BY_ROW} -c synchronous_commit=off")
        self.settling = Line(url, f"{STEADY_PLANS} {ROW_BY_ROW}")
        # A renewal that waits for callers or for the disk is a lease lost; one that a crash undoes comes again.
        self.renewing = Line(url, "-c synchronous_commit=off")
        self.telling = Line(url, "-c synchronous_commit=off")
        self.listening = Line(url, "")

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for line in (self.enqueueing, self.claiming, self.settling, self.renewing, self.telling, self.listening):
            await line.close()
        await self._database.__aexit__()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[QueueTransaction]:
        """A transaction on a connection of the pool."""
        async with self._database.transaction() as tx:
            yield QueueTransaction(tx)


def _lock_number(tenant_id: UUID, key: str) -> int:
    """The number of the advisory lock of a line."""
    digest = hashlib.blake2b(key.encode(), key=tenant_id.bytes, digest_size=8, person=b"queue-line").digest()
    return int.from_bytes(digest, signed=True)


def _places(rows: Iterable[Row]) -> list[Place]:
    return [(row["kind"], row["priority"], row["vt"]) for row in rows]


def _placed(asked: NewJob, row: Row) -> PlacedJob:
    job = Job(
        tenant_id=asked.tenant_id,
        id=asked.id,
        kind=asked.kind,
        key=asked.key,
        state=STATES[row["state"]],
        priority=asked.priority,
        attempt=0,
        max_attempts=asked.max_attempts,
        payload=asked.payload,
        idempotency_key=asked.idempotency_key,
        run_time=row["run_time"],
        create_time=row["create_time"],
        trace_parent=asked.trace_parent,
        deadline=asked.deadline,
        depends_on=asked.depends_on,
        vt=row["vt"],
    )
    return PlacedJob(job, row["position"])


def _job(row: Row) -> Job:
    return Job(
        tenant_id=row["tenant_id"],
        id=row["id"],
        kind=row["kind"],
        key=row["key"],
        state=STATES[row["state"]],
        priority=row["priority"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        payload=row["payload"],
        idempotency_key=row["idempotency_key"],
        run_time=row["run_time"],
        create_time=row["create_time"],
        trace_parent=row["trace_parent"],
        last_error=row["last_error"],
        end_time=row.get("end_time"),
        deadline=row["deadline"],
        depends_on=tuple(row["depends_on"] or ()),
        vt=row.get("vt", 0),
    )


def _lease(row: Row) -> Lease:
    return Lease(
        tenant_id=row["tenant_id"],
        id=row["id"],
        key=row["key"],
        token=row["token"],
        session_id=row["session_id"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        cancelled=row.get("cancelled", False),
        overdue=row.get("overdue", False),
    )


def _array(values: Iterable[UUID | str | int]) -> str:
    """An array as text, of values that need no quotes: in large ones this saves a third of the way in."""
    return "{" + ",".join(map(str, values)) + "}"


def _ended(row: Row) -> EndedJob:
    return EndedJob(row["tenant_id"], row["id"], STATES[row["state"]], row["needed"])


def _id_columns(jobs: Collection[tuple[UUID, UUID]]) -> dict[str, list[UUID]]:
    return {"tenant_ids": [tenant_id for tenant_id, _ in jobs], "ids": [job_id for _, job_id in jobs]}


def _lease_columns(leases: Collection[Held]) -> dict[str, Any]:
    return {
        "tenant_ids": [str(lease.tenant_id) for lease in leases],
        "ids": [str(lease.id) for lease in leases],
        "tokens": [lease.token for lease in leases],
    }


def _ending_columns(endings: Collection[tuple[Lease, Outcome]]) -> dict[str, list[Any]]:
    return {
        **_lease_columns([lease for lease, _ in endings]),
        "states": [outcome.state.value for _, outcome in endings],
        "errors": [outcome.error for _, outcome in endings],
        "settled": [outcome.settled for _, outcome in endings],
    }
