"""A schedule: a job that comes again at every tick of a cron expression, in the time zone of its people.

Where a clock is put forward, a tick of the hour that is left out comes right after it; where it is put back, a tick at
a fixed hour comes once, as in the cron of Debian.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from services.queue.job import InvalidJob, NewJob

FIELDS = 5
NOT_YET = datetime(1970, 1, 1, tzinfo=UTC)
"""The next tick of a schedule for which nobody has looked at the clock."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job that comes again. `next_time` is when the next one is enqueued."""

    tenant_id: UUID
    name: str
    cron: str
    time_zone: str
    kind: str
    key: str
    payload: bytes
    next_time: datetime

    def after(self, now: datetime) -> Self:
        """The schedule with its next tick after a time. What was missed until then is not made up for again."""
        return replace(self, next_time=next_tick(self.cron, self.time_zone, now))

    def job(self) -> NewJob:
        """The job of the next tick. However often it is enqueued, and by whom, it is one."""
        tick = self.next_time.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        return NewJob(self.tenant_id, self.kind, self.key, self.payload, f"cron:{self.tenant_id}:{self.name}:{tick}")


def next_tick(cron: str, time_zone: str, after: datetime) -> datetime:
    """The first tick of a cron expression after a time.

    Raises:
        InvalidJob: The expression or the name of the time zone cannot be read, or there is no such tick.
    """
    if len(cron.split()) != FIELDS:
        raise InvalidJob("schedule.cron: must have five fields: minute hour day month weekday", field="schedule.cron")
    try:
        zone = ZoneInfo(time_zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidJob(
            "schedule.timeZone: must be the IANA name of a time zone, such as Europe/Berlin", field="schedule.timeZone"
        ) from error
    try:
        tick: datetime = next(CronSim(cron.upper(), after.astimezone(zone)))
    except (CronSimError, StopIteration) as error:
        raise InvalidJob(
            "schedule.cron: cannot be read; an example is `0 9 * * mon-fri`", field="schedule.cron"
        ) from error
    return tick.astimezone(UTC)
