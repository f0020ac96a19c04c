"""The way in: calls that come while a commit is under way share the next one."""

from collections.abc import Sequence

from services.kit.errors import ServiceUnavailable
from services.queue import metrics, operations
from services.queue.batch import Batcher
from services.queue.bell import Bell
from services.queue.job import JobState, NewJob, PlacedJob
from services.queue.pace import Pace
from services.queue.store import Store


class Enqueuer:
    """Puts jobs into the queue, many calls in one commit."""

    def __init__(self, store: Store, bell: Bell, pace: Pace) -> None:
        self._store = store
        self._bell = bell
        self._pace = pace
        self._batcher: Batcher[Sequence[NewJob], list[PlacedJob]] = Batcher(self._enqueue, operations.MAX_BATCH, len)
        self.run = self._batcher.run

    async def enqueue(self, *jobs: NewJob) -> list[PlacedJob]:
        """Put jobs in, all or none. Returns after the commit."""
        return await self._batcher.put(jobs)

    async def _enqueue(self, groups: Sequence[Sequence[NewJob]]) -> Sequence[list[PlacedJob] | Exception]:
        try:
            answers = await operations.enqueue(self._store, self._pace, groups)
        except ServiceUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whoever called hears of it
            if len(groups) == 1:
                return [error]
            # One of them is bad: the others need not suffer for it.
            return [answer for group in groups for answer in await self._enqueue([group])]
        metrics.ENQUEUED.observe(sum(map(len, groups)))
        self._ring([found for answer in answers if isinstance(answer, list) for found in answer])
        return answers

    def _ring(self, placed: Sequence[PlacedJob]) -> None:
        jobs = [found.job for found in placed]
        if ready := [(job.kind, job.priority, job.vt) for job in jobs if job.state is JobState.READY]:
            self._bell.ready(ready)
        if any(job.state is JobState.SCHEDULED or job.deadline for job in jobs):
            self._bell.delayed()
        if any(job.depends_on for job in jobs):
            # A claim passed over the jobs that they depend on while those were marked.
            self._bell.ready()
