"""The queue, as those who operate the box see it."""

import asyncio

import grpc
import pytest
from orginabox.api.v1 import job_service_pb2 as pb
from orginabox.api.v1 import job_service_pb2_grpc
from orginabox.queue.v1 import job_pb2, queue_service_pb2

from services.api import reaper
from services.kit.ids import DEFAULT_TENANT, new_id
from tests.contract.api.conftest import Rig
from tests.contract.api.test_turn_log import make_turn, open_turn, read


@pytest.fixture
def jobs(api: Rig) -> job_service_pb2_grpc.JobServiceStub:
    return job_service_pb2_grpc.JobServiceStub(api.channel)


async def test_jobs_are_listed_for_the_callers_tenant_and_without_what_they_hold(
    api: Rig, jobs: job_service_pb2_grpc.JobServiceStub
) -> None:
    request = pb.ListJobsRequest(
        state=job_pb2.JOB_STATE_DEAD, kind="agent-turn", key="session:1", page_size=7, page_token="t"
    )
    page = await jobs.ListJobs(request, metadata=api.key)
    assert ([job.payload for job in page.jobs], page.next_page_token) == ([b""], "more")
    assert page.jobs[0].key == "session:1"
    assert api.peers.queue_calls == [
        queue_service_pb2.ListJobsRequest(
            tenant_id=str(DEFAULT_TENANT),
            state=job_pb2.JOB_STATE_DEAD,
            kind="agent-turn",
            key="session:1",
            page_size=7,
            page_token="t",
        )
    ]
    assert (await jobs.GetJob(pb.GetJobRequest(job_id=str(new_id())), metadata=api.key)).job.payload == b""


async def test_changes_are_asked_of_queue_which_records_them(
    api: Rig, jobs: job_service_pb2_grpc.JobServiceStub
) -> None:
    job_id = str(new_id())
    assert (await jobs.CancelJob(pb.CancelJobRequest(job_id=job_id), metadata=api.key)).job.job_id == job_id
    assert (await jobs.RetryJob(pb.RetryJobRequest(job_id=job_id), metadata=api.key)).job.job_id == job_id
    await jobs.PauseQueue(pb.PauseQueueRequest(kind="agent-turn"), metadata=api.key)
    await jobs.ResumeQueue(pb.ResumeQueueRequest(), metadata=api.key)
    assert [type(call).__name__ for call in api.peers.queue_calls[-2:]] == ["PauseQueueRequest", "ResumeQueueRequest"]
    assert api.peers.actions() == []


async def test_the_share_of_the_callers_tenant_is_set(api: Rig, jobs: job_service_pb2_grpc.JobServiceStub) -> None:
    await jobs.SetQueueShare(pb.SetQueueShareRequest(weight=3, max_in_flight=2), metadata=api.key)
    assert api.peers.queue_calls == [
        queue_service_pb2.SetTenantShareRequest(tenant_id=str(DEFAULT_TENANT), weight=3, max_in_flight=2)
    ]
    with pytest.raises(grpc.aio.AioRpcError, match="weight"):
        await jobs.SetQueueShare(pb.SetQueueShareRequest(weight=1001), metadata=api.key)


async def test_the_turn_of_a_cancelled_job_is_aborted(
    api: Rig, jobs: job_service_pb2_grpc.JobServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "SWEEP_SECONDS", 0.2)
    turn_id = await make_turn(api)
    await open_turn(api, turn_id)
    await api.until(lambda: turn_id in api.peers.job_ids)
    await asyncio.sleep(0.2)  # until the answer is on disk
    job_id = api.peers.job_ids[turn_id]
    await jobs.CancelJob(pb.CancelJobRequest(job_id=job_id), metadata=api.key)
    await api.until(lambda: turn_id in api.peers.aborted)
    api.peers.job_state = job_pb2.JOB_STATE_CANCELLED
    events = await asyncio.wait_for(read(api, turn_id), 20)
    assert [event.WhichOneof("event") for event in events] == ["aborted"]


async def test_the_queue_tells_how_it_stands(api: Rig, jobs: job_service_pb2_grpc.JobServiceStub) -> None:
    answer = await jobs.GetQueueStats(pb.GetQueueStatsRequest(), metadata=api.key)
    assert [(kind.kind, kind.ready) for kind in answer.kinds] == [("agent-turn", 3)]
