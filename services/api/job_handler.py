"""The contract's JobService: the queue, which Queue keeps, for those who operate the box."""

from uuid import UUID

from orginabox.api.v1 import job_service_pb2 as pb
from orginabox.api.v1 import job_service_pb2_grpc
from orginabox.queue.v1 import job_pb2
from orginabox.queue.v1 import queue_service_pb2 as queue
from orginabox.queue.v1 import queue_service_pb2_grpc as queue_grpc

from services.api import inbox
from services.api.store import Store
from services.kit.caller import caller
from services.kit.interceptor import Context


class JobHandler(job_service_pb2_grpc.JobServiceServicer):
    """The jobs of the caller's tenant, without what they hold. What changes them Queue puts on record."""

    def __init__(self, store: Store, queues: queue_grpc.QueueServiceStub) -> None:
        self._store = store
        self._queues = queues

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        answer = await self._queues.ListJobs(
            queue.ListJobsRequest(
                tenant_id=_tenant(),
                state=request.state,
                kind=request.kind,
                key=request.key,
                page_size=request.page_size,
                page_token=request.page_token,
            )
        )
        return pb.ListJobsResponse(jobs=map(_shown, answer.jobs), next_page_token=answer.next_page_token)

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        answer = await self._queues.GetJob(queue.GetJobRequest(tenant_id=_tenant(), job_id=request.job_id))
        return pb.GetJobResponse(job=_shown(answer.job))

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        await inbox.cancel_job(self._store, caller(), UUID(request.job_id))
        answer = await self._queues.CancelJob(queue.CancelJobRequest(tenant_id=_tenant(), job_id=request.job_id))
        return pb.CancelJobResponse(job=_shown(answer.job))

    async def RetryJob(self, request: pb.RetryJobRequest, context: Context) -> pb.RetryJobResponse:
        answer = await self._queues.RetryJob(queue.RetryJobRequest(tenant_id=_tenant(), job_id=request.job_id))
        return pb.RetryJobResponse(job=_shown(answer.job))

    async def PauseQueue(self, request: pb.PauseQueueRequest, context: Context) -> pb.PauseQueueResponse:
        await self._queues.PauseQueue(queue.PauseQueueRequest(kind=request.kind))
        return pb.PauseQueueResponse()

    async def ResumeQueue(self, request: pb.ResumeQueueRequest, context: Context) -> pb.ResumeQueueResponse:
        await self._queues.ResumeQueue(queue.ResumeQueueRequest(kind=request.kind))
        return pb.ResumeQueueResponse()

    async def SetQueueShare(self, request: pb.SetQueueShareRequest, context: Context) -> pb.SetQueueShareResponse:
        await self._queues.SetTenantShare(
            queue.SetTenantShareRequest(tenant_id=_tenant(), weight=request.weight, max_in_flight=request.max_in_flight)
        )
        return pb.SetQueueShareResponse()

    async def GetQueueStats(self, request: pb.GetQueueStatsRequest, context: Context) -> pb.GetQueueStatsResponse:
        answer = await self._queues.GetQueueStats(queue.GetQueueStatsRequest())
        return pb.GetQueueStatsResponse(kinds=answer.kinds)


def _shown(job: job_pb2.Job) -> job_pb2.Job:
    """A job without its payload, which is between its kind and its worker."""
    job.ClearField("payload")
    return job


def _tenant() -> str:
    return str(caller().tenant_id)
