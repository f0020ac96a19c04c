"""The services that Api calls, as small servers that remember what they were asked."""

from dataclasses import dataclass, field

import grpc
from orginabox.audit.v1 import audit_service_pb2, audit_service_pb2_grpc
from orginabox.queue.v1 import job_pb2, queue_service_pb2, queue_service_pb2_grpc
from orginabox.runtime.v1 import runtime_service_pb2, runtime_service_pb2_grpc
from orginabox.sandbox.v1 import sandbox_service_pb2, sandbox_service_pb2_grpc

from services.kit.errors import DomainError, Kind
from services.kit.ids import new_id

PEER_SERVICES = (
    "orginabox.queue.v1.QueueService",
    "orginabox.audit.v1.AuditService",
    "orginabox.runtime.v1.RuntimeService",
    "orginabox.sandbox.v1.SandboxService",
)


class RunLost(DomainError):
    """No such run is known."""

    kind = Kind.NOT_FOUND
    reason = "RUN_LOST"


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
    job_state: job_pb2.JobState.ValueType = job_pb2.JOB_STATE_READY
    records: list[audit_service_pb2.AppendRecordsRequest] = field(default_factory=list)
    refuses_target: str = ""
    claimed: list[str] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    replies: list[sandbox_service_pb2.ReplyPermissionRequest] = field(default_factory=list)
    waits_for: str = "per_1"

    async def EnqueueJob(
        self, request: queue_service_pb2.EnqueueJobRequest, context: object
    ) -> queue_service_pb2.EnqueueJobResponse:
        self.jobs.append(request)
        return queue_service_pb2.EnqueueJobResponse(job=job_pb2.Job(job_id=str(new_id())))

    async def GetJob(self, request: object, context: object) -> queue_service_pb2.GetJobResponse:
        return queue_service_pb2.GetJobResponse(job=job_pb2.Job(state=self.job_state))

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
        return sandbox_service_pb2.ClaimSandboxResponse()

    async def AbortTurn(
        self, request: sandbox_service_pb2.AbortTurnRequest, context: object
    ) -> sandbox_service_pb2.AbortTurnResponse:
        self.aborted.append(request.turn_id)
        return sandbox_service_pb2.AbortTurnResponse()

    async def ReplyPermission(
        self, request: sandbox_service_pb2.ReplyPermissionRequest, context: object
    ) -> sandbox_service_pb2.ReplyPermissionResponse:
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
