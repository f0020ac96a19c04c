"""Claims, and what becomes of leases."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from services.queue.heads import Place, Position, Stretch
from services.queue.job import (
    STATES,
    EndedJob,
    Held,
    JobState,
    Lease,
    LeasedJob,
    Outcome,
)
from services.queue.pace import Stride
from services.queue.store.rows import Rows, array_text, ended_of, ending_columns, lease_columns, lease_of, places_of


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


class LeaseRows(Rows):
    """Claims, and what becomes of leases."""

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
            turns=array_text(turns),
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
        return {row["token"]: lease_of(row) for row in await self._tx.many("lock_leases", **lease_columns(leases))}

    async def complete_leases(self, leases: Collection[Held]) -> Completed:
        """Move jobs that are done to the ended ones, those of them whose leases still stand."""
        completed = Completed()
        if not leases:
            return completed
        rows = await self._tx.many(
            "complete_leases",
            tenant_ids=array_text(lease.tenant_id for lease in leases),
            ids=array_text(lease.id for lease in leases),
            tokens=array_text(lease.token for lease in leases),
        )
        for row in rows:
            tokens = row["tokens"].split(",")
            completed.tokens.update(tokens)
            completed.states.extend([STATES[row["state"]]] * len(tokens))
            if row["needed"]:
                completed.needed.append(ended_of(row))
        return completed

    async def end_leases(self, endings: Collection[tuple[Lease, Outcome]]) -> dict[str, EndedJob]:
        """Move jobs to the ended ones, and return those whose leases still stood, by token."""
        if not endings:
            return {}
        rows = await self._tx.many("end_leases", **ending_columns(endings))
        return {row["token"]: ended_of(row) for row in rows}

    async def requeue_leases(self, endings: Collection[tuple[Lease, Outcome]]) -> list[Place]:
        """Give jobs back to the queue, now or after a delay. Returns those that are ready now."""
        if not endings:
            return []
        delays = [outcome.delay for _, outcome in endings]
        rows = await self._tx.many("requeue_leases", **ending_columns(endings), delays=delays)
        return places_of(row for row in rows if row["state"] == JobState.READY)

    async def settled_before(self, leases: Collection[Held]) -> set[str]:
        """The tokens of those leases that an earlier commit settled."""
        rows = await self._tx.many("settled_before", **lease_columns(leases))
        return {row["token"] for row in rows}

    async def cancelled_leases(self, sessions: Collection[UUID]) -> list[tuple[UUID, UUID, str]]:
        """Session, job and token of the leases whose workers have to stop."""
        rows = await self._tx.many("cancelled_leases", session_ids=list(sessions))
        return [(row["session_id"], row["id"], row["token"]) for row in rows]

    async def leases_of(self, sessions: Collection[UUID], count: int | None) -> list[Lease]:
        """The leases of sessions: all, or at most so many."""
        if not sessions:
            return []
        rows = await self._tx.many("leases_of", session_ids=list(sessions), count=count)
        return [lease_of(row) for row in rows]

    async def orphaned_leases(self, stop_grace: timedelta, count: int) -> list[Lease]:
        """The leases whose session is gone, or whose worker does not stop although it was asked to."""
        rows = await self._tx.many("orphaned_leases", stop_grace=stop_grace, count=count)
        return [lease_of(row) for row in rows]
