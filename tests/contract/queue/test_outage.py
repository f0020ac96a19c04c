"""The database goes away and comes back under open streams."""

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import grpc
import psycopg
import pytest
from orginabox.queue.v1 import job_pb2

from tests.contract.queue.rig import Stub, Worker, asked, becomes, enqueue, queue_at, read

READY = job_pb2.JOB_STATE_READY
DONE = job_pb2.JOB_STATE_COMPLETED
LEASED = job_pb2.JOB_STATE_LEASED


@pytest.fixture
def url(database: Callable[..., str]) -> str:
    return database("queue")


@pytest.fixture
async def stub(url: str) -> AsyncIterator[Stub]:
    async with queue_at(url) as channel:
        yield Stub(channel)


def cut_connections(url: str, *before: str) -> None:
    """Cut every connection of the queue, after a change of the tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in before:
            connection.execute(statement.encode())
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'oiab-queue' AND datname = current_database()"
        )


async def test_streams_and_leases_live_through_a_cut(stub: Stub, url: str) -> None:
    job = await enqueue(stub)
    worker = await Worker.hello(stub, credit=5)
    lease = await worker.lease()
    cut_connections(url)
    await worker.complete(lease)
    await worker.settled(lease)
    assert (await read(stub, job.job_id)).state == DONE
    cut_connections(url)
    again = await stub.EnqueueJob(asked(idempotency_key="again"))  # the channel tries once more by itself
    assert (await worker.lease()).job_id == again.job.job_id


async def test_a_claim_that_a_crash_undid_ends_its_lease(stub: Stub, url: str) -> None:
    await enqueue(stub)
    worker = await Worker.hello(stub)
    lease = await worker.lease()
    cut_connections(url, "UPDATE queue.job SET state = 'ready', session_id = NULL, token = NULL, attempt = 0")
    ended = (await worker.hear()).lease_ended
    assert (ended.lease_token, ended.cancelled) == (lease.lease_token, False)
    await worker.grant(1)
    again = await worker.lease()
    assert (again.job_id, again.attempt) == (lease.job_id, 1)
    assert again.lease_token != lease.lease_token, "tokens are random, so a lost claim's is never given again"


async def test_a_claim_whose_answer_was_lost_is_taken_back(stub: Stub, url: str) -> None:
    worker = await Worker.hello(stub, credit=0)
    job = await enqueue(stub)
    cut_connections(
        url,
        "UPDATE queue.job SET state = 'leased', attempt = 1, token = gen_random_uuid(),"
        " session_id = (SELECT id FROM queue.worker_session)",
    )
    await becomes(stub, job.job_id, READY)
    await worker.grant(1)
    assert (await worker.lease()).job_id == job.job_id


async def test_a_session_that_another_replica_reaped_ends_its_stream(url: str) -> None:
    async with queue_at(url, "one") as one, queue_at(url, "two") as two:
        job = await enqueue(Stub(one))
        worker = await Worker.hello(Stub(one))
        lease = await worker.lease()
        with psycopg.connect(url) as connection:
            # As after a long stop of this replica.
            connection.execute("UPDATE queue.worker_session SET expire_time = now() - interval '1 second'")
        other = await Worker.hello(Stub(two))
        again = await other.lease()
        assert (again.job_id, again.attempt) == (job.job_id, 2)
        await worker.complete(lease)
        assert (await worker.hear()).lease_ended.lease_token == lease.lease_token
        await other.complete(again)
        await other.settled(again)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await hear_to_the_end(worker)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


async def hear_to_the_end(worker: Worker) -> None:
    while await worker.call.read() is not grpc.aio.EOF:
        pass


async def test_a_replica_that_never_comes_back_loses_its_jobs(url: str) -> None:
    async with queue_at(url, "one") as channel:
        stub = Stub(channel)
        job = await enqueue(stub)
        with psycopg.connect(url) as connection:
            connection.execute(
                "INSERT INTO queue.worker_session (id, instance, worker_id, kinds, expire_time)"
                " VALUES (%(id)s, 'gone', 'gone', '{test}', now() + interval '1 second')",
                {"id": (session := uuid4())},
            )
            connection.execute(
                "UPDATE queue.job SET state = 'leased', attempt = 1, token = gen_random_uuid(), session_id = %s",
                (session,),
            )
        worker = await Worker.hello(stub)
        await asyncio.sleep(0.5)
        assert (await read(stub, job.job_id)).state == LEASED
        assert (await worker.lease()).attempt == 2
