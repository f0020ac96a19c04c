"""The contract's AuditService: the audit log, for those who may read it."""

from orginabox.api.v1 import audit_service_pb2, audit_service_pb2_grpc
from orginabox.audit.v1 import audit_service_pb2 as audit
from orginabox.audit.v1 import audit_service_pb2_grpc as audit_grpc

from services.kit.caller import caller
from services.kit.interceptor import Context


class AuditHandler(audit_service_pb2_grpc.AuditServiceServicer):
    """The audit log, which Audit keeps."""

    def __init__(self, audits: audit_grpc.AuditServiceStub) -> None:
        self._audits = audits

    async def ListAuditRecords(
        self, request: audit_service_pb2.ListAuditRecordsRequest, context: Context
    ) -> audit_service_pb2.ListAuditRecordsResponse:
        answer = await self._audits.ListRecords(
            audit.ListRecordsRequest(
                tenant_id=_tenant(),
                action=request.action,
                user_id=request.user_id,
                since=request.since if request.HasField("since") else None,
                until=request.until if request.HasField("until") else None,
                page_size=request.page_size,
                page_token=request.page_token,
            )
        )
        return audit_service_pb2.ListAuditRecordsResponse(
            records=answer.records, next_page_token=answer.next_page_token
        )


def _tenant() -> str:
    return str(caller().tenant_id)
