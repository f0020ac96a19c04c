"""Jobs that come again and again."""

from uuid import UUID

from services.queue.job import (
    MAX_BATCH,
)
from services.queue.schedule import Schedule
from services.queue.store import Store


async def put_schedule(store: Store, wanted: Schedule) -> Schedule:
    """Make a schedule, or change the one with its name."""
    async with store.transaction() as tx:
        schedule = wanted.after(await tx.now())
        await tx.put_schedule(schedule)
        told = {"cron": schedule.cron, "time_zone": schedule.time_zone, "kind": schedule.kind}
        await tx.record("admin.schedule_put", f"schedule:{schedule.name}", tenant_id=schedule.tenant_id, **told)
    return schedule


async def list_schedules(store: Store, tenant_id: UUID, after: str, count: int) -> list[Schedule]:
    """Read schedules by name."""
    async with store.transaction() as tx:
        return await tx.list_schedules(tenant_id, after, count)


async def delete_schedule(store: Store, tenant_id: UUID, name: str) -> None:
    """Remove a schedule."""
    async with store.transaction() as tx:
        await tx.delete_schedule(tenant_id, name)
        await tx.record("admin.schedule_delete", f"schedule:{name}", tenant_id=tenant_id)


async def due_schedules(store: Store) -> list[Schedule]:
    """Read the schedules with a tick that has come."""
    async with store.transaction() as tx:
        return await tx.due_schedules(MAX_BATCH)


async def advance_schedule(store: Store, schedule: Schedule) -> None:
    """Go on to the next tick: the job of this one is in. A process whose clock is wrong skips none."""
    async with store.transaction() as tx:
        await tx.advance_schedule(schedule, schedule.after(await tx.now()).next_time)
