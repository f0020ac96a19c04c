"""What tenants get, and how far the virtual times have come."""

from datetime import timedelta

from services.kit.tenancy import SYSTEM
from services.queue.pace import Pace, TenantShare
from services.queue.store import Store


async def set_share(store: Store, share: TenantShare) -> None:
    """Set what a tenant gets, of what waits now too."""
    async with store.transaction(SYSTEM) as tx:
        await tx.put_share(share.tenant_id, share.weight, share.max_in_flight)
        await tx.move_to_lanes()
        told = {"weight": share.weight, "max_in_flight": share.max_in_flight}
        await tx.record("admin.queue_share", "queue", tenant_id=share.tenant_id, **told)


async def refresh_shares(store: Store, pace: Pace) -> int:
    """Take in what tenants get, and move what was on its way when that changed. Returns how many jobs were moved."""
    async with store.transaction() as tx:
        pace.share(await tx.shares())
        return await tx.move_to_lanes()


async def keep_pace(store: Store, pace: Pace, age: timedelta) -> None:
    """Tell other processes how far the virtual times have come here, and hear how far they have elsewhere."""
    async with store.telling.transaction() as tx:
        await tx.keep_pace(pace.moved())
        pace.heard(await tx.read_pace(age))
