"""Jobs go in once: what an idempotency key stands for, where a job stands, and what is refused."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.queue.v1 import job_pb2, queue_service_pb2

from services.kit.status import reason_of
from tests.contract.queue.rig import TENANT, Stub, asked, enqueue, queue_at, read


@pytest.fixture
async def stub(database: Callable[..., str]) -> AsyncIterator[Stub]:
    async with queue_at(database("queue")) as channel:
        yield Stub(channel)


async def test_a_job_reads_as_it_was_asked_for(stub: Stub) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await stub.EnqueueJob(
        asked(kind="agent-turn", key="s", payload=b"\x00\xff", idempotency_key="i", priority=-7, trace_parent=parent)
    )
    job = await read(stub, answer.job.job_id)
    assert job == answer.job
    assert (job.kind, job.key, job.payload, job.idempotency_key) == ("agent-turn", "s", b"\x00\xff", "i")
    assert (job.state, job.priority, job.attempt, job.max_attempts) == (job_pb2.JOB_STATE_READY, -7, 0, 5)
    assert job.trace_parent == parent
    assert job.HasField("create_time")
    assert not job.HasField("end_time")


async def test_a_repeated_key_answers_with_the_first_job(stub: Stub) -> None:
    first = await stub.EnqueueJob(asked(idempotency_key="turn:1", key="s"))
    await stub.EnqueueJob(asked(key="s"))
    again = await stub.EnqueueJob(asked(idempotency_key="turn:1", key="s", priority=9))
    assert again == first


async def test_the_same_key_of_another_tenant_is_another_intent(stub: Stub) -> None:
    first = await enqueue(stub, idempotency_key="turn:1")
    other = await enqueue(stub, idempotency_key="turn:1", tenant_id=str(uuid.uuid4()))
    assert first.job_id != other.job_id


@pytest.mark.parametrize("other", [{"kind": "other"}, {"key": "other"}, {"payload": b"other"}])
async def test_a_key_used_for_other_work_is_refused(stub: Stub, other: dict[str, Any]) -> None:
    await enqueue(stub, idempotency_key="turn:1")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await enqueue(stub, idempotency_key="turn:1", **other)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason_of(refused.value) == "IDEMPOTENCY_KEY_REUSED"


async def test_thirty_callers_with_one_key_get_one_job(stub: Stub) -> None:
    jobs = await asyncio.gather(*(enqueue(stub, idempotency_key="one", key="s") for _ in range(30)))
    assert len({job.job_id for job in jobs}) == 1


async def test_many_jobs_go_in_with_one_call_and_are_answered_in_their_order(stub: Stub) -> None:
    requests = [asked(key="s" if n % 2 else "", idempotency_key=f"i{n}") for n in range(1_000)]
    answers = (await stub.EnqueueJobs(queue_service_pb2.EnqueueJobsRequest(jobs=requests))).jobs
    assert [answer.job.idempotency_key for answer in answers] == [request.idempotency_key for request in requests]
    assert [answer.position for answer in answers[1::2]] == list(range(500))
    again = (await stub.EnqueueJobs(queue_service_pb2.EnqueueJobsRequest(jobs=requests))).jobs
    assert [answer.job.job_id for answer in again] == [answer.job.job_id for answer in answers]
    assert not answers[0].job.payload
    assert (await read(stub, answers[0].job.job_id)).payload == b"work"


async def test_one_that_is_refused_refuses_all(stub: Stub) -> None:
    await enqueue(stub, idempotency_key="known")
    bad = asked(idempotency_key="known", payload=b"other")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.EnqueueJobs(queue_service_pb2.EnqueueJobsRequest(jobs=[asked(), bad, asked()]))
    assert reason_of(refused.value) == "IDEMPOTENCY_KEY_REUSED"
    assert len((await stub.ListJobs(queue_service_pb2.ListJobsRequest(tenant_id=TENANT))).jobs) == 1


async def test_a_stream_of_jobs_can_be_cut_and_sent_again(stub: Stub) -> None:
    requests = [
        queue_service_pb2.StreamJobsRequest(jobs=[asked(idempotency_key=f"{n}-{m}") for m in range(50)])
        for n in range(20)
    ]
    cut = stub.StreamJobs()
    for request in requests[:10]:
        await cut.write(request)
    cut.cancel()
    assert (await stub.StreamJobs(iter(requests))).jobs == 1_000
    stats = await stub.ListJobs(queue_service_pb2.ListJobsRequest(tenant_id=TENANT, page_size=500))
    assert stats.next_page_token
    assert len({job.job_id for job in stats.jobs}) == 500


async def test_a_bad_job_of_a_stream_refuses_the_stream(stub: Stub) -> None:
    await enqueue(stub, idempotency_key="known")
    for bad, reason in (
        (asked(idempotency_key="known", payload=b"other"), "IDEMPOTENCY_KEY_REUSED"),
        (asked(kind="Not A Kind"), "INVALID_ARGUMENT"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.StreamJobs(iter([queue_service_pb2.StreamJobsRequest(jobs=[asked(), bad])]))
        assert reason_of(refused.value) == reason


async def test_positions_count_the_jobs_of_the_key_before(stub: Stub) -> None:
    answers = [await stub.EnqueueJob(asked(key="s", idempotency_key=str(n))) for n in range(3)]
    assert [answer.position for answer in answers] == [0, 1, 2]
    assert [answer.job.state for answer in answers] == [
        job_pb2.JOB_STATE_READY,
        job_pb2.JOB_STATE_BLOCKED,
        job_pb2.JOB_STATE_BLOCKED,
    ]
    assert (await stub.EnqueueJob(asked(key="s", idempotency_key="2"))).position == 2
    assert (await stub.EnqueueJob(asked(key="other"))).position == 0


async def test_jobs_without_a_key_wait_for_none(stub: Stub) -> None:
    answers = [await stub.EnqueueJob(asked()) for _ in range(3)]
    assert {(answer.position, answer.job.state) for answer in answers} == {(0, job_pb2.JOB_STATE_READY)}


@pytest.mark.parametrize(
    "bad",
    [
        {"tenant_id": "nobody"},
        {"kind": "Not A Kind"},
        {"key": "nul\0"},
        {"idempotency_key": ""},
        {"idempotency_key": "nul\0"},
        {"priority": 101},
        {"max_attempts": -1},
        {"payload": b"x" * 262_145},
        {"run_time": Timestamp(seconds=10**12)},
        {"run_time": Timestamp(nanos=-1)},
        {"trace_parent": "nul\0"},
    ],
    ids=str,
)
async def test_bad_input_is_refused_and_hurts_nobody(stub: Stub, bad: dict[str, Any]) -> None:
    good, refused = await asyncio.gather(enqueue(stub), enqueue(stub, **bad), return_exceptions=True)
    assert isinstance(good, job_pb2.Job)
    assert isinstance(refused, grpc.aio.AioRpcError)
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(refused) == "INVALID_ARGUMENT"


async def test_an_unknown_job_is_not_found(stub: Stub) -> None:
    job = await enqueue(stub)
    for tenant, job_id in ((TENANT, str(uuid.uuid4())), (str(uuid.uuid4()), job.job_id)):
        calls = (
            stub.GetJob(queue_service_pb2.GetJobRequest(tenant_id=tenant, job_id=job_id)),
            stub.CancelJob(queue_service_pb2.CancelJobRequest(tenant_id=tenant, job_id=job_id)),
            stub.RetryJob(queue_service_pb2.RetryJobRequest(tenant_id=tenant, job_id=job_id)),
        )
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert reason_of(refused.value) == "JOB_NOT_FOUND"


async def test_lists_are_paged_newest_first_and_filtered(stub: Stub) -> None:
    jobs = [await enqueue(stub, key="s" if n % 2 else "", kind="odd" if n % 2 else "even") for n in range(7)]
    await enqueue(stub, tenant_id=str(uuid.uuid4()))

    async def ids(**fields: Any) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            page = await stub.ListJobs(
                queue_service_pb2.ListJobsRequest(tenant_id=TENANT, page_size=2, page_token=token, **fields)
            )
            found += [job.job_id for job in page.jobs]
            if not (token := page.next_page_token):
                return found

    newest_first = [job.job_id for job in reversed(jobs)]
    assert await ids() == newest_first
    assert await ids(kind="odd") == newest_first[1::2]
    assert await ids(key="s") == newest_first[1::2]
    assert await ids(state=job_pb2.JOB_STATE_BLOCKED) == newest_first[1:4:2]
    assert await ids(state=job_pb2.JOB_STATE_DEAD) == []


async def test_a_page_token_of_another_list_is_refused(stub: Stub) -> None:
    for _ in range(2):
        await enqueue(stub)
    page = await stub.ListJobs(queue_service_pb2.ListJobsRequest(tenant_id=TENANT, page_size=1))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ListJobs(
            queue_service_pb2.ListJobsRequest(tenant_id=TENANT, kind="test", page_token=page.next_page_token)
        )
    assert reason_of(refused.value) == "PAGE_TOKEN_INVALID"
