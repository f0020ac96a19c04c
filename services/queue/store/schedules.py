"""Jobs that come again and again."""

from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from services.queue.schedule import Schedule
from services.queue.store.rows import Rows


class ScheduleRows(Rows):
    """Jobs that come again and again."""

    async def now(self) -> datetime:
        """The time by the database's clock."""
        (row,) = await self._tx.many("clock")
        now: datetime = row["now"]
        return now

    async def put_schedule(self, schedule: Schedule) -> None:
        """Make a schedule, or change the one with its name."""
        fields = asdict(schedule)
        await self._tx.run("put_schedule", called=fields.pop("name"), **fields)

    async def list_schedules(self, tenant_id: UUID, after: str, count: int) -> list[Schedule]:
        """Schedules with names after one, by name."""
        rows = await self._tx.many("list_schedules", tenant_id=tenant_id, after=after, count=count)
        return [Schedule(**row) for row in rows]

    async def delete_schedule(self, tenant_id: UUID, name: str) -> None:
        """Remove a schedule."""
        await self._tx.run("delete_schedule", tenant_id=tenant_id, called=name)

    async def due_schedules(self, count: int) -> list[Schedule]:
        """The schedules with a tick that has come."""
        return [Schedule(**row) for row in await self._tx.many("due_schedules", count=count)]

    async def advance_schedule(self, schedule: Schedule, next_time: datetime) -> None:
        """Go on to the next tick, unless somebody else has."""
        await self._tx.run(
            "advance_schedule",
            tenant_id=schedule.tenant_id,
            called=schedule.name,
            tick=schedule.next_time,
            next_time=next_time,
        )
