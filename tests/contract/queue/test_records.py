"""What changes the queue is on record with the change, and what was refused is not."""

import uuid
from collections.abc import Callable

import grpc
import psycopg
import pytest
from orginabox.queue.v1 import queue_service_pb2 as pb
from orginabox.queue.v1 import schedule_pb2

from tests.contract.queue.rig import TENANT, Stub, enqueue, queue_at


def recorded(url: str) -> list[tuple[str, str]]:
    """What waits to be brought to the log."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT record FROM queue.audit_outbox ORDER BY outbox_id").fetchall()
    return [(record["action"], record["target"]) for (record,) in rows]


async def test_each_change_is_on_record(database: Callable[..., str]) -> None:
    url = database("queue")
    async with queue_at(url) as channel:
        stub = Stub(channel)
        job = await enqueue(stub)
        assert recorded(url) == []
        await stub.PauseQueue(pb.PauseQueueRequest(kind="test"))
        await stub.ResumeQueue(pb.ResumeQueueRequest())
        for _ in range(2):
            await stub.CancelJob(pb.CancelJobRequest(tenant_id=TENANT, job_id=job.job_id))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.RetryJob(pb.RetryJobRequest(tenant_id=TENANT, job_id=job.job_id))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.CancelJob(pb.CancelJobRequest(tenant_id=TENANT, job_id=str(uuid.uuid4())))
        await stub.SetTenantShare(pb.SetTenantShareRequest(tenant_id=TENANT, weight=3))
        nightly = schedule_pb2.Schedule(tenant_id=TENANT, name="nightly", cron="0 3 * * *", kind="test")
        await stub.PutSchedule(pb.PutScheduleRequest(schedule=nightly))
        await stub.DeleteSchedule(pb.DeleteScheduleRequest(tenant_id=TENANT, name="nightly"))
    assert recorded(url) == [
        ("admin.queue_pause", "queue:test"),
        ("admin.queue_resume", "queue"),
        ("admin.job_cancel", f"job:{job.job_id}"),
        ("admin.queue_share", "queue"),
        ("admin.schedule_put", "schedule:nightly"),
        ("admin.schedule_delete", "schedule:nightly"),
    ]
