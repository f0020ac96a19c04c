"""The load of jobs, past the turns: keys, delays, retries, dead letters and cancellations, straight at the queue."""

import asyncio
import random
import time
import uuid
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import psycopg
from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.queue.v1 import job_pb2, queue_service_pb2, queue_service_pb2_grpc

from services.worker.consumer import Consumer, JobFailed, Lease, PermanentFailure
from tests.chaos.account import Account
from tests.chaos.calls import PATIENCE_SECONDS, QueueAt, until_answered
from tests.contract.queue.rig import TENANT

Stub = queue_service_pb2_grpc.QueueServiceStub
KIND = "chaos"
ORPHAN = "chaos-orphan"
"""Jobs of clients that were killed: whether they were acknowledged nobody knows."""
KEYS = 12
CONCURRENCY = 8
STOP_SECONDS = 30.0
"""How long a job runs that waits to be cancelled."""
WITHOUT_NOTIFY_SECONDS = 45.0
"""How long a job may take while NOTIFY is disabled: a second, and what other faults there are at the same time."""


class JobLoad:
    """Puts jobs in and does them, until told to stop.

    Args:
        enqueue_at: Where jobs are put in.
        work_at: Where jobs are taken, which may be another replica.
        database: Where effects are left.
        account: What is promised and seen.
    """

    def __init__(
        self, enqueue_at: QueueAt, work_at: QueueAt, database: str, account: Account, rng: random.Random
    ) -> None:
        self._enqueue_at = enqueue_at
        self._work_at = work_at
        self._database = database
        self._ledger = account.ledger
        self._rng = rng
        self.account = account
        self._began: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._ended: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._asked: dict[str, float] = {}
        self._calm = False

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
        async with self._work_at.connect("worker") as channel:
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
        async with self._enqueue_at.connect("api") as channel, asyncio.TaskGroup() as tasks:
            stub = queue_service_pb2_grpc.QueueServiceStub(channel)
            for n in range(KEYS):
                tasks.create_task(self._put_in(stub, f"chaos-{n}", stop))
            tasks.create_task(self._put_in(stub, "", stop))

    async def probe(self) -> None:
        """With nothing wrong: delayed jobs start in their time, and workers are told at once what is cancelled."""
        self._calm = True
        try:
            async with self._enqueue_at.connect("api") as channel:
                stub = queue_service_pb2_grpc.QueueServiceStub(channel)
                delayed = [await self._enqueue(stub, "", "later") for _ in range(3)]
                await self._stop(stub, await self._enqueue(stub, "", "stop"))
                async with asyncio.timeout(PATIENCE_SECONDS):
                    for job_id in delayed:
                        await self._ended[job_id].wait()
        finally:
            self._calm = False

    async def without_notify(self) -> None:
        """A job gets through, from one replica to the worker of another, while nobody can send a NOTIFY."""
        async with self._enqueue_at.connect("api") as channel:
            job_id = await self._enqueue(queue_service_pb2_grpc.QueueServiceStub(channel), "", "plain")
        try:
            async with asyncio.timeout(WITHOUT_NOTIFY_SECONDS):
                await self._ended[job_id].wait()
            self._ledger.counts["jobs done without NOTIFY"] += 1
        except TimeoutError:
            self.account.unheard(job_id)

    async def _put_in(self, stub: Stub, key: str, stop: asyncio.Event) -> None:
        weights = (80, 6, 8, 0, 0, 0) if key else (60, 6, 8, 10, 10, 6)
        while not stop.is_set():
            what = self._rng.choices(("plain", "doomed", "later", "cancel", "cancel later", "stop"), weights)[0]
            job_id = await self._enqueue(stub, key, what)
            if what.startswith("cancel"):
                await self._cancel(stub, job_id)
            elif what == "stop":
                await self._stop(stub, job_id)
            await asyncio.sleep(self._rng.uniform(0.05, 0.6))

    async def _enqueue(self, stub: Stub, key: str, what: str) -> str:
        request = queue_service_pb2.EnqueueJobRequest(
            tenant_id=TENANT,
            kind=KIND,
            key=key,
            idempotency_key=str(uuid.uuid4()),
            payload=what.encode(),
            max_attempts=100,
        )
        due = 0.0
        if what.endswith("later"):
            moment = datetime.now(UTC) + timedelta(seconds=self._rng.uniform(0.5, 3))
            due = moment.timestamp()
            request.run_time.CopyFrom(_timestamp(moment))
        times = 1 + (self._rng.random() < 0.3)
        answers = [await until_answered(self._ledger, stub.EnqueueJob, request) for _ in range(times)]
        job_id = self.account.acknowledge(*(answer.job.job_id for answer in answers))
        if due:
            self.account.due[job_id] = due
        if what in {"doomed", "stop"}:
            self.account.doomed.add(job_id)
        elif key and what == "plain":
            self.account.by_key[key].append(job_id)
        return job_id

    async def _cancel(self, stub: Stub, job_id: str) -> None:
        """Cancel a job, whoever has it."""
        request = queue_service_pb2.CancelJobRequest(tenant_id=TENANT, job_id=job_id)
        job = (await until_answered(self._ledger, stub.CancelJob, request)).job
        if job.state in {job_pb2.JOB_STATE_CANCELLED, job_pb2.JOB_STATE_LEASED}:
            self.account.cancel(job_id, leased=job.state == job_pb2.JOB_STATE_LEASED, attempt=job.attempt)

    async def _stop(self, stub: Stub, job_id: str) -> None:
        """Cancel a job that runs, and wait until its worker has heard of it."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._began[job_id].wait()
                self._asked[job_id] = time.monotonic()
                await self._cancel(stub, job_id)
                await self._ended[job_id].wait()
        except TimeoutError:
            self._ledger.violated(f"I10: nobody stopped job {job_id}, which was cancelled")

    async def _handle(self, lease: Lease) -> None:
        self._ledger.counts["job runs"] += 1
        self.account.run()
        try:
            if lease.kind == KIND:
                await self._do(lease)
        finally:
            self.account.running -= 1

    async def _do(self, lease: Lease) -> None:
        self.account.start(lease.job_id, lease.attempt)
        self._began[lease.job_id].set()
        self._ended[lease.job_id].clear()
        if lease.payload == b"stop":
            await self._wait_for_the_end(lease)
            return
        if (due := self.account.due.get(lease.job_id)) and not lease.key and lease.attempt == 1 and self._calm:
            self.account.late(lease.job_id, time.time() - due)
        await asyncio.sleep(self._rng.uniform(0, 0.05))
        if lease.payload == b"doomed":
            raise PermanentFailure("doomed from the start")
        if self._rng.random() < 0.02:
            raise JobFailed("once in a while", timedelta(seconds=0.2))
        await self._leave_effect(lease)
        self._ended[lease.job_id].set()

    async def _wait_for_the_end(self, lease: Lease) -> None:
        """Run until cancelled. A lease that is lost instead has the job come again, unless it was cancelled before."""
        try:
            await asyncio.sleep(STOP_SECONDS)
        finally:
            if asked := self._asked.get(lease.job_id):
                took = time.monotonic() - asked
                self.account.stopped(lease.job_id, took, told=lease.cancelled, calm=self._calm)
            self._ended[lease.job_id].set()

    async def _leave_effect(self, lease: Lease) -> None:
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


def _timestamp(moment: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found
