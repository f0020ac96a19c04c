"""The loops behind the hand-out: renew and reap sessions, promote what is due, hear and tell other Queue processes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from services.kit.errors import ServiceUnavailable
from services.kit.telemetry import log
from services.queue import metrics, operations
from services.queue.bell import Bell
from services.queue.dispatcher import Dispatcher
from services.queue.enqueuer import Enqueuer
from services.queue.job import IdempotencyKeyReused
from services.queue.pace import Pace
from services.queue.store import Store

LOOK_SECONDS = 1.0
"""How often every loop looks by itself: a hint that is lost costs no more."""
FORGET_HEADS_SECONDS = 5.0
FOR_EVER = timedelta(days=36_500)
RENEW_SECONDS = 5.0
REAP_SECONDS = 2.0
FORGET_SECONDS = 60.0
COUNT_SECONDS = 5.0
COUNT_SHARE = 50
RETRY_SECONDS = 0.25
TELL_SECONDS = 0.01
SOONEST_SECONDS = 0.002


class Housekeeping:
    """Keeps the queue in order while the dispatcher hands out.

    Args:
        store: The queue's tables.
        bell: Wakes the loops.
        pace: The virtual times and shares that all Queue processes have to agree on.
        enqueuer: Takes the jobs of schedules.
        dispatcher: Has the streams whose sessions are renewed.
        instance: The name of this Queue process, the same in its next life.
    """

    def __init__(
        self, store: Store, bell: Bell, pace: Pace, enqueuer: Enqueuer, dispatcher: Dispatcher, instance: str
    ) -> None:
        self._enqueuer = enqueuer
        self._store = store
        self._bell = bell
        self._pace = pace
        self._dispatcher = dispatcher
        self._instance = instance

    async def begin(self) -> None:
        """Take up what is known, and give back what an earlier life of this process had leased, before workers come."""
        await operations.refresh_shares(self._store, self._pace)
        await operations.keep_pace(self._store, self._pace, FOR_EVER)
        if await operations.forget_earlier_life(self._store, self._instance):
            log().info("earlier life forgotten", instance=self._instance)
            while (await operations.withdraw_orphans(self._store)).more:
                pass

    async def run(self) -> None:
        """Run the loops until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(_every(LOOK_SECONDS, self._look))
            loops.create_task(_every(LOOK_SECONDS, self._keep_pace))
            loops.create_task(_every(FORGET_HEADS_SECONDS, self._forget_heads))
            loops.create_task(_every(RENEW_SECONDS, self._renew))
            loops.create_task(_every(REAP_SECONDS, self._reap))
            loops.create_task(_every(FORGET_SECONDS, self._forget))
            loops.create_task(_every(0, self._promote_due))
            loops.create_task(_every(0, self._end_overdue))
            loops.create_task(_every(LOOK_SECONDS / 2, self._tick))
            loops.create_task(_every(COUNT_SECONDS, self._count))
            loops.create_task(_every(0, self._stop_cancelled))
            loops.create_task(_every(0, self._tell))
            loops.create_task(_every(RETRY_SECONDS, self._listen))

    async def _look(self) -> None:
        self._bell.look()

    async def _forget_heads(self) -> None:
        self._bell.heads.forget()

    async def _keep_pace(self) -> None:
        await operations.keep_pace(self._store, self._pace, 10 * timedelta(seconds=LOOK_SECONDS))
        if await operations.refresh_shares(self._store, self._pace):
            self._bell.ready()

    async def _renew(self) -> None:
        sessions = dict(self._dispatcher.sessions)
        if not sessions:
            return
        try:
            standing = await operations.renew_sessions(self._store, sessions.keys())
        except ServiceUnavailable:
            self._dispatcher.doubt()
            raise
        for session_id in sessions.keys() - standing:
            log().warning("session lost", session_id=str(session_id))
            sessions[session_id].drop_all_but(())
            sessions[session_id].say_goodbye(
                ServiceUnavailable("the leases of this stream have expired; connect again", service="queue")
            )
            self._dispatcher.close(sessions[session_id])

    async def _reap(self) -> None:
        while True:
            settled = await operations.reap(self._store, self._dispatcher.sessions.keys())
            if settled.tokens:
                log().warning("leases reaped", count=len(settled.tokens))
                metrics.LEASES_LOST.labels("expired").inc(len(settled.tokens))
                metrics.tell_outcomes(settled.outcomes)
            self._ring(settled)
            if not settled.more:
                return

    async def _forget(self) -> None:
        while await operations.forget(self._store):
            pass

    async def _promote_due(self) -> None:
        self._bell.due.clear()
        ready, seconds = await operations.promote_due(self._store)
        if ready:
            self._bell.ready(ready)
        await _wait(self._bell.due, _pause(seconds))

    async def _end_overdue(self) -> None:
        self._bell.deadline.clear()
        settled, stops, seconds = await operations.end_overdue(self._store)
        self._ring(settled)
        if stops:
            self._bell.cancelled()
        await _wait(self._bell.deadline, _pause(seconds))

    async def _tick(self) -> None:
        for schedule in await operations.due_schedules(self._store):
            try:
                await self._enqueuer.enqueue(schedule.job())
            except IdempotencyKeyReused:
                log().info("schedule was changed after its tick", name=schedule.name)
            await operations.advance_schedule(self._store, schedule)

    async def _count(self) -> None:
        started = time.perf_counter()
        metrics.tell_stats(await operations.count_jobs(self._store))
        # A deep queue takes its time to count: then it is counted less often, so that this stays a small load.
        await asyncio.sleep((time.perf_counter() - started) * COUNT_SHARE)

    def _ring(self, settled: operations.Settled) -> None:
        if settled.freed:
            self._bell.ready(settled.freed)
        if settled.delayed:
            self._bell.delayed()

    async def _stop_cancelled(self) -> None:
        await self._bell.stops.wait()
        self._bell.stops.clear()
        sessions = self._dispatcher.sessions
        if sessions:
            for session_id, _, token in await operations.cancelled_leases(self._store, tuple(sessions)):
                if session := sessions.get(session_id):
                    session.ask_to_stop(token)

    async def _tell(self) -> None:
        await self._bell.others.wait()
        self._bell.others.clear()
        await self._store.telling.tell_others(self._instance)
        await asyncio.sleep(TELL_SECONDS)

    async def _listen(self) -> None:
        try:
            async for _ in self._store.listening.told_by_others(self._instance):
                self._bell.told()
        except ServiceUnavailable:
            # This connection is the first to notice that the database fell.
            self._dispatcher.doubt()
            raise


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again. A database that is away, or a fault, only delays it."""
    while True:
        pause = seconds
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the loop has to go on, whatever it met
            if not isinstance(error, ServiceUnavailable):
                log().error("housekeeping failed", work=getattr(work, "__name__", ""), exc_info=error)
            pause = max(seconds, RETRY_SECONDS)
        await asyncio.sleep(pause)


def _pause(seconds: float | None) -> float:
    """How long to wait for what comes in so many seconds."""
    return LOOK_SECONDS if seconds is None else min(max(seconds, SOONEST_SECONDS), LOOK_SECONDS)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
