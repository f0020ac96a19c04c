"""What tenants get, and how far the virtual times have come."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from services.queue.pace import Mark, TenantShare
from services.queue.store.rows import Rows


class ShareRows(Rows):
    """What tenants get, and how far the virtual times have come."""

    async def put_share(self, tenant_id: UUID, weight: int, max_in_flight: int) -> None:
        """Set what a tenant gets."""
        await self._tx.run("put_share", tenant_id=tenant_id, weight=weight, max_in_flight=max_in_flight)

    async def move_to_lanes(self) -> int:
        """Move jobs of tenants whose share was changed of late to where they belong. Returns how many were."""
        return await self._tx.run("move_to_lanes")

    async def shares(self) -> list[TenantShare]:
        """What tenants get, of those that do not get what everybody gets."""
        return [TenantShare(**row) for row in await self._tx.many("shares")]

    async def keep_pace(self, marks: Collection[Mark]) -> None:
        """Write down how far the virtual times have come."""
        if marks:
            await self._tx.run(
                "keep_pace",
                kinds=[mark.kind for mark in marks],
                priorities=[mark.priority for mark in marks],
                tenant_ids=[mark.tenant_id for mark in marks],
                vts=[mark.vt for mark in marks],
            )

    async def read_pace(self, age: timedelta) -> list[Mark]:
        """The marks that were changed not longer ago than this."""
        return [Mark(**row) for row in await self._tx.many("read_pace", age=age)]
