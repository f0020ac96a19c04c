"""Ours, with the words of the peers: `ours.py ADDRESS bulk N | callers N SECONDS | pace N | work N CREDIT | lone N`.

The address is that of a database, and then the queue runs in this process without gRPC; or that of a Queue process.
"""

import asyncio
import logging
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvloop
from orginabox.queue.v1 import queue_service_pb2, queue_service_pb2_grpc

from services.kit import telemetry
from services.kit.channel import connect
from services.kit.ids import DEFAULT_TENANT
from services.kit.memory import collect_seldom
from services.kit.settings import MeshSettings
from services.kit.tenancy import as_system
from services.queue.__main__ import running_queue
from services.queue.handler import QueueHandler
from services.queue.job import NewJob
from services.queue.work_session import Leased, WorkSession
from services.worker.consumer import Consumer, Lease
from tests.bench.peers.common import Enqueue, EnqueueMany, Handled, pace, put_in, say, stop_event
from tests.postgres import as_service

KIND = "noop"
CLAIM = 200
STARTED_SECONDS = 2.5
"""A process that starts counts its jobs for the metrics once; after that, that takes at most a fiftieth of its time."""
Doors = tuple[Enqueue, EnqueueMany]


def request(sent: int) -> queue_service_pb2.EnqueueJobRequest:
    """A job as the contract says it."""
    return queue_service_pb2.EnqueueJobRequest(
        tenant_id=str(DEFAULT_TENANT), kind=KIND, idempotency_key=str(uuid.uuid4()), payload=str(sent).encode()
    )


@asynccontextmanager
async def through_grpc(address: str) -> AsyncIterator[Doors]:
    """Putting jobs in as a client does."""
    async with connect(address, to="queue", identity=MeshSettings().identity("api")) as channel:
        stub = queue_service_pb2_grpc.QueueServiceStub(channel)
        yield (
            lambda sent: stub.EnqueueJob(request(sent)),
            lambda jobs: stub.EnqueueJobs(queue_service_pb2.EnqueueJobsRequest(jobs=[request(0) for _ in range(jobs)])),
        )


def doors_of(queue: QueueHandler) -> Doors:
    """Putting jobs in without a wire."""

    def job(sent: int) -> NewJob:
        return NewJob(
            tenant_id=DEFAULT_TENANT,
            kind=KIND,
            key="",
            idempotency_key=str(uuid.uuid4()),
            payload=str(sent).encode(),
        )

    return (
        lambda sent: queue._enqueuer.enqueue(job(sent)),
        lambda jobs: queue._enqueuer.enqueue(*(job(0) for _ in range(jobs))),
    )


async def work_through_grpc(address: str, jobs: int, credit: int) -> None:
    """The worker's own consumer, with a handler that does nothing."""
    handled = Handled(jobs)

    async def handle(lease: Lease) -> None:
        handled.one(int(lease.payload))

    async with connect(address, to="queue", identity=MeshSettings().identity("worker")) as channel:
        consumer = Consumer(channel, worker_id="bench", kinds=[KIND], concurrency=credit, handle=handle)
        await consumer.run(stop_event())


async def work_in_process(queue: QueueHandler, jobs: int, credit: int) -> None:
    """A stream without a wire: what is leased is settled at once."""
    handled = Handled(jobs)
    session = WorkSession("bench", frozenset([KIND]))
    await queue._dispatcher.open(session)
    queue._dispatcher.grant(session, credit)
    while True:
        messages = await session.next_messages(1.0)
        leased = [job for found in messages if isinstance(found, Leased) for job in found.jobs]
        for job in leased:
            handled.one(int(job.payload))
        if leased:
            queue._dispatcher.settle(session, [job.token for job in leased], {})
            queue._dispatcher.grant(session, len(leased))


async def main(address: str, what: str, *arguments: str) -> None:
    """Do what the driver asks for."""
    telemetry.configure("bench", "error")
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # it tells of each query that the end of the program cuts
    if address.startswith("unix://"):
        if what == "work":
            await work_through_grpc(address, int(arguments[0]), int(arguments[1]))
        else:
            async with through_grpc(address) as doors:
                await put_in(what, *doors, list(arguments))
        return
    async with running_queue(as_service(address, "queue"), f"bench-{os.getpid()}") as queue:
        with as_system():  # as the handler of a stream works
            await in_process(queue, what, *arguments)


async def in_process(queue: QueueHandler, what: str, *arguments: str) -> None:
    """Do what the driver asks for, without a wire."""
    match what:
        case "work":
            working = asyncio.ensure_future(work_in_process(queue, int(arguments[0]), int(arguments[1])))
            await asyncio.wait([working, asyncio.ensure_future(stop_event().wait())], return_when="FIRST_COMPLETED")
            if working.done():
                working.result()  # it never ends but by a fault
            working.cancel()
        case "lone":
            working = asyncio.ensure_future(work_in_process(queue, 0, 32))
            await pace(doors_of(queue)[0], int(arguments[0]))
            working.cancel()
        case "claims":
            await claims(queue, int(arguments[0]))
        case _:
            await put_in(what, *doors_of(queue), list(arguments))


async def claims(queue: QueueHandler, count: int) -> None:
    """How long claims take, one after the other, from the credit to the leases, with no settlement between them."""
    session = WorkSession("bench", frozenset([KIND]))
    await queue._dispatcher.open(session)
    await asyncio.sleep(STARTED_SECONDS)
    for _ in range(count):
        leased = 0
        started = time.perf_counter_ns()
        queue._dispatcher.grant(session, CLAIM)
        while leased < CLAIM:
            leased += sum(len(found.jobs) for found in await session.next_messages(5.0) if isinstance(found, Leased))
        say("CLAIM", time.perf_counter_ns() - started)


if __name__ == "__main__":
    collect_seldom()  # as the processes of the mesh do
    uvloop.run(main(*sys.argv[1:]))
