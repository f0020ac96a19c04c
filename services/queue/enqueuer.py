"""The way in: calls that come while a commit is under way share the next one."""

from collections.abc import Sequence

from services.kit.errors import ServiceUnavailable
from services.queue import operations
from services.queue.batch import Batcher
from services.queue.bell import Bell
from services.queue.job import JobState, NewJob, PlacedJob
from services.queue.store import Store


class Enqueuer:
    """Puts jobs into the queue, many calls in one commit."""

    def __init__(self, store: Store, bell: Bell) -> None:
        self._store = store
        self._bell = bell
        self._batcher: Batcher[NewJob, PlacedJob] = Batcher(self._enqueue, operations.MAX_BATCH)
        self.run = self._batcher.run

    async def enqueue(self, job: NewJob) -> PlacedJob:
        """Put a job in. Returns after the commit."""
        return await self._batcher.put(job)

    async def _enqueue(self, jobs: Sequence[NewJob]) -> Sequence[PlacedJob | Exception]:
        try:
            placed = await operations.enqueue(self._store, jobs)
        except ServiceUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whoever called hears of it
            if len(jobs) == 1:
                return [error]
            # One of them is bad: the others need not suffer for it.
            return [result for job in jobs for result in await self._enqueue([job])]
        self._ring([found for found in placed if isinstance(found, PlacedJob)])
        return placed

    def _ring(self, placed: Sequence[PlacedJob]) -> None:
        states = {found.job.state for found in placed}
        if JobState.READY in states:
            self._bell.ready()
        if JobState.SCHEDULED in states:
            self._bell.delayed()
