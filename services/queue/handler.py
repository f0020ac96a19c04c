"""The contract's methods."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import grpc
from orginabox.queue.v1 import queue_service_pb2, queue_service_pb2_grpc

from services.kit.interceptor import shielded
from services.kit.pages import page_cursor, page_size, page_token
from services.kit.telemetry import log
from services.queue import mapping, operations
from services.queue.bell import Bell
from services.queue.dispatcher import Dispatcher
from services.queue.enqueuer import Enqueuer
from services.queue.job import JobState, WorkProtocolBroken
from services.queue.store import Store
from services.queue.work_session import Goodbye, WorkSession

Context = grpc.aio.ServicerContext[Any, Any]
SERVICE = "orginabox.queue.v1.QueueService"
HEARTBEAT_SECONDS = 5.0
BREAK_SECONDS = 0.05
HEARTBEAT = queue_service_pb2.WorkResponse(heartbeat=queue_service_pb2.WorkHeartbeat())


class QueueHandler(queue_service_pb2_grpc.QueueServiceServicer):
    """The queue, as its callers and workers see it."""

    def __init__(self, store: Store, bell: Bell, enqueuer: Enqueuer, dispatcher: Dispatcher) -> None:
        self._store = store
        self._bell = bell
        self._enqueuer = enqueuer
        self._dispatcher = dispatcher

    async def stop(self, seconds: float) -> None:
        """End every stream, and wait so long for the settlements that came to be on disk."""
        try:
            async with asyncio.timeout(seconds):
                await self._dispatcher.stop()
        except TimeoutError:
            log().warning("stopped before every settlement was on disk")

    async def EnqueueJob(
        self, request: queue_service_pb2.EnqueueJobRequest, context: Context
    ) -> queue_service_pb2.EnqueueJobResponse:
        placed = await self._enqueuer.enqueue(mapping.new_job_from_proto(request))
        return queue_service_pb2.EnqueueJobResponse(job=mapping.job_to_proto(placed.job), position=placed.position)

    async def GetJob(
        self, request: queue_service_pb2.GetJobRequest, context: Context
    ) -> queue_service_pb2.GetJobResponse:
        job = await operations.get_job(self._store, UUID(request.tenant_id), UUID(request.job_id))
        return queue_service_pb2.GetJobResponse(job=mapping.job_to_proto(job))

    async def ListJobs(
        self, request: queue_service_pb2.ListJobsRequest, context: Context
    ) -> queue_service_pb2.ListJobsResponse:
        filters = {"tenant": request.tenant_id, "state": request.state, "kind": request.kind, "key": request.key}
        cursor = page_cursor(request.page_token, **filters)
        size = page_size(request.page_size)
        found = await operations.list_jobs(
            self._store,
            UUID(request.tenant_id),
            states=mapping.states_from_proto(request.state),
            kind=request.kind,
            key=request.key,
            before=cursor.id("before") if cursor else None,
            count=size + 1,
        )
        jobs = found[:size]
        token = page_token({"before": str(jobs[-1].id)}, **filters) if len(found) > size else ""
        return queue_service_pb2.ListJobsResponse(
            jobs=[mapping.job_to_proto(job) for job in jobs], next_page_token=token
        )

    async def CancelJob(
        self, request: queue_service_pb2.CancelJobRequest, context: Context
    ) -> queue_service_pb2.CancelJobResponse:
        job = await operations.cancel_job(self._store, UUID(request.tenant_id), UUID(request.job_id))
        if job.state is JobState.LEASED:
            self._bell.cancelled()
        else:
            self._bell.ready()
        return queue_service_pb2.CancelJobResponse(job=mapping.job_to_proto(job))

    async def RetryJob(
        self, request: queue_service_pb2.RetryJobRequest, context: Context
    ) -> queue_service_pb2.RetryJobResponse:
        job = await operations.retry_job(self._store, UUID(request.tenant_id), UUID(request.job_id))
        self._bell.ready()
        return queue_service_pb2.RetryJobResponse(job=mapping.job_to_proto(job))

    async def Work(
        self, request_iterator: AsyncIterator[queue_service_pb2.WorkRequest], context: Context
    ) -> AsyncIterator[queue_service_pb2.WorkResponse]:
        session = mapping.session_from_proto(await _hello(request_iterator))
        # A stream that is cut while nobody waits for its next message tells it only here.
        context.add_done_callback(lambda _: self._dispatcher.close(session))  # type: ignore[arg-type] # any callable will do
        try:
            await shielded(self._dispatcher.open(session))
            yield mapping.welcome_to_proto(session)
            async with self._hearing(request_iterator, session):
                async for message in _messages(session):
                    yield message
        finally:
            self._dispatcher.close(session)

    @asynccontextmanager
    async def _hearing(
        self, requests: AsyncIterator[queue_service_pb2.WorkRequest], session: WorkSession
    ) -> AsyncIterator[None]:
        """Take in what the worker says, beside telling it what it has to do."""
        hearing = asyncio.create_task(self._hear(requests, session))
        try:
            yield
        finally:
            hearing.cancel()

    async def _hear(self, requests: AsyncIterator[queue_service_pb2.WorkRequest], session: WorkSession) -> None:
        try:
            async for request in requests:
                self._take(request, session)
            # A stream that breaks ends like one that is closed; then this task is cancelled a moment later.
            await asyncio.sleep(BREAK_SECONDS)
        except Exception as error:  # noqa: BLE001 - it becomes the status of the stream
            session.say_goodbye(error)
            self._dispatcher.close(session)
        else:
            session.say_goodbye()
            self._dispatcher.close(session, returned=True)

    def _take(self, request: queue_service_pb2.WorkRequest, session: WorkSession) -> None:
        match request.WhichOneof("message"):
            case "grant":
                self._dispatcher.grant(session, request.grant.credit)
            case "complete":
                done = request.complete
                token = mapping.token_from_proto(done.lease_token)
                self._dispatcher.settle(session, UUID(done.job_id), token, None)
            case "fail":
                failed = request.fail
                token = mapping.token_from_proto(failed.lease_token)
                failure = mapping.failure_from_proto(failed)
                self._dispatcher.settle(session, UUID(failed.job_id), token, failure)
            case _:
                raise WorkProtocolBroken("a worker says hello once, at the beginning of its stream")


async def _hello(requests: AsyncIterator[queue_service_pb2.WorkRequest]) -> queue_service_pb2.WorkerHello:
    async for request in requests:
        if request.WhichOneof("message") == "hello":
            return request.hello
        break
    raise WorkProtocolBroken("a worker says hello first")


async def _messages(session: WorkSession) -> AsyncIterator[queue_service_pb2.WorkResponse]:
    """What the worker has to be told, until the stream ends. A heartbeat when there is nothing."""
    while True:
        message = await session.next_message(HEARTBEAT_SECONDS)
        if message is None:
            yield HEARTBEAT
        elif not isinstance(message, Goodbye):
            yield mapping.message_to_proto(message)
        elif message.error is None:
            return
        else:
            raise message.error
