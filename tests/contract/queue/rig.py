"""A queue in this process, and a worker spoken to word by word."""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

import grpc
from orginabox.queue.v1 import job_pb2, queue_service_pb2, queue_service_pb2_grpc

from services.queue.__main__ import running_queue
from services.queue.handler import SERVICE, QueueHandler
from tests.contract.rig import served
from tests.postgres import as_service

TENANT = "00000000-0000-7000-8000-000000000001"
PATIENCE_SECONDS = 5.0

Stub = queue_service_pb2_grpc.QueueServiceStub


@asynccontextmanager
async def queue_at(url: str, instance: str = "test") -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a queue on this database."""
    async with (
        running_queue(as_service(url, "queue"), instance) as handler,
        served([SERVICE], _register(handler)) as channel,
    ):
        yield channel


def _register(handler: QueueHandler) -> Callable[[grpc.aio.Server], None]:
    def register(server: grpc.aio.Server) -> None:
        queue_service_pb2_grpc.add_QueueServiceServicer_to_server(handler, server)

    return register


def asked(**fields: Any) -> queue_service_pb2.EnqueueJobRequest:
    """A request for a job, with what the test does not say made up."""
    made_up = {"tenant_id": TENANT, "kind": "test", "idempotency_key": str(uuid.uuid4()), "payload": b"work"}
    return queue_service_pb2.EnqueueJobRequest(**{**made_up, **fields})


async def enqueue(stub: Stub, **fields: Any) -> job_pb2.Job:
    """Put a job in."""
    return (await stub.EnqueueJob(asked(**fields))).job


async def read(stub: Stub, job_id: str) -> job_pb2.Job:
    """Read a job."""
    return (await stub.GetJob(queue_service_pb2.GetJobRequest(tenant_id=TENANT, job_id=job_id))).job


async def becomes(stub: Stub, job_id: str, state: job_pb2.JobState.ValueType, seconds: float = 3.0) -> job_pb2.Job:
    """Wait until a job is in a state."""
    async with asyncio.timeout(seconds):
        while True:
            job = await read(stub, job_id)
            if job.state == state:
                return job
            await asyncio.sleep(0.01)


class JobLease(NamedTuple):
    """A job that a worker was given."""

    lease_token: str
    job_id: str = ""
    tenant_id: str = ""
    payload: bytes = b""
    attempt: int = 0


def jobs_of(response: queue_service_pb2.WorkResponse) -> list[JobLease]:
    """The jobs of a word that gives some."""
    found = response.leases
    columns = (found.lease_tokens, found.job_ids, found.tenant_ids, found.payloads, found.attempts)
    return [JobLease(*job) for job in zip(*columns, strict=True)]


class Worker:
    """A stream to the queue on which a test says and hears every word."""

    def __init__(self, stub: Stub) -> None:
        self.call = stub.Work()
        self._leases: deque[JobLease] = deque()
        self._settled: deque[str] = deque()

    @classmethod
    async def hello(cls, stub: Stub, *, credit: int = 1, kinds: tuple[str, ...] = ("test",)) -> Self:
        """A worker that has been welcomed and has granted credit."""
        worker = cls(stub)
        hello = queue_service_pb2.WorkerHello(worker_id="tester", kinds=kinds)
        await worker.say(queue_service_pb2.WorkRequest(hello=hello))
        assert (await worker.hear()).HasField("welcome")
        if credit:
            await worker.grant(credit)
        return worker

    async def say(self, request: queue_service_pb2.WorkRequest) -> None:
        await self.call.write(request)

    async def grant(self, credit: int) -> None:
        await self.say(queue_service_pb2.WorkRequest(grant=queue_service_pb2.CreditGrant(credit=credit)))

    async def hear(self, seconds: float = PATIENCE_SECONDS) -> queue_service_pb2.WorkResponse:
        """The next word that is no heartbeat."""
        async with asyncio.timeout(seconds):
            while True:
                response = await self.call.read()
                assert isinstance(response, queue_service_pb2.WorkResponse), "the stream ended"
                if not response.HasField("heartbeat"):
                    return response

    async def lease(self, seconds: float = PATIENCE_SECONDS) -> JobLease:
        """The next lease, which is the next word or came with the last one."""
        if not self._leases:
            response = await self.hear(seconds)
            assert response.HasField("leases"), response
            self._leases.extend(jobs_of(response))
        return self._leases.popleft()

    async def hears_nothing(self, seconds: float = 0.3) -> None:
        """Make sure that nothing comes. The stream cannot be used afterwards."""
        assert not self._leases
        try:
            response = await self.hear(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"heard {response}")

    async def settle(self, **jobs: Any) -> None:
        await self.say(queue_service_pb2.WorkRequest(settle=queue_service_pb2.Settlements(**jobs)))

    async def drain(self) -> None:
        await self.say(queue_service_pb2.WorkRequest(drain=queue_service_pb2.WorkerDrain()))

    async def complete(self, *leases: JobLease) -> None:
        await self.settle(completed=[lease.lease_token for lease in leases])

    async def fail(self, lease: JobLease, **fields: Any) -> None:
        failed = queue_service_pb2.JobFailure(lease_token=lease.lease_token, **fields)
        await self.settle(failed=[failed])

    async def settled(self, lease: JobLease) -> None:
        """The next word, or the last one, says that the lease is settled."""
        if not self._settled:
            response = await self.hear()
            assert response.HasField("settled"), response
            self._settled.extend(response.settled.lease_tokens)
        assert self._settled.popleft() == lease.lease_token

    def cut(self) -> None:
        """Close the stream as a network does."""
        self.call.cancel()
