"""The worker's end of the stream, on a real queue."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import psycopg
import pytest
from orginabox.queue.v1 import job_pb2, queue_service_pb2

from services.kit.telemetry import trace_id
from services.worker.consumer import Consumer, JobFailed, Lease, PermanentFailure
from tests.contract.queue.rig import TENANT, Stub, becomes, enqueue, queue_at, read

DONE = job_pb2.JOB_STATE_COMPLETED
DEAD = job_pb2.JOB_STATE_DEAD
READY = job_pb2.JOB_STATE_READY
DELAYED = job_pb2.JOB_STATE_DELAYED
CANCELLED = job_pb2.JOB_STATE_CANCELLED


@pytest.fixture
def url(database: Callable[..., str]) -> str:
    return database("queue")


@pytest.fixture
async def channel(url: str) -> AsyncIterator[grpc.aio.Channel]:
    async with queue_at(url) as made:
        yield made


@asynccontextmanager
async def consuming(
    channel: grpc.aio.Channel, handle: Callable[[Lease], Awaitable[None]], **options: Any
) -> AsyncIterator[Callable[[], Coroutine[Any, Any, float]]]:
    """A consumer at work. What it gives stops it, and says how long that took."""
    stop = asyncio.Event()
    consumer = Consumer(
        channel, worker_id="w", kinds=["test"], handle=handle, **({"concurrency": 3, "grace": 2.0} | options)
    )
    running = asyncio.create_task(consumer.run(stop))

    async def end() -> float:
        started = time.perf_counter()
        stop.set()
        await running
        return time.perf_counter() - started

    try:
        yield end
    finally:
        await end()


async def test_jobs_are_done_no_more_than_so_many_at_once(channel: grpc.aio.Channel) -> None:
    at_once = most = 0

    async def handle(lease: Lease) -> None:
        nonlocal at_once, most
        assert (lease.tenant_id, lease.payload, lease.attempt) == (TENANT, b"work", 1)
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1

    stub = Stub(channel)
    jobs = [await enqueue(stub) for _ in range(12)]
    async with consuming(channel, handle):
        for job in jobs:
            await becomes(stub, job.job_id, DONE)
    assert most == 3


async def test_the_work_of_a_job_joins_the_trace_that_asked_for_it(channel: grpc.aio.Channel) -> None:
    traces = []

    async def handle(_: Lease) -> None:
        traces.append(trace_id())

    stub = Stub(channel)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    job = await enqueue(stub, trace_parent=parent)
    async with consuming(channel, handle):
        await becomes(stub, job.job_id, DONE)
    assert traces == ["0af7651916cd43dd8448eb211c80319c"]


async def test_a_job_of_no_trace_begins_none_that_nobody_keeps(channel: grpc.aio.Channel) -> None:
    traces = []

    async def handle(_: Lease) -> None:
        traces.append(trace_id())

    stub = Stub(channel)
    job = await enqueue(stub)
    async with consuming(channel, handle):
        await becomes(stub, job.job_id, DONE)
    assert traces == [""]


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (ValueError("oh"), DELAYED, "oh"),
        (ValueError(), DELAYED, "ValueError"),
        (PermanentFailure("never"), DEAD, "never"),
        (JobFailed("later", timedelta(hours=1)), DELAYED, "later"),
    ],
    ids=repr,
)
async def test_an_exception_is_a_failure(channel: grpc.aio.Channel, error: Exception, state: Any, said: str) -> None:
    async def handle(_: Lease) -> None:
        raise error

    stub = Stub(channel)
    job = await enqueue(stub)
    async with consuming(channel, handle):
        failed = await becomes(stub, job.job_id, state)
    assert failed.last_error == said
    if isinstance(error, JobFailed) and error.retry_delay:
        assert failed.run_time.ToDatetime(UTC) - datetime.now(UTC) > timedelta(minutes=59)


async def test_a_cancelled_job_is_stopped_and_the_next_of_its_key_runs(channel: grpc.aio.Channel) -> None:
    stopped: list[tuple[str, bool]] = []

    async def handle(lease: Lease) -> None:
        if lease.payload != b"long":
            return
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.2)  # as an abort takes its time
            stopped.append((lease.job_id, lease.cancelled))

    stub = Stub(channel)
    job, behind = await enqueue(stub, key="s", payload=b"long"), await enqueue(stub, key="s")
    async with consuming(channel, handle):
        await becomes(stub, job.job_id, job_pb2.JOB_STATE_LEASED)
        await stub.CancelJob(queue_service_pb2.CancelJobRequest(tenant_id=TENANT, job_id=job.job_id))
        await asyncio.sleep(0.1)
        assert (await read(stub, behind.job_id)).state == job_pb2.JOB_STATE_BLOCKED
        await becomes(stub, behind.job_id, DONE)
    assert stopped == [(job.job_id, True)]
    assert (await read(stub, job.job_id)).state == CANCELLED


async def test_a_job_cancelled_before_its_handler_began_is_let_go_too(channel: grpc.aio.Channel) -> None:
    async def handle(_: Lease) -> None:
        await asyncio.sleep(30)

    stub = Stub(channel)
    async with consuming(channel, handle, concurrency=50):
        for _ in range(20):
            job = await enqueue(stub, key="s")
            await stub.CancelJob(queue_service_pb2.CancelJobRequest(tenant_id=TENANT, job_id=job.job_id))
            await becomes(stub, job.job_id, CANCELLED)


async def test_a_parked_job_gives_its_place_away(channel: grpc.aio.Channel) -> None:
    """One place: a second job runs while the first waits; and the first goes on without waiting for a place."""
    answered, told = asyncio.Event(), asyncio.Event()
    working: set[bytes] = set()
    seen: list[set[bytes]] = []

    async def handle(lease: Lease) -> None:
        working.add(lease.payload)
        seen.append(set(working))
        if lease.payload == b"asks":
            lease.park()
            lease.park()
            working.discard(lease.payload)
            await answered.wait()
            lease.unpark()
            lease.unpark()
            working.add(lease.payload)
            seen.append(set(working))
            await told.wait()
        await asyncio.sleep(0.05)
        working.discard(lease.payload)

    stub = Stub(channel)
    async with consuming(channel, handle, concurrency=1):
        asks = await enqueue(stub, payload=b"asks")
        others = [await enqueue(stub, payload=b"%d" % number) for number in range(3)]
        for job in others:
            await becomes(stub, job.job_id, DONE)
        assert (await read(stub, asks.job_id)).state == job_pb2.JOB_STATE_LEASED
        assert all(len(each) == 1 for each in seen)
        answered.set()
        late = [await enqueue(stub, payload=b"late%d" % number) for number in range(3)]
        await asyncio.sleep(0.3)
        # The place that it had given away was free, so one more job may be on its way. No second one is.
        states = [(await read(stub, job.job_id)).state for job in late]
        assert states.count(DONE) <= 1
        told.set()
        for job in (asks, *late):
            await becomes(stub, job.job_id, DONE)
    assert max(map(len, seen)) <= 2


async def test_a_parked_job_that_ends_frees_no_second_place(channel: grpc.aio.Channel) -> None:
    at_once = most = 0

    async def handle(lease: Lease) -> None:
        nonlocal at_once, most
        if lease.payload == b"asks":
            lease.park()
            await asyncio.sleep(0.1)
            return
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1

    stub = Stub(channel)
    jobs = [await enqueue(stub, payload=b"asks") for _ in range(5)] + [await enqueue(stub) for _ in range(10)]
    async with consuming(channel, handle, concurrency=2):
        for job in jobs:
            await becomes(stub, job.job_id, DONE)
    assert most <= 2


async def test_a_lost_lease_stops_the_handler_and_the_job_comes_again(channel: grpc.aio.Channel, url: str) -> None:
    seen: list[tuple[int, bool]] = []

    async def handle(lease: Lease) -> None:
        if lease.attempt > 1:
            return
        try:
            await asyncio.sleep(30)
        finally:
            seen.append((lease.attempt, lease.cancelled))

    stub = Stub(channel)
    job = await enqueue(stub)
    async with consuming(channel, handle):
        await becomes(stub, job.job_id, job_pb2.JOB_STATE_LEASED)
        lose_claim(url)
        assert (await becomes(stub, job.job_id, DONE)).attempt == 2
    assert seen == [(1, False)]


def lose_claim(url: str) -> None:
    """Do as a crash of the database does to a claim whose commit was not on disk, and to every connection."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE queue.job SET state = 'ready', session_id = NULL, token = NULL")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'oiab-queue' AND datname = current_database()"
        )


async def test_told_to_stop_it_ends_what_runs_and_takes_nothing_new(channel: grpc.aio.Channel) -> None:
    started = asyncio.Event()

    async def handle(_: Lease) -> None:
        started.set()
        await asyncio.sleep(0.3)

    stub = Stub(channel)
    job = await enqueue(stub)
    async with consuming(channel, handle) as end:
        await started.wait()
        ending = asyncio.create_task(end())
        await asyncio.sleep(0.05)
        late = await enqueue(stub)
        assert 0.1 < await ending < 1.0
    assert (await read(stub, job.job_id)).state == DONE
    assert (await read(stub, late.job_id)).state == READY


async def test_an_idle_one_stops_at_once(channel: grpc.aio.Channel) -> None:
    async def handle(_: Lease) -> None:
        return

    async with consuming(channel, handle) as end:
        await asyncio.sleep(0.1)
        assert await end() < 0.3


async def test_what_does_not_end_within_the_grace_goes_to_others_at_once(channel: grpc.aio.Channel) -> None:
    cleaned = []

    async def handle(lease: Lease) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            cleaned.append(lease.cancelled)

    stub = Stub(channel)
    job = await enqueue(stub, max_attempts=1)
    async with consuming(channel, handle, grace=0.2) as end:
        await becomes(stub, job.job_id, job_pb2.JOB_STATE_LEASED)
        assert await end() < 1.0
    assert cleaned == [False]
    assert (await becomes(stub, job.job_id, READY, 0.5)).attempt == 1
