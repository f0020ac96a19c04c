"""The load of jobs, past the turns: keys, delays, retries, dead letters and cancellations, straight at the queue."""

import asyncio
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import grpc
import psycopg
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.queue.v1 import queue_service_pb2, queue_service_pb2_grpc

from services.kit.channel import connect
from services.kit.settings import MeshSettings
from services.worker.consumer import Consumer, JobFailed, Lease, PermanentFailure
from tests.chaos.ledger import Ledger
from tests.contract.queue.rig import TENANT

A = TypeVar("A")
KIND = "chaos"
ORPHAN = "chaos-orphan"
"""Jobs of clients that were killed: whether they were acknowledged nobody knows."""
KEYS = 12
CONCURRENCY = 8
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
PATIENCE_SECONDS = 90.0
EARLY_SECONDS = 0.05
"""How much two clocks of one machine may differ."""
FAR = timedelta(hours=1)


@dataclass
class Jobs:
    """What was put in, and what became of it.

    Attributes:
        due: When a delayed job may start, by the clock of the wall.
        doomed: Jobs whose handler always fails for good.
        cancelled: Jobs that were cancelled before their time had come.
        by_key: The jobs of each key in the order in which they were acknowledged.
    """

    acknowledged: list[str] = field(default_factory=list)
    due: dict[str, float] = field(default_factory=dict)
    doomed: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    by_key: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


class JobLoad:
    """Puts jobs in and does them, until told to stop.

    Args:
        home: The home of the box, where the certificates are.
        enqueue_at: Where jobs are put in.
        work_at: Where jobs are taken, which may be another replica.
        database: Where effects are left.
    """

    def __init__(
        self, home: Path, enqueue_at: str, work_at: str, database: str, ledger: Ledger, rng: random.Random
    ) -> None:
        self._settings = MeshSettings(home=home)
        self._enqueue_at = enqueue_at
        self._work_at = work_at
        self._database = database
        self._ledger = ledger
        self._rng = rng
        self.jobs = Jobs()
        self._running = 0

    def prepare(self) -> None:
        """Make the table of effects."""
        with psycopg.connect(self._database) as connection:
            connection.execute("CREATE SCHEMA IF NOT EXISTS chaos")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS chaos.effect"
                " (place bigint GENERATED ALWAYS AS IDENTITY, job_id text PRIMARY KEY, key text)"
            )

    async def work(self, stop: asyncio.Event) -> None:
        """Do jobs."""
        async with connect(self._work_at, to="queue", identity=self._settings.identity("worker")) as channel:
            consumer = Consumer(
                channel,
                worker_id="chaos",
                kinds=[KIND, ORPHAN],
                concurrency=CONCURRENCY,
                handle=self._handle,
                grace=1.0,
            )
            await consumer.run(stop)

    async def put_in(self, stop: asyncio.Event) -> None:
        """Put jobs in, each key one after the other."""
        async with (
            connect(self._enqueue_at, to="queue", identity=self._settings.identity("api")) as channel,
            asyncio.TaskGroup() as tasks,
        ):
            stub = queue_service_pb2_grpc.QueueServiceStub(channel)
            for n in range(KEYS):
                tasks.create_task(self._put_in(stub, f"chaos-{n}", stop))
            tasks.create_task(self._put_in(stub, "", stop))

    async def _put_in(self, stub: queue_service_pb2_grpc.QueueServiceStub, key: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            what = self._rng.choices(("plain", "doomed", "later", "cancel"), (80, 6, 8, 6 if not key else 0))[0]
            job_id = await self._enqueue(stub, key, what)
            if what == "cancel":
                await self._cancel(stub, job_id)
            await asyncio.sleep(self._rng.uniform(0.05, 0.6))

    async def _enqueue(self, stub: queue_service_pb2_grpc.QueueServiceStub, key: str, what: str) -> str:
        request = queue_service_pb2.EnqueueJobRequest(
            tenant_id=TENANT,
            kind=KIND,
            key=key,
            idempotency_key=str(uuid.uuid4()),
            payload=what.encode(),
            max_attempts=100,
        )
        due = 0.0
        if what in {"later", "cancel"}:
            delay = FAR if what == "cancel" else timedelta(seconds=self._rng.uniform(0.5, 3))
            moment = datetime.now(UTC) + delay
            due = moment.timestamp()
            request.run_time.CopyFrom(_timestamp(moment))
        job_id = ""
        for _ in range(1 + (self._rng.random() < 0.3)):
            answer = await self._until_answered(stub.EnqueueJob, request)
            if job_id and answer.job.job_id != job_id:
                self._ledger.violated(f"one idempotency key became two jobs, {job_id} and {answer.job.job_id}")
            job_id = answer.job.job_id
        self.jobs.acknowledged.append(job_id)
        if due:
            self.jobs.due[job_id] = due
        if what == "doomed":
            self.jobs.doomed.add(job_id)
        elif key and what == "plain":
            self.jobs.by_key[key].append(job_id)
        return job_id

    async def _cancel(self, stub: queue_service_pb2_grpc.QueueServiceStub, job_id: str) -> None:
        request = queue_service_pb2.CancelJobRequest(tenant_id=TENANT, job_id=job_id)
        await self._until_answered(stub.CancelJob, request)
        self.jobs.cancelled.add(job_id)

    async def _until_answered(self, call: Callable[..., Awaitable[A]], request: Message) -> A:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await call(request, timeout=5)
            except grpc.aio.AioRpcError as error:
                if error.code() not in PASSING or time.monotonic() > end:
                    self._ledger.violated(f"the queue refused: {error.code().name} {error.details()}")
                    raise
                self._ledger.counts["calls of the queue cut"] += 1
                await asyncio.sleep(0.1)

    async def _handle(self, lease: Lease) -> None:
        self._ledger.counts["job runs"] += 1
        self._running += 1
        if self._running > CONCURRENCY:
            self._ledger.violated(f"I11: {self._running} jobs run at once, and {CONCURRENCY} were asked for")
        try:
            if lease.kind == KIND:
                await self._do(lease)
        finally:
            self._running -= 1

    async def _do(self, lease: Lease) -> None:
        if time.time() < self.jobs.due.get(lease.job_id, 0) - EARLY_SECONDS:
            self._ledger.violated(f"job {lease.job_id} started before its time")
        if lease.job_id in self.jobs.cancelled:
            self._ledger.violated(f"job {lease.job_id} ran although it was cancelled")
        await asyncio.sleep(self._rng.uniform(0, 0.05))
        if lease.payload == b"doomed":
            raise PermanentFailure("doomed from the start")
        if self._rng.random() < 0.02:
            raise JobFailed("once in a while", timedelta(seconds=0.2))
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._database, autocommit=True) as connection:
                    await connection.execute(
                        "INSERT INTO chaos.effect (job_id, key) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                        (lease.job_id, lease.key),
                    )
                    return
            except psycopg.OperationalError:
                await asyncio.sleep(0.1)

    def check(self, effects: Sequence[tuple[str, str]]) -> None:
        """Hold the effects, in their order, against what was acknowledged."""
        done = {job_id for job_id, _ in effects}
        if len(done) != len(effects):
            self._ledger.violated("an effect was left twice")
        wanted = set(self.jobs.acknowledged) - self.jobs.doomed - self.jobs.cancelled
        if lost := wanted - done:
            self._ledger.violated(f"{len(lost)} acknowledged jobs left no effect, such as {min(lost)}")
        if ghosts := done & (self.jobs.doomed | self.jobs.cancelled):
            self._ledger.violated(f"{len(ghosts)} jobs that had to fail or were cancelled left an effect")
        for key, jobs in self.jobs.by_key.items():
            known = set(jobs)
            if (order := [job_id for job_id, of in effects if of == key and job_id in known]) != jobs:
                self._ledger.violated(f"the jobs of {key} were not done in their order: {order} is not {jobs}")


def _timestamp(moment: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found
