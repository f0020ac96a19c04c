"""What jobs mean to those that depend on them, within the transaction of another verb."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from services.kit.errors import DomainError
from services.queue.job import (
    ENDED,
    EndedJob,
    JobNotFound,
    JobState,
    NewJob,
    PlacedJob,
)
from services.queue.store import QueueTransaction


@dataclass(frozen=True, slots=True)
class Needs:
    """What new jobs depend on: the state of each by tenant and id, ready standing for all that live; who is refused."""

    states: dict[tuple[UUID, UUID], JobState]
    refused: dict[UUID, DomainError]


async def needs(tx: QueueTransaction, jobs: Sequence[NewJob]) -> Needs:
    """Hold what new jobs depend on, so that none of it ends before they are in."""
    if not jobs:
        return Needs({}, {})
    wanted = sorted({(job.tenant_id, needed_id) for job in jobs for needed_id in job.depends_on})
    living = await tx.need_jobs(wanted)
    # Read after the marking, which waits for a commit that ends one of them just now.
    ended = await tx.ended_states([needed for needed in wanted if needed not in living])
    states = dict.fromkeys(living, JobState.READY) | ended
    return Needs(
        states,
        {
            job.id: JobNotFound("no job has this id", jobId=missing[0])
            for job in jobs
            if (missing := [needed for needed in job.depends_on if (job.tenant_id, needed) not in states])
        },
    )


async def depend(tx: QueueTransaction, jobs: Sequence[NewJob], needs: Needs) -> dict[UUID, PlacedJob]:
    """Let new jobs wait for what lives of what they depend on; end or release those that wait for nothing."""
    waits = [(job, needed, needs.states[job.tenant_id, needed]) for job in jobs for needed in job.depends_on]
    await tx.put_dependencies([(job.tenant_id, job.id, needed) for job, needed, state in waits if state not in ENDED])
    for state in (JobState.DEAD, JobState.CANCELLED):
        if doomed := {(job.tenant_id, job.id) for job, _, found in waits if found is state}:
            await tx.end_waiting_jobs(doomed, state, why_lost(state))
            await tx.forget_waits(doomed)
    new = [(job.tenant_id, job.id) for job in jobs]
    await tx.release_jobs(new)
    return await tx.find_jobs(new)


def why_lost(state: JobState) -> str:
    """Why a job ended whose need did not end well."""
    return f"a job that it depends on is {state.value}"


async def follow(tx: QueueTransaction, ended: Iterable[EndedJob]) -> bool:
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
                gone += [job for job in await tx.end_waiting_jobs(jobs, state, why_lost(state)) if job.needed]
                await tx.forget_waits(jobs)
        if dependents:
            released += await tx.release_jobs(dependents.keys())
    return released > 0
