"""How fast the queue is through gRPC: wake latency, enqueues per second, jobs per second, on a durable PostgreSQL.

Run it as `python -m tests.bench.queue_bench`. PostgreSQL, the Queue process and this client share the machine.
"""

import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence

import grpc
import psycopg
from orginabox.queue.v1 import queue_service_pb2

from tests.bench.report import Table, median, percentile
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
        await complete(call, [lease])
        await sending
    call.cancel()
    return median(waits), percentile(waits, 99)


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


def many(count: int) -> list[queue_service_pb2.EnqueueJobRequest]:
    return [asked() for _ in range(count)]


async def bulk_enqueues(rig: Rig, calls: int = 20) -> float:
    """Jobs per second that one caller puts in, a thousand per call."""
    requests = [queue_service_pb2.EnqueueJobsRequest(jobs=many(1_000)) for _ in range(calls)]
    started = time.perf_counter()
    for request in requests:
        await rig.stub.EnqueueJobs(request)
    return calls * 1_000 / (time.perf_counter() - started)


async def streamed_enqueues(rig: Rig, messages: int = 80) -> float:
    """Jobs per second that go in over one stream, 250 to a message."""
    requests = [queue_service_pb2.StreamJobsRequest(jobs=many(250)) for _ in range(messages)]
    started = time.perf_counter()
    await rig.stub.StreamJobs(iter(requests))
    return messages * 250 / (time.perf_counter() - started)


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
        if response.HasField("leases"):
            await complete(call, response.leases.lease_tokens)
        elif response.HasField("settled"):
            settled += len(response.settled.lease_tokens)
            owed += len(response.settled.lease_tokens)
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


async def next_lease(call: Call) -> str:
    while True:
        response = await call.read()
        assert isinstance(response, queue_service_pb2.WorkResponse)
        if response.HasField("leases"):
            return response.leases.lease_tokens[0]


async def complete(call: Call, tokens: Iterable[str]) -> None:
    await call.write(queue_service_pb2.WorkRequest(settle=queue_service_pb2.Settlements(completed=tokens)))


async def measured(name: str, measure: Callable[[], Awaitable[float]]) -> Sequence[str]:
    """A row: the median of some rounds, and the rounds."""
    found = [await measure() for _ in range(ROUNDS)]
    return (name, f"{statistics.median(found):,.0f}", ", ".join(f"{rate:,.0f}" for rate in found))


async def measure_latency(rig: Rig) -> Table:
    """How long a lone job takes to a worker that waits."""
    waits = [await lone_jobs(rig) for _ in range(ROUNDS)]
    rows = [(f"{n}", f"{p50:.1f}", f"{p99:.1f}") for n, (p50, p99) in enumerate(waits, 1)]
    return Table(
        "A lone job, from the call to the worker",
        "From the call of EnqueueJob to the lease at a waiting worker, both through gRPC, 50 jobs a second, in ms.",
        ("round", "p50", "p99"),
        list[Sequence[str]](rows),
        "The commit of the job waits for the disk; the claim does not.",
    )


async def measure_rates(rig: Rig) -> Table:
    """How many jobs a second go in, and come out until they are settled."""
    rows = [
        await measured("enqueue, 1 caller, one job per call", lambda: enqueues(rig, 1)),
        await measured("enqueue, 32 callers, one job per call", lambda: enqueues(rig, 32)),
        await measured("enqueue, 1 caller, 1,000 jobs per call", lambda: bulk_enqueues(rig)),
        await measured("enqueue, one stream", lambda: streamed_enqueues(rig)),
    ]
    with psycopg.connect(rig.server.url) as connection:
        connection.execute("TRUNCATE queue.job, queue.intent")
    rows += [
        await measured("process, credit 500", lambda: throughput(rig, 20_000, 500)),
        await measured("process, credit 32", lambda: throughput(rig, 10_000, 32)),
        await measured("process, 1,000 keys of 20 jobs, credit 500", lambda: throughput(rig, 20_000, 500, 1_000)),
    ]
    return Table(
        "Jobs per second",
        "PostgreSQL with fsync, one Queue process, one worker stream, a handler that does nothing; history is kept. "
        f"Median of {ROUNDS} rounds, and the rounds.",
        ("what", "jobs/s", "rounds"),
        rows,
        "Leases and settlements travel as many to a message as there are.",
    )


async def run() -> list[Table]:
    """Measure everything."""
    async with fault_rig(DURABLE) as rig:
        rig.queue()
        await until(lambda: '"serving"' in rig.queue_log())
        return [await measure_latency(rig), await measure_rates(rig)]


async def main() -> None:
    """Measure, and print."""
    for table in await run():
        print(table.markdown(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
