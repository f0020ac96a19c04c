"""Jobs that wait for other jobs and for times: dependencies, deadlines, schedules; and kinds that are paused."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.queue.v1 import job_pb2, queue_service_pb2, schedule_pb2

from services.kit.status import reason_of
from tests.contract.queue.rig import TENANT, Stub, Worker, becomes, enqueue, jobs_of, queue_at, read

READY = job_pb2.JOB_STATE_READY
BLOCKED = job_pb2.JOB_STATE_BLOCKED
DELAYED = job_pb2.JOB_STATE_DELAYED
DONE = job_pb2.JOB_STATE_COMPLETED
DEAD = job_pb2.JOB_STATE_DEAD
CANCELLED = job_pb2.JOB_STATE_CANCELLED


@pytest.fixture
def url(database: Callable[..., str]) -> str:
    return database("queue")


@pytest.fixture
async def stub(url: str) -> AsyncIterator[Stub]:
    async with queue_at(url) as channel:
        yield Stub(channel)


def after(seconds: float) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return found


async def cancel(stub: Stub, job: job_pb2.Job) -> None:
    await stub.CancelJob(queue_service_pb2.CancelJobRequest(tenant_id=TENANT, job_id=job.job_id))


async def done(worker: Worker, job: job_pb2.Job) -> None:
    """Hear of a job, and do it."""
    lease = await worker.lease()
    assert lease.job_id == job.job_id
    await worker.complete(lease)
    await worker.settled(lease)


async def test_a_job_waits_until_all_that_it_depends_on_is_completed(stub: Stub) -> None:
    first, second = await enqueue(stub), await enqueue(stub)
    last = await enqueue(stub, depends_on=[first.job_id, second.job_id], key="s")
    behind = await enqueue(stub, key="s")
    assert last.state == BLOCKED
    assert list(last.depends_on) == [first.job_id, second.job_id]
    assert behind.state == READY, "a job that waits for others stands in no line yet"
    worker = await Worker.hello(stub, credit=3)
    leases = {(lease := await worker.lease()).job_id: lease for _ in range(3)}
    assert set(leases) == {first.job_id, second.job_id, behind.job_id}
    await worker.complete(leases[behind.job_id])
    await worker.settled(leases[behind.job_id])
    await worker.complete(leases[first.job_id])
    await worker.settled(leases[first.job_id])
    assert (await read(stub, last.job_id)).state == BLOCKED
    await worker.grant(1)
    await worker.complete(leases[second.job_id])
    await worker.settled(leases[second.job_id])
    await done(worker, last)


@pytest.mark.parametrize("how", ["dead", "cancelled waiting", "cancelled running"])
async def test_what_depends_on_a_job_that_is_lost_ends_as_it_did_all_the_way(stub: Stub, how: str) -> None:
    worker = await Worker.hello(stub, credit=0 if how == "cancelled waiting" else 5)
    root = await enqueue(stub)
    other = await enqueue(stub, run_time=after(60))
    child = await enqueue(stub, depends_on=[root.job_id, other.job_id])
    grandchild = await enqueue(stub, depends_on=[child.job_id])
    if how == "cancelled waiting":
        await cancel(stub, root)
    else:
        lease = await worker.lease()
        if how == "cancelled running":
            await cancel(stub, root)
        await worker.fail(lease, error="no", permanent=True)
    state = DEAD if how == "dead" else CANCELLED
    for job in (root, child, grandchild):
        await becomes(stub, job.job_id, state)
    assert "depends on" in (await read(stub, grandchild.job_id)).last_error
    assert (await read(stub, other.job_id)).state == DELAYED


async def test_what_has_ended_counts_at_once(stub: Stub) -> None:
    completed, cancelled = await enqueue(stub), await enqueue(stub, run_time=after(60))
    await done(await Worker.hello(stub), completed)
    await cancel(stub, cancelled)
    free = await enqueue(stub, depends_on=[completed.job_id])
    assert (await becomes(stub, free.job_id, READY)).attempt == 0
    assert (await enqueue(stub, depends_on=[completed.job_id, cancelled.job_id])).state == CANCELLED


async def test_a_job_cannot_depend_on_one_that_is_not_there(stub: Stub) -> None:
    theirs = await enqueue(stub, tenant_id=str(uuid.uuid4()))
    for missing in (theirs.job_id, str(uuid.uuid4())):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await enqueue(stub, depends_on=[missing], idempotency_key="i")
        assert reason_of(refused.value) == "JOB_NOT_FOUND"
    assert (await enqueue(stub, idempotency_key="i")).state == READY, "a refused job has left no intent"


async def test_a_dependent_that_is_enqueued_twice_is_one(stub: Stub) -> None:
    first = await enqueue(stub)
    one = await enqueue(stub, depends_on=[first.job_id], idempotency_key="i")
    assert (await enqueue(stub, depends_on=[first.job_id], idempotency_key="i")).job_id == one.job_id


async def test_a_plan_of_many_steps_runs_in_order_with_many_workers(stub: Stub) -> None:
    """Layers of jobs, each of which depends on all of the layer before."""
    layers: list[list[str]] = [[(await enqueue(stub)).job_id for _ in range(5)]]
    for _ in range(3):
        layers.append([(await enqueue(stub, depends_on=layers[-1])).job_id for _ in range(5)])
    workers = [await Worker.hello(stub, credit=20) for _ in range(3)]
    ran: list[str] = []

    async def work(worker: Worker) -> None:
        while True:
            response = await worker.hear(10)
            if response.HasField("leases"):
                ran.extend(response.leases.job_ids)
                await worker.complete(*jobs_of(response))

    tasks = [asyncio.create_task(work(worker)) for worker in workers]
    for job_id in layers[-1]:
        await becomes(stub, job_id, DONE, 8)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [set(ran[n : n + 5]) for n in range(0, 20, 5)] == [set(layer) for layer in layers]


async def test_a_job_that_has_not_ended_by_its_deadline_is_dead(stub: Stub) -> None:
    job = await enqueue(stub, deadline=after(0.4), key="s")
    behind = await enqueue(stub, key="s")
    dependent = await enqueue(stub, depends_on=[job.job_id])
    dead = await becomes(stub, job.job_id, DEAD, 2)
    assert dead.last_error == "its deadline passed"
    await becomes(stub, behind.job_id, READY)
    await becomes(stub, dependent.job_id, DEAD)


async def test_a_running_job_is_told_to_stop_at_its_deadline(stub: Stub) -> None:
    worker = await Worker.hello(stub)
    job = await enqueue(stub, deadline=after(0.5))
    lease = await worker.lease()
    ended = (await worker.hear(2)).lease_ended
    assert (ended.lease_token, ended.cancelled) == (lease.lease_token, True)
    await worker.complete(lease)
    assert (await becomes(stub, job.job_id, DEAD)).last_error == "its deadline passed"
    revived = (await stub.RetryJob(queue_service_pb2.RetryJobRequest(tenant_id=TENANT, job_id=job.job_id))).job
    assert not revived.HasField("deadline")


async def test_a_deadline_that_is_kept_changes_nothing(stub: Stub) -> None:
    worker = await Worker.hello(stub)
    job = await enqueue(stub, deadline=after(0.6))
    await done(worker, job)
    await asyncio.sleep(0.8)
    assert (await read(stub, job.job_id)).state == DONE


@pytest.mark.parametrize("kind", ["test", ""])
async def test_a_paused_kind_is_not_handed_out_by_any_replica_until_it_is_resumed(url: str, kind: str) -> None:
    async with queue_at(url, "one") as one, queue_at(url, "two") as two:
        stub = Stub(one)
        await stub.PauseQueue(queue_service_pb2.PauseQueueRequest(kind=kind))
        await stub.PauseQueue(queue_service_pb2.PauseQueueRequest(kind=kind))
        job = await enqueue(stub)
        worker = await Worker.hello(Stub(two))
        await asyncio.sleep(0.3)
        assert (await read(stub, job.job_id)).state == READY
        (stats,) = (await stub.GetQueueStats(queue_service_pb2.GetQueueStatsRequest())).kinds
        assert (stats.kind, stats.paused, stats.ready) == ("test", True, 1)
        await stub.ResumeQueue(queue_service_pb2.ResumeQueueRequest(kind=kind))
        await done(worker, job)


async def test_stats_count_kind_by_kind(stub: Stub) -> None:
    worker = await Worker.hello(stub, credit=2, kinds=("a",))
    for _ in range(2):
        await enqueue(stub, kind="a")
    await worker.fail(await worker.lease(), error="no", permanent=True)
    await enqueue(stub, kind="b", key="s")
    blocked = await enqueue(stub, kind="b", key="s")
    await enqueue(stub, kind="b", run_time=after(60))
    await enqueue(stub, kind="b", depends_on=[blocked.job_id])
    await asyncio.sleep(0.2)
    stats = (await stub.GetQueueStats(queue_service_pb2.GetQueueStatsRequest())).kinds
    counts = [(found.kind, found.ready, found.blocked, found.delayed, found.leased, found.dead) for found in stats]
    assert counts == [("a", 0, 0, 0, 1, 1), ("b", 1, 2, 1, 0, 0)]
    assert not stats[0].HasField("oldest_age")
    assert 0.1 < stats[1].oldest_age.ToTimedelta().total_seconds() < 5


def schedule(**fields: Any) -> queue_service_pb2.PutScheduleRequest:
    made_up = {"tenant_id": TENANT, "name": "daily", "cron": "0 9 * * mon-fri", "kind": "test", "payload": b"work"}
    return queue_service_pb2.PutScheduleRequest(schedule=schedule_pb2.Schedule(**(made_up | fields)))


async def test_schedules_are_put_listed_changed_and_deleted(stub: Stub) -> None:
    for n in range(5):
        await stub.PutSchedule(schedule(name=f"s{n}", time_zone="Europe/Berlin"))
    changed = (await stub.PutSchedule(schedule(name="s1", cron="*/5 * * * *"))).schedule
    assert timedelta() < changed.next_time.ToDatetime(UTC) - datetime.now(UTC) <= timedelta(minutes=5)
    await stub.DeleteSchedule(queue_service_pb2.DeleteScheduleRequest(tenant_id=TENANT, name="s3"))
    await stub.DeleteSchedule(queue_service_pb2.DeleteScheduleRequest(tenant_id=TENANT, name="s3"))
    names: list[str] = []
    token = ""
    while True:
        request = queue_service_pb2.ListSchedulesRequest(tenant_id=TENANT, page_size=2, page_token=token)
        page = await stub.ListSchedules(request)
        names += [found.name for found in page.schedules]
        if not (token := page.next_page_token):
            break
    assert names == ["s0", "s1", "s2", "s4"]


@pytest.mark.parametrize(
    "bad",
    [{"cron": "* * * *"}, {"cron": "* * * * * *"}, {"cron": "61 * * * *"}, {"time_zone": "Mars/Olympus"}],
    ids=str,
)
async def test_a_schedule_that_cannot_be_read_is_refused(stub: Stub, bad: dict[str, str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.PutSchedule(schedule(**bad))
    assert reason_of(refused.value) == "INVALID_ARGUMENT"


async def test_each_tick_comes_once_with_many_replicas_and_a_missed_one_is_made_up_for_once(url: str) -> None:
    async with queue_at(url, "one") as one, queue_at(url, "two"), queue_at(url, "three"):
        stub = Stub(one)
        await stub.PutSchedule(schedule(cron="* * * * *", key="s"))
        with psycopg.connect(url) as connection:
            # As if nothing had run for an hour and a half.
            connection.execute("UPDATE queue.schedule SET next_time = date_trunc('minute', now()) - interval '90 min'")
        await asyncio.sleep(2)
        jobs = (await stub.ListJobs(queue_service_pb2.ListJobsRequest(tenant_id=TENANT))).jobs
        # The clock may have come to a minute meanwhile, which is a tick of its own.
        assert 1 <= len(jobs) <= 2
        assert jobs[-1].idempotency_key.startswith(f"cron:{TENANT}:daily:")
        assert jobs[-1].payload == b"work"
        (found,) = (await stub.ListSchedules(queue_service_pb2.ListSchedulesRequest(tenant_id=TENANT))).schedules
        assert found.next_time.ToDatetime(UTC) > datetime.now(UTC) - timedelta(seconds=1)
