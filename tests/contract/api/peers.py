"""The services that Api calls, as small servers that remember what they were asked."""

import asyncio
from dataclasses import dataclass, field

import grpc
from orginabox.audit.v1 import audit_service_pb2, audit_service_pb2_grpc
from orginabox.queue.v1 import job_pb2, queue_service_pb2, queue_service_pb2_grpc, stats_pb2
from orginabox.runtime.v1 import runtime_service_pb2, runtime_service_pb2_grpc
from orginabox.sandbox.v1 import sandbox_service_pb2, sandbox_service_pb2_grpc

from services.kit.errors import DomainError, Kind
from services.kit.ids import new_id
from services.kit.server import serve
from tests.identities import identity

PEERS = {
    "queue": "orginabox.queue.v1.QueueService",
    "audit": "orginabox.audit.v1.AuditService",
    "runtime": "orginabox.runtime.v1.RuntimeService",
    "sandbox": "orginabox.sandbox.v1.SandboxService",
}


async def served_peer(name: str, folder: str, peers: "Peers", stop: asyncio.Event) -> None:
    """Serve one of the peers on its socket in the folder."""
    address = f"unix://{folder}/{name}.sock"
    await serve(address, [PEERS[name]], peers.register, identity=identity(name), stop=stop)


class RunLost(DomainError):
    """No such run is known."""

    kind = Kind.NOT_FOUND
    reason = "RUN_LOST"


class TurnEnded(DomainError):
    """The run has ended."""

    kind = Kind.FAILED_PRECONDITION
    reason = "TURN_ENDED"


class Away(DomainError):
    """The sandbox is cut off."""

    kind = Kind.UNAVAILABLE
    reason = "SERVICE_UNAVAILABLE"


class Refused(DomainError):
    """A record that cannot be taken."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


@dataclass
class Peers(
    queue_service_pb2_grpc.QueueServiceServicer,
    audit_service_pb2_grpc.AuditServiceServicer,
    runtime_service_pb2_grpc.RuntimeServiceServicer,
    sandbox_service_pb2_grpc.SandboxServiceServicer,
):
    """All four in one process."""

    jobs: list[queue_service_pb2.EnqueueJobRequest] = field(default_factory=list)
    job_ids: dict[str, str] = field(default_factory=dict)
    job_state: job_pb2.JobState.ValueType = job_pb2.JOB_STATE_READY
    records: list[audit_service_pb2.AppendRecordsRequest] = field(default_factory=list)
    refuses_target: str = ""
    claimed: list[str] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    sandbox_away: bool = False
    aborted: list[str] = field(default_factory=list)
    replies: list[sandbox_service_pb2.ReplyPermissionRequest] = field(default_factory=list)
    waits_for: str = "per_1"
    steered: dict[str, str] = field(default_factory=dict)
    steer_calls: int = 0
    refuse_steer: DomainError | None = None
    refuse_reply: DomainError | None = None
    lose_answers: bool = False
    queue_calls: list[object] = field(default_factory=list)

    async def EnqueueJob(
        self, request: queue_service_pb2.EnqueueJobRequest, context: object
    ) -> queue_service_pb2.EnqueueJobResponse:
        self.jobs.append(request)
        job_id = self.job_ids.setdefault(request.payload.decode(), str(new_id()))
        return queue_service_pb2.EnqueueJobResponse(job=job_pb2.Job(job_id=job_id))

    async def GetJob(self, request: object, context: object) -> queue_service_pb2.GetJobResponse:
        return queue_service_pb2.GetJobResponse(job=self._job())

    async def AppendRecords(
        self, request: audit_service_pb2.AppendRecordsRequest, context: object
    ) -> audit_service_pb2.AppendRecordsResponse:
        if self.refuses_target and any(record.target.startswith(self.refuses_target) for record in request.records):
            raise Refused("not this one")
        self.records.append(request)
        return audit_service_pb2.AppendRecordsResponse(appended=len(request.records))

    async def ClaimSandbox(
        self, request: sandbox_service_pb2.ClaimSandboxRequest, context: object
    ) -> sandbox_service_pb2.ClaimSandboxResponse:
        self.claimed.append(request.user_id)
        self.prepared.append(request.session_id)
        return sandbox_service_pb2.ClaimSandboxResponse()

    async def ForgetSession(
        self, request: sandbox_service_pb2.ForgetSessionRequest, context: object
    ) -> sandbox_service_pb2.ForgetSessionResponse:
        if self.sandbox_away:
            raise Away("the sandbox is away")
        self.forgotten.append(request.session_id)
        return sandbox_service_pb2.ForgetSessionResponse()

    async def AbortTurn(
        self, request: sandbox_service_pb2.AbortTurnRequest, context: object
    ) -> sandbox_service_pb2.AbortTurnResponse:
        self.aborted.append(request.turn_id)
        return sandbox_service_pb2.AbortTurnResponse()

    async def SteerTurn(
        self, request: sandbox_service_pb2.SteerTurnRequest, context: object
    ) -> sandbox_service_pb2.SteerTurnResponse:
        self.steer_calls += 1
        if request.request_id not in self.steered:
            if self.refuse_steer:
                raise self.refuse_steer
            self.steered[request.request_id] = request.text
        if self.lose_answers:
            raise Away("the answer is lost")
        return sandbox_service_pb2.SteerTurnResponse()

    async def ListJobs(
        self, request: queue_service_pb2.ListJobsRequest, context: object
    ) -> queue_service_pb2.ListJobsResponse:
        self.queue_calls.append(request)
        return queue_service_pb2.ListJobsResponse(jobs=[self._job(request.key)], next_page_token="more")

    async def CancelJob(
        self, request: queue_service_pb2.CancelJobRequest, context: object
    ) -> queue_service_pb2.CancelJobResponse:
        self.queue_calls.append(request)
        return queue_service_pb2.CancelJobResponse(job=self._job(job_id=request.job_id))

    async def RetryJob(
        self, request: queue_service_pb2.RetryJobRequest, context: object
    ) -> queue_service_pb2.RetryJobResponse:
        self.queue_calls.append(request)
        return queue_service_pb2.RetryJobResponse(job=self._job(job_id=request.job_id))

    async def PauseQueue(
        self, request: queue_service_pb2.PauseQueueRequest, context: object
    ) -> queue_service_pb2.PauseQueueResponse:
        self.queue_calls.append(request)
        return queue_service_pb2.PauseQueueResponse()

    async def ResumeQueue(
        self, request: queue_service_pb2.ResumeQueueRequest, context: object
    ) -> queue_service_pb2.ResumeQueueResponse:
        self.queue_calls.append(request)
        return queue_service_pb2.ResumeQueueResponse()

    async def SetTenantShare(
        self, request: queue_service_pb2.SetTenantShareRequest, context: object
    ) -> queue_service_pb2.SetTenantShareResponse:
        self.queue_calls.append(request)
        return queue_service_pb2.SetTenantShareResponse()

    async def GetQueueStats(self, request: object, context: object) -> queue_service_pb2.GetQueueStatsResponse:
        return queue_service_pb2.GetQueueStatsResponse(kinds=[stats_pb2.QueueStats(kind="agent-turn", ready=3)])

    def _job(self, key: str = "", job_id: str = "") -> job_pb2.Job:
        return job_pb2.Job(
            job_id=job_id or str(new_id()), kind="agent-turn", key=key, payload=b"secret", state=self.job_state
        )

    async def ReplyPermission(
        self, request: sandbox_service_pb2.ReplyPermissionRequest, context: object
    ) -> sandbox_service_pb2.ReplyPermissionResponse:
        if self.refuse_reply:
            raise self.refuse_reply
        if request.permission_id != self.waits_for:
            raise RunLost("no such run")
        self.replies.append(request)
        return sandbox_service_pb2.ReplyPermissionResponse()

    async def GetRuntimeStatus(self, request: object, context: object) -> runtime_service_pb2.GetRuntimeStatusResponse:
        return runtime_service_pb2.GetRuntimeStatusResponse()

    def actions(self) -> list[str]:
        """The actions that were put on record, in order."""
        return [record.action for batch in self.records for record in batch.records]

    def register(self, server: grpc.aio.Server) -> None:
        """Add all four to a server."""
        queue_service_pb2_grpc.add_QueueServiceServicer_to_server(self, server)
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(self, server)
        runtime_service_pb2_grpc.add_RuntimeServiceServicer_to_server(self, server)
        sandbox_service_pb2_grpc.add_SandboxServiceServicer_to_server(self, server)
