"""Which job waits for which."""

from collections.abc import Collection
from uuid import UUID

from services.queue.job import (
    STATES,
    JobState,
)
from services.queue.store.rows import Rows, id_columns


class DependencyRows(Rows):
    """Which job waits for which."""

    async def need_jobs(self, jobs: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
        """Mark jobs as needed, and return those that live, by tenant and id."""
        rows = await self._tx.many("need_jobs", **id_columns(jobs))
        return {(row["tenant_id"], row["id"]) for row in rows}

    async def ended_states(self, jobs: Collection[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], JobState]:
        """How those jobs have ended that have, by tenant and id."""
        rows = await self._tx.many("ended_states", **id_columns(jobs))
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
        for row in await self._tx.many("lock_dependents", **id_columns(jobs)):
            found.setdefault((row["tenant_id"], row["id"]), set()).add(row["needed_id"])
        return found

    async def forget_dependencies(self, jobs: Collection[tuple[UUID, UUID]]) -> None:
        """Remove what these jobs were needed for."""
        await self._tx.run("forget_dependencies", **id_columns(jobs))

    async def forget_waits(self, jobs: Collection[tuple[UUID, UUID]]) -> None:
        """Remove what these jobs waited for."""
        await self._tx.run("forget_waits", **id_columns(jobs))

    async def release_jobs(self, jobs: Collection[tuple[UUID, UUID]]) -> int:
        """Let those of these jobs that wait for no other any more wait for their time. Returns how many do."""
        return await self._tx.run("release_jobs", **id_columns(jobs))
