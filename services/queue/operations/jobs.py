"""Jobs that wait or have ended."""

from collections.abc import Collection
from uuid import UUID

from services.queue.heads import Place
from services.queue.job import (
    MAX_BATCH,
    OVERDUE,
    Job,
    JobNotFound,
    JobState,
    JobStateRefused,
)
from services.queue.operations.dependencies import follow
from services.queue.operations.leases import Settled
from services.queue.store import QueueTransaction, Store

FIRST_PAGE = UUID(int=2**128 - 1)


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


async def cancel_job(store: Store, tenant_id: UUID, job_id: UUID) -> Job:
    """End a job that no worker has, or ask for the stop of one that a worker has. An ended job stays as it is."""
    async with store.transaction() as tx:
        if (key := await tx.key_of(tenant_id, job_id)) is not None:
            line = (tenant_id, key)
            await tx.lock_keys([line])
            state = await tx.lock_job(tenant_id, job_id)
            if state is not None:
                await tx.record("admin.job_cancel", f"job:{job_id}", tenant_id=tenant_id, state=state.word)
            if state is JobState.LEASED:
                await tx.ask_to_stop(tenant_id, job_id)
            elif state is not None:
                ended = await tx.end_waiting_jobs([(tenant_id, job_id)], JobState.CANCELLED, "")
                await tx.forget_waits([(tenant_id, job_id)])
                await follow(tx, ended)
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
        await tx.record("admin.job_retry", f"job:{job_id}", tenant_id=tenant_id)
        await tx.promote([line])
        return await _found(tx, tenant_id, job_id)


async def _found(tx: QueueTransaction, tenant_id: UUID, job_id: UUID) -> Job:
    found = await tx.find_jobs([(tenant_id, job_id)])
    if job_id not in found:
        raise JobNotFound("no job has this id", jobId=job_id)
    return found[job_id].job


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
        released = await follow(tx, ended)
        settled = Settled(freed=await tx.promote(lines), delayed=released)
        return settled, len(ended) < len(jobs), await tx.next_deadline_seconds()


async def forget(store: Store) -> int:
    """Remove some of what has been kept long enough. Returns how much was."""
    async with store.transaction() as tx:
        return await tx.forget(count=5_000)
