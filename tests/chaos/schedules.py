"""Schedules under fire: each tick has to fire once, whichever of the queues is alive."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg
from orginabox.queue.v1 import queue_service_pb2, queue_service_pb2_grpc, schedule_pb2

from tests.chaos.account import Account
from tests.chaos.calls import QueueAt, until_answered
from tests.contract.queue.rig import TENANT

SECONDS = "chaos-seconds"
MINUTES = "chaos-minutes"
YEARLY = "0 0 1 1 *"
TICK_SECONDS = 1.05
"""More than a second, so that no two ticks are the same one."""

# A cron expression has no seconds. So a tick that is far away is brought here by hand; what follows is the queue's own.
BRING_A_TICK = """
    UPDATE queue.schedule SET next_time = %s
    WHERE tenant_id = %s AND name = %s AND next_time > clock_timestamp() + interval '10 seconds'
    RETURNING next_time"""
FIRES = """
    SELECT idempotency_key FROM queue.ended_job WHERE starts_with(idempotency_key, %s) AND state = 'completed'"""


@dataclass
class Schedules:
    """Two schedules: one that ticks about every second, by hand, and one that ticks every minute, by the clock.

    Attributes:
        ticks: Those that came by hand, as they are written in the keys of their jobs.
        offered: Those and the ones that may have come: the database fell before it said so.
    """

    queue_at: QueueAt
    database: str
    account: Account
    kind: str
    ticks: list[str] = field(default_factory=list)
    offered: set[str] = field(default_factory=set)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def prepare(self) -> None:
        """Make them."""
        async with self.queue_at.connect("api") as channel:
            stub = queue_service_pb2_grpc.QueueServiceStub(channel)
            for name, cron in ((SECONDS, YEARLY), (MINUTES, "* * * * *")):
                schedule = schedule_pb2.Schedule(
                    tenant_id=TENANT, name=name, cron=cron, kind=self.kind, payload=b"tick"
                )
                request = queue_service_pb2.PutScheduleRequest(schedule=schedule)
                await until_answered(self.account.ledger, stub.PutSchedule, request)
        self.began = datetime.now(UTC)

    async def tick(self, stop: asyncio.Event) -> None:
        """Let ticks come, each when the one before has fired."""
        while not stop.is_set():
            try:
                async with await psycopg.AsyncConnection.connect(self.database, autocommit=True) as connection:
                    while not stop.is_set():
                        await self._bring(connection)
                        await asyncio.sleep(TICK_SECONDS)
            except psycopg.OperationalError:
                await asyncio.sleep(TICK_SECONDS)

    async def _bring(self, connection: psycopg.AsyncConnection) -> None:
        tick = datetime.now(UTC).replace(microsecond=0)
        self.offered.add(_written(tick))
        if await (await connection.execute(BRING_A_TICK, (tick, TENANT, SECONDS))).fetchone():
            self.ticks.append(_written(tick))
            self.account.ledger.counts["ticks of schedules"] += 1

    def check(self) -> None:
        """Hold the jobs that came against the ticks, when everything has come to rest."""
        now = datetime.now(UTC)
        with psycopg.connect(self.database, autocommit=True) as connection:
            by_hand, by_clock = (self._fires(connection, name) for name in (SECONDS, MINUTES))
        self.account.check_ticks(SECONDS, self.ticks, by_hand, self.offered)
        minutes = [_written(minute) for minute in _minutes(self.began, now)]
        settled = [_written(minute) for minute in _minutes(self.began, now - timedelta(seconds=5))]
        self.account.check_ticks(MINUTES, settled, by_clock, minutes)

    def _fires(self, connection: psycopg.Connection, name: str) -> list[str]:
        prefix = f"cron:{TENANT}:{name}:"
        return [str(key).removeprefix(prefix) for (key,) in connection.execute(FIRES, (prefix,))]


def _minutes(began: datetime, ended: datetime) -> list[datetime]:
    """Every full minute after the one and up to the other."""
    first = began.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return [first + timedelta(minutes=n) for n in range((ended - first) // timedelta(minutes=1) + 1)]


def _written(tick: datetime) -> str:
    return tick.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
