"""Kinds of jobs: how they stand, and whether they are handed out."""

from services.queue.job import (
    KindStats,
)
from services.queue.store.rows import Rows


class KindRows(Rows):
    """Kinds of jobs: how they stand, and whether they are handed out."""

    async def pause_kind(self, kind: str) -> None:
        """Stop handing out a kind; the empty one stands for all."""
        await self._tx.run("pause_kind", kind=kind)

    async def resume_kind(self, kind: str) -> None:
        """Hand out a kind again; the empty one stands for all."""
        await self._tx.run("resume_kind", kind=kind)

    async def count_jobs(self) -> list[KindStats]:
        """How the jobs of each kind stand, by kind."""
        return [KindStats(**row) for row in await self._tx.many("count_jobs")]
