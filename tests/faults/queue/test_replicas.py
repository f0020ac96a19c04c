"""Two Queue processes on one database: they share the work, and either may die."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest
from orginabox.queue.v1 import queue_service_pb2, queue_service_pb2_grpc, schedule_pb2

from tests.allowed import AllowedChannel
from tests.contract.queue.rig import TENANT
from tests.faults.queue.rig import Rig, fault_rig, until

KEYS = 12
JOBS_PER_KEY = 12


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with fault_rig() as made:
        yield made


async def test_two_replicas_do_each_job_once_in_order_and_either_may_be_killed(rig: Rig) -> None:
    replicas = {name: rig.queue(name) for name in ("queue", "other")}
    for name in ("a", "b"):
        rig.worker(name)
        rig.worker(f"{name}-other", "other")

    async def enqueue_in_order(key: str) -> list[str]:
        acknowledged = []
        for n in range(JOBS_PER_KEY):
            job = await rig.enqueue("0.03", key=key, idempotency_key=f"{key}-{n}")
            acknowledged.append(job.job_id)
            await asyncio.sleep(0.25)
        return acknowledged

    enqueueing = {f"k{n}": asyncio.create_task(enqueue_in_order(f"k{n}")) for n in range(KEYS)}
    for name in ("other", "queue", "other"):
        await asyncio.sleep(1.2)
        replicas[name].kill()
        replicas[name].start()
    acknowledged = {key: await task for key, task in enqueueing.items()}
    await rig.drained()
    effects: dict[str, list[str]] = defaultdict(list)
    for key, job_id in rig.rows("SELECT key, job_id FROM effect ORDER BY place"):
        effects[str(key)].append(str(job_id))
    assert effects == acknowledged
    assert {run[0].partition("-")[2] for run in rig.runs()} == {"", "other"}, "both replicas handed out"


async def test_a_pause_a_limit_and_a_tick_hold_on_both_replicas(rig: Rig) -> None:
    for name in ("queue", "other"):
        rig.queue(name)
    async with AllowedChannel(rig.address_of("other"), "queue") as channel:
        other = queue_service_pb2_grpc.QueueServiceStub(channel)
        await rig.enqueue("0")
        rig.worker("a")
        await rig.drained()
        await other.PauseQueue(queue_service_pb2.PauseQueueRequest(kind="test"))
        jobs = [await rig.enqueue("0.4") for _ in range(6)]
        rig.worker("b", "other")
        await asyncio.sleep(1.5)
        assert not [run for run in rig.runs() if run[2] in {job.job_id for job in jobs}]
        await other.SetTenantShare(queue_service_pb2.SetTenantShareRequest(tenant_id=TENANT, max_in_flight=2))
        await asyncio.sleep(1.2)  # the other replica looks once a second
        await other.ResumeQueue(queue_service_pb2.ResumeQueueRequest())
        most = 0
        while rig.rows("SELECT FROM queue.job"):
            most = max(most, len(rig.rows("SELECT FROM queue.job WHERE state = 'leased'")))
            await asyncio.sleep(0.02)
        assert most == 2
        schedule = schedule_pb2.Schedule(tenant_id=TENANT, name="yearly", cron="0 0 1 1 *", kind="test", payload=b"0")
        await other.PutSchedule(queue_service_pb2.PutScheduleRequest(schedule=schedule))
        rig.rows("UPDATE queue.schedule SET next_time = now() RETURNING name")
        await until(lambda: rig.rows("SELECT FROM queue.ended_job WHERE idempotency_key LIKE 'cron:%'"))
        await asyncio.sleep(1)
        assert len(rig.rows("SELECT FROM queue.ended_job WHERE idempotency_key LIKE 'cron:%'")) == 1


async def test_metrics_tell_how_the_queue_stands_and_what_became_of_leases(rig: Rig) -> None:
    rig.queue()
    killed = rig.worker("a")
    slow = await rig.enqueue("30")
    await rig.first_run(slow)
    killed.kill()
    await until(lambda: 'oiab_queue_leases_lost_total{how="stream broke"} 1.0' in rig.metrics())
    assert 'oiab_queue_ended_total{state="ready"} 1.0' in rig.metrics()
    await until(lambda: 'oiab_queue_jobs{kind="test",state="ready"} 1.0' in rig.metrics())
    told = rig.metrics()
    for name in ("claim_seconds_count", "wait_seconds_count", "enqueue_jobs_count", "oldest_ready_seconds{"):
        assert f"oiab_queue_{name}" in told
