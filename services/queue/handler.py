"""The contract's methods."""

import asyncio
from collections.abc import AsyncIterator, Collection
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
from services.queue.job import JobState, PlacedJob, WorkProtocolBroken
from services.queue.pace import Pace
from services.queue.store import Store
from services.queue.work_session import Goodbye, WorkSession

Context = grpc.aio.ServicerContext[Any, Any]
SERVICE = "orginabox.queue.v1.QueueService"
HEARTBEAT_SECONDS = 5.0
BREAK_SECONDS = 0.05
STREAM_WINDOW = 4
"""How many messages of a stream of jobs may wait for the disk at once."""
HEARTBEAT = queue_service_pb2.WorkResponse(heartbeat=queue_service_pb2.WorkHeartbeat())


class QueueHandler(queue_service_pb2_grpc.QueueServiceServicer):
    """The queue, as its callers and workers see it."""

    def __init__(self, store: Store, bell: Bell, pace: Pace, enqueuer: Enqueuer, dispatcher: Dispatcher) -> None:
        self._store = store
        self._bell = bell
        self._pace = pace
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
        (placed,) = await self._enqueuer.enqueue(mapping.new_job_from_proto(request))
        return mapping.placed_to_proto(placed)

    async def EnqueueJobs(
        self, request: queue_service_pb2.EnqueueJobsRequest, context: Context
    ) -> queue_service_pb2.EnqueueJobsResponse:
        placed = await self._enqueuer.enqueue(*map(mapping.new_job_from_proto, request.jobs))
        return queue_service_pb2.EnqueueJobsResponse(jobs=map(mapping.placed_without_payload, placed))

    async def StreamJobs(
        self, request_iterator: AsyncIterator[queue_service_pb2.StreamJobsRequest], context: Context
    ) -> queue_service_pb2.StreamJobsResponse:
        jobs = 0
        under_way: set[asyncio.Future[list[PlacedJob]]] = set()
        try:
            async for request in request_iterator:
                jobs += len(request.jobs)
                new = [mapping.new_job_from_proto(job) for job in request.jobs]
                under_way.add(asyncio.ensure_future(self._enqueuer.enqueue(*new)))
                while len(under_way) >= STREAM_WINDOW:
                    under_way = await _some_done(under_way)
            while under_way:
                under_way = await _some_done(under_way)
        finally:
            # What is still under way goes on to its end, and nobody asks for it.
            await asyncio.gather(*under_way, return_exceptions=True)
        return queue_service_pb2.StreamJobsResponse(jobs=jobs)

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
            self._bell.delayed()
        return queue_service_pb2.CancelJobResponse(job=mapping.job_to_proto(job))

    async def RetryJob(
        self, request: queue_service_pb2.RetryJobRequest, context: Context
    ) -> queue_service_pb2.RetryJobResponse:
        job = await operations.retry_job(self._store, UUID(request.tenant_id), UUID(request.job_id))
        self._bell.ready()
        return queue_service_pb2.RetryJobResponse(job=mapping.job_to_proto(job))

    async def PauseQueue(
        self, request: queue_service_pb2.PauseQueueRequest, context: Context
    ) -> queue_service_pb2.PauseQueueResponse:
        await operations.pause(self._store, mapping.name_from_proto(request.kind))
        return queue_service_pb2.PauseQueueResponse()

    async def ResumeQueue(
        self, request: queue_service_pb2.ResumeQueueRequest, context: Context
    ) -> queue_service_pb2.ResumeQueueResponse:
        await operations.resume(self._store, mapping.name_from_proto(request.kind))
        self._bell.ready()
        return queue_service_pb2.ResumeQueueResponse()

    async def GetQueueStats(
        self, request: queue_service_pb2.GetQueueStatsRequest, context: Context
    ) -> queue_service_pb2.GetQueueStatsResponse:
        kinds = await operations.count_jobs(self._store)
        return queue_service_pb2.GetQueueStatsResponse(kinds=map(mapping.stats_to_proto, kinds))

    async def PutSchedule(
        self, request: queue_service_pb2.PutScheduleRequest, context: Context
    ) -> queue_service_pb2.PutScheduleResponse:
        schedule = await operations.put_schedule(self._store, mapping.schedule_from_proto(request.schedule))
        return queue_service_pb2.PutScheduleResponse(schedule=mapping.schedule_to_proto(schedule))

    async def ListSchedules(
        self, request: queue_service_pb2.ListSchedulesRequest, context: Context
    ) -> queue_service_pb2.ListSchedulesResponse:
        cursor = page_cursor(request.page_token, tenant=request.tenant_id)
        size = page_size(request.page_size)
        after = cursor.text("after") if cursor else ""
        found = await operations.list_schedules(self._store, UUID(request.tenant_id), after, size + 1)
        token = page_token({"after": found[size - 1].name}, tenant=request.tenant_id) if len(found) > size else ""
        return queue_service_pb2.ListSchedulesResponse(
            schedules=map(mapping.schedule_to_proto, found[:size]), next_page_token=token
        )

    async def DeleteSchedule(
        self, request: queue_service_pb2.DeleteScheduleRequest, context: Context
    ) -> queue_service_pb2.DeleteScheduleResponse:
        await operations.delete_schedule(self._store, UUID(request.tenant_id), mapping.name_from_proto(request.name))
        return queue_service_pb2.DeleteScheduleResponse()

    async def SetTenantShare(
        self, request: queue_service_pb2.SetTenantShareRequest, context: Context
    ) -> queue_service_pb2.SetTenantShareResponse:
        await operations.set_share(self._store, mapping.share_from_proto(request))
        await operations.refresh_shares(self._store, self._pace)
        self._bell.ready()
        return queue_service_pb2.SetTenantShareResponse()

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
            case "settle":
                self._dispatcher.settle(session, *mapping.settlements_from_proto(request.settle))
            case "drain":
                session.drain()
            case _:
                raise WorkProtocolBroken("a worker says hello once, at the beginning of its stream")


async def _some_done(under_way: Collection[asyncio.Future[list[PlacedJob]]]) -> set[asyncio.Future[list[PlacedJob]]]:
    """Wait for the first commits, and return what is not on disk yet. A refusal is raised."""
    done, rest = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    for commit in done:
        commit.result()
    return rest


async def _hello(requests: AsyncIterator[queue_service_pb2.WorkRequest]) -> queue_service_pb2.WorkerHello:
    async for request in requests:
        if request.WhichOneof("message") == "hello":
            return request.hello
        break
    raise WorkProtocolBroken("a worker says hello first")


async def _messages(session: WorkSession) -> AsyncIterator[queue_service_pb2.WorkResponse]:
    """What the worker has to be told, until the stream ends. A heartbeat when there is nothing."""
    while True:
        messages = await session.next_messages(HEARTBEAT_SECONDS)
        if not messages:
            yield HEARTBEAT
        for response in mapping.messages_to_proto([found for found in messages if not isinstance(found, Goodbye)]):
            yield response
        if messages and isinstance(goodbye := messages[-1], Goodbye):
            if goodbye.error is not None:
                raise goodbye.error
            return
