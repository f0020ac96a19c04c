"""The lines of keys, and what waits for a time."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from services.queue.heads import Place
from services.queue.store.rows import (
    LineKey,
    Rows,
    lock_number,
    places_of,
)


class LineRows(Rows):
    """The lines of keys, and what waits for a time."""

    async def lock_keys(self, keys: Iterable[LineKey]) -> None:
        """Let nobody else change the lines of these keys until the transaction ends."""
        if numbers := sorted({lock_number(tenant_id, key) for tenant_id, key in keys if key}):
            await self._tx.run("lock_keys", numbers=numbers)

    async def promote(self, keys: Iterable[LineKey]) -> list[Place]:
        """Make ready the next job of each line that has no head. The keys are locked. Returns those that were."""
        lines = sorted({line for line in keys if line[1]})
        if not lines:
            return []
        return places_of(
            await self._tx.many(
                "promote_keys", tenant_ids=[tenant_id for tenant_id, _ in lines], keys=[key for _, key in lines]
            )
        )

    async def make_due_jobs_ready(self, count: int) -> list[Place]:
        """Make ready what waited for its time and has no line to join. Returns those that were."""
        return places_of(await self._tx.many("make_due_jobs_ready", count=count))

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

    async def overdue_jobs(self, count: int) -> list[tuple[UUID, UUID, str]]:
        """Tenant, id and key of the jobs whose deadline has passed and whose workers were not told to stop."""
        rows = await self._tx.many("overdue_jobs", count=count)
        return [(row["tenant_id"], row["id"], row["key"]) for row in rows]

    async def next_deadline_seconds(self) -> float | None:
        """In how many seconds the next deadline passes, if there is one."""
        row = await self._tx.one("next_deadline")
        return row["seconds"] if row else None
