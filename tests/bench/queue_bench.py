"""How fast the queue is through gRPC: wake latency, enqueues per second, jobs per second, on a durable PostgreSQL.

Run it as `python -m tests.bench.queue_bench`. PostgreSQL, the Queue process and this client share the machine.
"""

import asyncio
import math
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable

import grpc
import psycopg
from orginabox.queue.v1 import queue_service_pb2

from tests.contract.queue.rig import TENANT, Stub, asked
from tests.faults.queue.rig import DURABLE, Rig, fault_rig, until

ROUNDS = 3


async def lone_jobs(rig: Rig, count: int = 200) -> tuple[float, float]:
    """Milliseconds from the call of EnqueueJob to the lease at a waiting worker, 50 jobs a second: p50 and p99."""
    stub = rig.stub
    waits = []
    call = await worker_with(stub, count)
    for _ in range(count):
        await asyncio.sleep(0.02)
        started = time.perf_counter()
        sending = asyncio.ensure_future(_enqueue(stub))
        lease = await next_lease(call)
        waits.append((time.perf_counter() - started) * 1000)
        await complete(call, lease)
        await sending
    call.cancel()
    waits.sort()
    return statistics.median(waits), waits[math.ceil(len(waits) * 0.99) - 1]


async def _enqueue(stub: Stub, **fields: str) -> None:
    await stub.EnqueueJob(asked(**fields))


async def enqueues(rig: Rig, callers: int, seconds: float = 2.0) -> float:
    """Jobs per second that so many callers put in, one per call."""
    done = 0
    end = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await _enqueue(rig.stub)
            done += 1

    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / seconds


async def throughput(rig: Rig, jobs: int, credit: int, keys: int = 0) -> float:
    """Jobs per second from the first grant to the last settlement on disk, with a handler that does nothing."""
    fill(rig, jobs, keys)
    call = await worker_with(rig.stub, 0)
    started = time.perf_counter()
    await grant(call, credit)
    settled = owed = 0
    while settled < jobs:
        response = await call.read()
        assert isinstance(response, queue_service_pb2.WorkResponse)
        if response.HasField("lease"):
            await complete(call, response.lease)
        elif response.HasField("settled"):
            settled += 1
            owed += 1
            if owed >= max(credit // 4, 1):
                await grant(call, owed)
                owed = 0
    rate = jobs / (time.perf_counter() - started)
    call.cancel()
    return rate


def fill(rig: Rig, jobs: int, keys: int) -> None:
    """Put a backlog in, past the service: what is measured here is the way out."""
    key = f"'k' || n % {keys}" if keys else "''"
    state = f"CASE WHEN n < {keys} THEN 'ready' ELSE 'blocked' END" if keys else "'ready'"
    with psycopg.connect(rig.server.url) as connection:
        connection.execute(
            "INSERT INTO queue.job (tenant_id, id, kind, key, state, priority, max_attempts, run_time,"
            " idempotency_key, trace_parent, payload)"
            f" SELECT '{TENANT}', uuidv7(), 'test', {key}, ({state})::queue.job_state, 0, 5, now(), 'i', '', 'work'"
            f" FROM generate_series(0, {jobs - 1}) AS n".encode()
        )


Call = grpc.aio.StreamStreamCall[queue_service_pb2.WorkRequest, queue_service_pb2.WorkResponse]


async def worker_with(stub: Stub, credit: int) -> Call:
    call = stub.Work()
    hello = queue_service_pb2.WorkerHello(worker_id=str(uuid.uuid4()), kinds=["test"])
    await call.write(queue_service_pb2.WorkRequest(hello=hello))
    await call.read()
    if credit:
        await grant(call, credit)
    return call


async def grant(call: Call, credit: int) -> None:
    await call.write(queue_service_pb2.WorkRequest(grant=queue_service_pb2.CreditGrant(credit=credit)))


async def next_lease(call: Call) -> queue_service_pb2.JobLease:
    while True:
        response = await call.read()
        assert isinstance(response, queue_service_pb2.WorkResponse)
        if response.HasField("lease"):
            return response.lease


async def complete(call: Call, lease: queue_service_pb2.JobLease) -> None:
    done = queue_service_pb2.JobCompletion(job_id=lease.job.job_id, lease_token=lease.lease_token)
    await call.write(queue_service_pb2.WorkRequest(complete=done))


async def rounds(name: str, measure: Callable[[], Awaitable[float]]) -> None:
    """Print the median of some rounds, and the rounds."""
    found = [await measure() for _ in range(ROUNDS)]
    print(f"{name:44} {statistics.median(found):9,.0f}/s   [{', '.join(f'{rate:,.0f}' for rate in found)}]", flush=True)


async def main() -> None:
    """Measure, and print."""
    async with fault_rig(DURABLE) as rig:
        rig.queue()
        await until(lambda: '"serving"' in rig.queue_log())
        waits = [await lone_jobs(rig) for _ in range(ROUNDS)]
        said = ", ".join(f"{p50:.1f}/{p99:.1f}" for p50, p99 in waits)
        print(f"{'lone job, call to lease, p50/p99 ms':44} {said}", flush=True)
        for callers in (1, 32):
            await rounds(f"enqueue, {callers} callers", lambda callers=callers: enqueues(rig, callers))  # type: ignore[misc]
        with psycopg.connect(rig.server.url) as connection:
            connection.execute("TRUNCATE queue.job, queue.intent")
        await rounds("process, credit 500", lambda: throughput(rig, 30_000, 500))
        await rounds("process, credit 32", lambda: throughput(rig, 10_000, 32))
        await rounds("process, 1,000 keys of 20, credit 500", lambda: throughput(rig, 20_000, 500, 1_000))


if __name__ == "__main__":
    asyncio.run(main())
