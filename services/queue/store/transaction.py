"""One transaction on the queue's tables: its statements are in a module for each noun."""

from uuid import UUID

from services.kit import outbox
from services.queue.store.dependencies import DependencyRows
from services.queue.store.jobs import JobRows
from services.queue.store.kinds import KindRows
from services.queue.store.leases import LeaseRows
from services.queue.store.lines import LineRows
from services.queue.store.schedules import ScheduleRows
from services.queue.store.sessions import SessionRows
from services.queue.store.shares import ShareRows


class QueueTransaction(JobRows, LineRows, LeaseRows, SessionRows, DependencyRows, KindRows, ScheduleRows, ShareRows):
    """One transaction on the queue's tables.

    Attributes:
        recorded: Whether it has put something on record.
    """

    recorded = False

    async def record(self, action: str, target: str, *, tenant_id: UUID | None = None, **payload: object) -> None:
        """Put on record what this transaction does."""
        await outbox.record(self._tx, action, target, tenant_id=tenant_id, payload=payload)
        self.recorded = True
