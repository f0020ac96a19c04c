"""Kinds of jobs: how they stand, and whether they are handed out."""

from services.kit.tenancy import SYSTEM
from services.queue.job import (
    KindStats,
)
from services.queue.store import Store


async def pause(store: Store, kind: str) -> None:
    """Stop handing out a kind, or all. Every replica's next claim knows."""
    async with store.transaction(SYSTEM) as tx:
        await tx.pause_kind(kind)
        await tx.record("admin.queue_pause", _target(kind))


async def resume(store: Store, kind: str) -> None:
    """Hand out a kind again, or all."""
    async with store.transaction(SYSTEM) as tx:
        await tx.resume_kind(kind)
        await tx.record("admin.queue_resume", _target(kind))


async def count_jobs(store: Store) -> list[KindStats]:
    """Tell how the jobs of each kind stand."""
    async with store.transaction(SYSTEM) as tx:
        return await tx.count_jobs()


def _target(kind: str) -> str:
    return f"queue:{kind}" if kind else "queue"
