"""Jobs: put in, found, ended while they wait, and forgotten."""

from collections.abc import Collection, Sequence
from uuid import UUID

from services.queue.job import (
    STATES,
    EndedJob,
    Job,
    JobState,
    NewJob,
    PlacedJob,
)
from services.queue.pace import NOBODY
from services.queue.store.rows import Rows, array_text, ended_of, id_columns, job_of, placed_of


class JobRows(Rows):
    """Jobs: put in, found, ended while they wait, and forgotten."""

    async def enqueue(self, jobs: Sequence[NewJob], vts: Sequence[int]) -> dict[UUID, PlacedJob]:
        """Put in the jobs whose intent is new, each with its virtual time, and return those by id.

        The intents differ from each other.
        """
        rows = await self._tx.many(
            "enqueue_jobs",
            tenant_ids=array_text(job.tenant_id for job in jobs),
            ids=array_text(job.id for job in jobs),
            kinds=[job.kind for job in jobs],
            keys=[job.key for job in jobs],
            priorities=array_text(job.priority for job in jobs),
            max_attempts=array_text(job.max_attempts for job in jobs),
            payloads=[job.payload for job in jobs],
            idempotency_keys=[job.idempotency_key for job in jobs],
            digests=[job.digest() for job in jobs],
            trace_parents=[job.trace_parent for job in jobs],
            run_times=[job.run_time for job in jobs],
            vts=array_text(vts),
            deadlines=[job.deadline for job in jobs],
            depend=[array_text(job.depends_on) for job in jobs],
        )
        asked = {job.id: job for job in jobs}
        return {row["id"]: placed_of(asked[row["id"]], row) for row in rows}

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
        return {row["id"]: PlacedJob(job_of(row), row["position"]) for row in rows}

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
        return [job_of(row) for row in rows]

    async def end_waiting_jobs(
        self, jobs: Collection[tuple[UUID, UUID]], state: JobState, error: str
    ) -> list[EndedJob]:
        """End those jobs, by tenant and id, that no worker has, and return them."""
        rows = await self._tx.many(
            "end_waiting_jobs", **id_columns(jobs), states=[state.value] * len(jobs), errors=[error] * len(jobs)
        )
        return [ended_of(row) for row in rows]

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

    async def revive_job(self, tenant_id: UUID, job_id: UUID) -> None:
        """Put a dead job back at the end of its line, as blocked if it has one. The key is locked."""
        await self._tx.run("revive_job", tenant_id=tenant_id, id=job_id)

    async def forget(self, count: int) -> int:
        """Remove what has been kept long enough. Returns how much was."""
        await self._tx.run("forget_pace", nobody=NOBODY)
        intents = await self._tx.run("forget_intents", count=count)
        return intents + await self._tx.run("forget_ended_jobs", count=count)
