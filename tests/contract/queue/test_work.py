"""Jobs come out until they are done: leases, credit, lines, settlements, cancellation, and streams that break."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.queue.v1 import job_pb2, queue_service_pb2

from services.kit.status import reason_of
from tests.contract.queue.rig import TENANT, JobLease, Stub, Worker, asked, becomes, enqueue, jobs_of, queue_at, read

DONE = job_pb2.JOB_STATE_COMPLETED
DEAD = job_pb2.JOB_STATE_DEAD
READY = job_pb2.JOB_STATE_READY
LEASED = job_pb2.JOB_STATE_LEASED
DELAYED = job_pb2.JOB_STATE_DELAYED
CANCELLED = job_pb2.JOB_STATE_CANCELLED


@pytest.fixture
def url(database: Callable[..., str]) -> str:
    return database("queue")


@pytest.fixture
async def stub(url: str) -> AsyncIterator[Stub]:
    async with queue_at(url) as channel:
        yield Stub(channel)


async def cancel(stub: Stub, job_id: str) -> job_pb2.Job:
    return (await stub.CancelJob(queue_service_pb2.CancelJobRequest(tenant_id=TENANT, job_id=job_id))).job


async def retry(stub: Stub, job_id: str) -> job_pb2.Job:
    return (await stub.RetryJob(queue_service_pb2.RetryJobRequest(tenant_id=TENANT, job_id=job_id))).job


async def test_a_job_is_leased_run_and_completed(stub: Stub) -> None:
    job = await enqueue(stub)
    worker = await Worker.hello(stub)
    lease = await worker.lease()
    assert (lease.job_id, lease.attempt, lease.payload) == (job.job_id, 1, b"work")
    assert (await read(stub, job.job_id)).state == LEASED
    await worker.complete(lease)
    await worker.settled(lease)
    done = await read(stub, job.job_id)
    assert done.state == DONE
    assert done.HasField("end_time")


async def test_a_waiting_worker_gets_a_lone_job_at_once(stub: Stub) -> None:
    worker = await Worker.hello(stub, credit=50)
    waits = []
    for _ in range(20):
        await asyncio.sleep(0.03)  # the queue must not be awake already
        started = time.perf_counter()
        await enqueue(stub)
        await worker.lease()
        waits.append(time.perf_counter() - started)
    assert sorted(waits)[10] < 0.05, "polling would take half a second"


async def test_credit_is_the_most_that_comes(stub: Stub) -> None:
    for _ in range(5):
        await enqueue(stub)
    worker = await Worker.hello(stub, credit=2)
    leases = [await worker.lease(), await worker.lease()]
    await worker.complete(leases[0])
    await worker.settled(leases[0])
    await worker.grant(1)
    await worker.lease()
    await worker.hears_nothing()


async def test_a_tenant_runs_no_more_at_once_than_it_may(stub: Stub) -> None:
    limit = queue_service_pb2.SetTenantShareRequest(tenant_id=TENANT, max_in_flight=2)
    await stub.SetTenantShare(limit)
    for _ in range(4):
        await enqueue(stub)
    worker = await Worker.hello(stub, credit=10)
    leases = [await worker.lease(1.5), await worker.lease()]
    other = await enqueue(stub, tenant_id=str(uuid.uuid4()))
    assert (await worker.lease()).job_id == other.job_id
    await worker.complete(leases[0])
    await worker.settled(leases[0])
    assert (await worker.lease()).tenant_id == TENANT
    await worker.hears_nothing()


async def test_workers_get_only_their_kinds(stub: Stub) -> None:
    await enqueue(stub, kind="other")
    mine = await enqueue(stub, kind="test")
    worker = await Worker.hello(stub, credit=5)
    assert (await worker.lease()).job_id == mine.job_id
    await worker.hears_nothing()


async def test_lower_priorities_go_first_then_the_order_of_arrival(stub: Stub) -> None:
    wanted = [(await enqueue(stub, priority=priority)).job_id for priority in (-5, 0, 0, 5)]
    late = (await enqueue(stub, priority=-10)).job_id
    worker = await Worker.hello(stub, credit=5)
    assert [(await worker.lease()).job_id for _ in range(5)] == [late, *wanted]


async def test_jobs_of_a_key_run_one_at_a_time_in_order(stub: Stub) -> None:
    jobs = [await enqueue(stub, key="s", priority=-n) for n in range(3)]
    worker = await Worker.hello(stub, credit=5)
    for n, job in enumerate(jobs):
        lease = await worker.lease()
        assert lease.job_id == job.job_id
        assert [(await read(stub, later.job_id)).state for later in jobs[n + 1 :]] == (
            [job_pb2.JOB_STATE_BLOCKED] * (2 - n)
        )
        await worker.complete(lease)
        await worker.settled(lease)


async def test_a_failed_job_keeps_its_place_in_the_line(stub: Stub) -> None:
    first = await enqueue(stub, key="s")
    await enqueue(stub, key="s")
    worker = await Worker.hello(stub, credit=5)
    lease = await worker.lease()
    await worker.fail(lease, error="not yet", retry_delay=Duration(nanos=50_000_000))
    await worker.settled(lease)
    again = await worker.lease()
    assert (again.job_id, again.attempt) == (first.job_id, 2)
    assert (await read(stub, first.job_id)).last_error == "not yet"
    assert again.lease_token != lease.lease_token


async def test_failures_back_off_and_end_in_the_dead_letters(stub: Stub) -> None:
    job = await enqueue(stub, max_attempts=2, key="s")
    behind = await enqueue(stub, key="s")
    worker = await Worker.hello(stub, credit=5)
    lease = await worker.lease()
    before = time.monotonic()
    await worker.fail(lease, error="first\0")
    await worker.settled(lease)
    assert (await read(stub, job.job_id)).state == DELAYED
    lease = await worker.lease()
    assert 0.7 < time.monotonic() - before < 10
    await worker.fail(lease, error="second" + "x" * 5_000)
    await worker.settled(lease)
    dead = await read(stub, job.job_id)
    assert (dead.state, dead.attempt, len(dead.last_error), dead.payload) == (DEAD, 2, 4_000, b"work")
    assert (await worker.lease()).job_id == behind.job_id


async def test_a_permanent_failure_is_dead_at_once_and_can_be_retried(stub: Stub) -> None:
    job = await enqueue(stub)
    worker = await Worker.hello(stub, credit=5)
    lease = await worker.lease()
    await worker.fail(lease, error="hopeless", permanent=True)
    await worker.settled(lease)
    assert (await read(stub, job.job_id)).state == DEAD
    revived = await retry(stub, job.job_id)
    assert (revived.state, revived.attempt, revived.last_error) == (READY, 0, "hopeless")
    again = await worker.lease()
    assert (again.job_id, again.attempt) == (job.job_id, 1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await retry(stub, job.job_id)
    assert reason_of(refused.value) == "JOB_STATE"


async def test_a_delayed_job_starts_on_time_and_blocks_nobody(stub: Stub) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.6)
    time_stamp = Timestamp()
    time_stamp.FromDatetime(due)
    later = await enqueue(stub, key="s", run_time=time_stamp)
    now = await enqueue(stub, key="s")
    assert later.state == DELAYED
    worker = await Worker.hello(stub, credit=5)
    lease = await worker.lease()
    assert lease.job_id == now.job_id
    await worker.complete(lease)
    await worker.settled(lease)
    assert (await worker.lease()).job_id == later.job_id
    assert timedelta() <= datetime.now(UTC) - due < timedelta(seconds=0.3)


async def test_a_delayed_job_waits_for_the_line_that_it_joins(stub: Stub) -> None:
    soon = Timestamp()
    soon.FromDatetime(datetime.now(UTC) + timedelta(seconds=0.2))
    worker = await Worker.hello(stub, credit=5)
    await enqueue(stub, key="s")
    head = await worker.lease()
    later = await enqueue(stub, key="s", run_time=soon)
    await becomes(stub, later.job_id, job_pb2.JOB_STATE_BLOCKED)
    await worker.complete(head)
    await worker.settled(head)
    assert (await worker.lease()).job_id == later.job_id


@pytest.mark.parametrize("how", ["cancel", "half-close"])
async def test_leases_end_at_once_when_the_stream_closes(stub: Stub, how: str) -> None:
    job = await enqueue(stub, key="s")
    first = await Worker.hello(stub)
    lease = await first.lease()
    second = await Worker.hello(stub)
    started = time.perf_counter()
    if how == "cancel":
        first.call.cancel()
    else:
        await first.call.done_writing()
    again = await second.lease()
    assert time.perf_counter() - started < 10
    assert (again.job_id, again.attempt) == (job.job_id, 2)
    assert again.lease_token != lease.lease_token


async def test_a_worker_that_stops_properly_costs_no_job_its_life(stub: Stub) -> None:
    job = await enqueue(stub, max_attempts=1)
    for attempt in range(1, 4):
        worker = await Worker.hello(stub)
        assert (await worker.lease()).attempt == attempt
        await worker.call.done_writing()
        await hear_to_the_end(worker.call)
    assert (await becomes(stub, job.job_id, READY)).attempt == 3


async def test_a_job_that_loses_every_worker_is_dead(stub: Stub) -> None:
    job = await enqueue(stub, max_attempts=2, key="s")
    behind = await enqueue(stub, key="s")
    for _ in range(2):
        worker = await Worker.hello(stub)
        assert (await worker.lease()).job_id == job.job_id
        worker.cut()
    dead = await becomes(stub, job.job_id, DEAD)
    assert "went away" in dead.last_error
    assert (await (await Worker.hello(stub)).lease()).job_id == behind.job_id


async def test_what_was_settled_before_the_cut_is_settled(stub: Stub) -> None:
    job = await enqueue(stub)
    worker = await Worker.hello(stub)
    await worker.complete(await worker.lease())
    await worker.call.done_writing()
    assert (await becomes(stub, job.job_id, DONE)).attempt == 1


async def test_a_stale_token_never_settles(stub: Stub) -> None:
    job = await enqueue(stub)
    first = await Worker.hello(stub)
    stale = await first.lease()
    first.cut()
    second = await Worker.hello(stub)
    lease = await second.lease()
    for token in (stale.lease_token, str(uuid.uuid4()), "not a token"):
        await second.complete(JobLease(token))
        ended = (await second.hear()).lease_ended
        assert ended.lease_token == token
        assert not ended.cancelled
    assert (await read(stub, job.job_id)).state == LEASED
    await second.complete(lease)
    await second.settled(lease)


async def test_many_leases_and_settlements_share_a_message(stub: Stub) -> None:
    jobs = [await enqueue(stub) for _ in range(50)]
    worker = await Worker.hello(stub, credit=50)
    heard = jobs_of(await worker.hear())
    assert [lease.job_id for lease in heard] == [job.job_id for job in jobs]
    await worker.complete(*heard)
    settled = (await worker.hear()).settled.lease_tokens
    assert settled == [lease.lease_token for lease in heard]


async def test_large_jobs_do_not_share_a_message(stub: Stub) -> None:
    for _ in range(24):
        await enqueue(stub, payload=b"x" * 262_144)
    worker = await Worker.hello(stub, credit=24)
    assert len({(await worker.lease()).job_id for _ in range(24)}) == 24


async def test_a_worker_that_drains_gets_nothing_more_and_settles_what_it_has(stub: Stub) -> None:
    job = await enqueue(stub)
    worker = await Worker.hello(stub, credit=5)
    lease = await worker.lease()
    await worker.drain()
    await asyncio.sleep(0.05)
    late = await enqueue(stub)
    await worker.complete(lease)
    await worker.settled(lease)
    assert (await read(stub, job.job_id)).state == DONE
    assert (await read(stub, late.job_id)).state == READY
    await worker.hears_nothing()


async def test_settling_twice_is_settling_once(stub: Stub) -> None:
    job = await enqueue(stub)
    worker = await Worker.hello(stub)
    lease = await worker.lease()
    await worker.complete(lease)
    await worker.complete(lease)
    await worker.fail(lease, error="no, wait")
    await worker.settled(lease)
    assert (await becomes(stub, job.job_id, DONE)).attempt == 1


async def test_cancel_ends_a_waiting_job_and_lets_the_next_run(stub: Stub) -> None:
    jobs = [await enqueue(stub, key="s") for _ in range(3)]
    assert (await cancel(stub, jobs[1].job_id)).state == CANCELLED
    assert (await cancel(stub, jobs[0].job_id)).state == CANCELLED
    assert (await cancel(stub, jobs[0].job_id)).state == CANCELLED
    worker = await Worker.hello(stub, credit=5)
    assert (await worker.lease()).job_id == jobs[2].job_id
    await worker.hears_nothing()


async def test_cancel_stops_a_running_job_and_waits_for_its_worker(stub: Stub) -> None:
    job = await enqueue(stub, key="s")
    behind = await enqueue(stub, key="s")
    worker = await Worker.hello(stub, credit=5)
    lease = await worker.lease()
    assert (await cancel(stub, job.job_id)).state == LEASED
    ended = (await worker.hear(0.5)).lease_ended
    assert (ended.lease_token, ended.cancelled) == (lease.lease_token, True)
    assert (await cancel(stub, job.job_id)).state == LEASED
    assert (await read(stub, behind.job_id)).state == job_pb2.JOB_STATE_BLOCKED, "one of a key at a time"
    await worker.fail(lease, error="stopped", permanent=True)
    await worker.settled(lease)
    assert (await read(stub, job.job_id)).state == CANCELLED
    assert (await worker.lease()).job_id == behind.job_id


@pytest.mark.parametrize("how", ["complete", "retry", "cut"])
async def test_a_cancelled_job_never_comes_back(stub: Stub, how: str) -> None:
    job = await enqueue(stub)
    worker = await Worker.hello(stub)
    lease = await worker.lease()
    await cancel(stub, job.job_id)
    if how == "complete":
        await worker.complete(lease)
    elif how == "retry":
        await worker.fail(lease, error="again, please")
    else:
        worker.cut()
    await becomes(stub, job.job_id, CANCELLED)


async def test_an_ended_job_stays_as_it_is(stub: Stub) -> None:
    job = await enqueue(stub)
    worker = await Worker.hello(stub)
    lease = await worker.lease()
    await worker.complete(lease)
    await worker.settled(lease)
    assert (await cancel(stub, job.job_id)).state == DONE
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await retry(stub, job.job_id)
    assert reason_of(refused.value) == "JOB_STATE"


async def hear_to_the_end(call: grpc.aio.StreamStreamCall[Any, Any]) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


HELLO = queue_service_pb2.WorkRequest(hello=queue_service_pb2.WorkerHello(worker_id="w", kinds=["test"]))
DRAIN = queue_service_pb2.WorkRequest(drain=queue_service_pb2.WorkerDrain())
GRANT = queue_service_pb2.WorkRequest(grant=queue_service_pb2.CreditGrant(credit=10_000))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([GRANT], "WORK_PROTOCOL"),
        ([], "WORK_PROTOCOL"),
        ([HELLO, HELLO], "WORK_PROTOCOL"),
        ([HELLO, GRANT, GRANT], "WORK_PROTOCOL"),
        ([HELLO, DRAIN, GRANT], "WORK_PROTOCOL"),
        ([HELLO, queue_service_pb2.WorkRequest()], "INVALID_ARGUMENT"),
        ([HELLO, queue_service_pb2.WorkRequest(grant=queue_service_pb2.CreditGrant(credit=-1))], "INVALID_ARGUMENT"),
    ],
)
async def test_a_broken_protocol_is_refused_and_its_leases_end(
    stub: Stub, words: list[queue_service_pb2.WorkRequest], reason: str
) -> None:
    call = stub.Work()
    for word in words:
        await call.write(word)
    if not words:
        await call.done_writing()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await hear_to_the_end(call)
    assert reason_of(refused.value) == reason
    job = await enqueue(stub)
    assert (await (await Worker.hello(stub)).lease()).job_id == job.job_id


async def test_a_cut_call_cuts_no_transaction(stub: Stub, url: str) -> None:
    """Callers that go away in the middle leave no lock, no open transaction and no half a job."""

    async def hasty(n: int) -> None:
        call = stub.EnqueueJob(asked(key=f"k{n % 5}", idempotency_key=str(n)))
        await asyncio.sleep(0.0005 * (n % 7))
        call.cancel()

    for round_ in range(5):
        await asyncio.gather(*(hasty(round_ * 20 + n) for n in range(20)))
        (await Worker.hello(stub, credit=3)).cut()
    again = [await stub.EnqueueJob(asked(key=f"k{n % 5}", idempotency_key=str(n))) for n in range(100)]
    assert len({answer.job.job_id for answer in again}) == 100
    async with await psycopg.AsyncConnection.connect(url) as connection:
        found = await connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
        )
        assert await found.fetchone() == (0,)


async def test_two_replicas_share_the_work_and_tell_each_other(url: str) -> None:
    async with queue_at(url, "one") as one, queue_at(url, "two") as two:
        worker = await Worker.hello(Stub(two), credit=100)
        await asyncio.sleep(0.1)
        waits = []
        for _ in range(10):
            started = time.perf_counter()
            await enqueue(Stub(one))
            lease = await worker.lease()
            waits.append(time.perf_counter() - started)
            await asyncio.sleep(0.03)
        assert sorted(waits)[5] < 0.1, "the poll alone would take half a second"
        await cancel(Stub(one), lease.job_id)
        assert (await worker.hear(0.5)).lease_ended.cancelled


async def test_without_any_hint_the_poll_finds_the_job(stub: Stub, url: str) -> None:
    worker = await Worker.hello(stub)
    far = Timestamp(seconds=4_000_000_000)
    job = await enqueue(stub, run_time=far)
    await asyncio.sleep(0.1)
    with psycopg.connect(url) as connection:
        # As another replica leaves it whose hint is lost.
        connection.execute("UPDATE queue.job SET state = 'ready'")
    assert (await worker.lease(1.5)).job_id == job.job_id
