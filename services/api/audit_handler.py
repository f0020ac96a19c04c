"""The contract's AuditService: the audit log, for those who may read it."""

from collections.abc import AsyncIterator
from typing import Any

from google.api import httpbody_pb2
from orginabox.api.v1 import audit_service_pb2 as pb
from orginabox.api.v1 import audit_service_pb2_grpc
from orginabox.audit.v1 import audit_service_pb2 as audit
from orginabox.audit.v1 import audit_service_pb2_grpc as audit_grpc
from orginabox.audit.v1 import export_pb2

from services.api import operations
from services.api.store import Store
from services.kit.caller import caller
from services.kit.interceptor import Context


class AuditHandler(audit_service_pb2_grpc.AuditServiceServicer):
    """The audit log, which Audit keeps. Whoever takes it out of the box is on record before the first byte leaves."""

    def __init__(self, store: Store, audits: audit_grpc.AuditServiceStub) -> None:
        self._store = store
        self._audits = audits

    async def ListAuditRecords(
        self, request: pb.ListAuditRecordsRequest, context: Context
    ) -> pb.ListAuditRecordsResponse:
        wanted = audit.ListRecordsRequest(
            **_filter(request), page_size=request.page_size, page_token=request.page_token
        )
        answer = await self._audits.ListRecords(wanted)
        return pb.ListAuditRecordsResponse(records=answer.records, next_page_token=answer.next_page_token)

    async def ExportAuditRecords(
        self, request: pb.ExportAuditRecordsRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        form = export_pb2.ExportFormat.Name(request.format or export_pb2.EXPORT_FORMAT_CSV)
        await operations.record_action(self._store, caller(), "data.export", f"audit:{form.rpartition('_')[2].lower()}")
        wanted = audit.ExportRecordsRequest(**_filter(request), format=request.format)
        async for piece in self._audits.ExportRecords(wanted):
            yield httpbody_pb2.HttpBody(content_type=piece.content_type, data=piece.data)

    async def VerifyAuditLog(
        self, request: pb.VerifyAuditLogRequest, context: Context
    ) -> AsyncIterator[pb.VerifyAuditLogResponse]:
        await operations.record_action(self._store, caller(), "admin.audit_verify", "audit")
        async for told in self._audits.VerifyLog(audit.VerifyLogRequest(tenant_id=_tenant(), full=request.full)):
            yield pb.VerifyAuditLogResponse(
                records=told.records,
                done=told.done,
                checkpoints=told.checkpoints,
                size=told.size,
                damages=told.damages,
            )

    async def ListAuditCheckpoints(
        self, request: pb.ListAuditCheckpointsRequest, context: Context
    ) -> pb.ListAuditCheckpointsResponse:
        answer = await self._audits.ListCheckpoints(
            audit.ListCheckpointsRequest(page_size=request.page_size, page_token=request.page_token)
        )
        return pb.ListAuditCheckpointsResponse(checkpoints=answer.checkpoints, next_page_token=answer.next_page_token)

    async def GetAuditKey(self, request: pb.GetAuditKeyRequest, context: Context) -> pb.GetAuditKeyResponse:
        return pb.GetAuditKeyResponse(public_key=(await self._audits.GetKey(audit.GetKeyRequest())).public_key)

    async def EraseAuditUser(self, request: pb.EraseAuditUserRequest, context: Context) -> pb.EraseAuditUserResponse:
        # Audit itself records it, in the transaction that erases.
        answer = await self._audits.EraseUser(audit.EraseUserRequest(tenant_id=_tenant(), user_id=request.user_id))
        return pb.EraseAuditUserResponse(erased=answer.erased)


def _filter(request: pb.ListAuditRecordsRequest | pb.ExportAuditRecordsRequest) -> dict[str, Any]:
    """What narrows a list or an export, for the caller's tenant."""
    return {
        "tenant_id": _tenant(),
        "action": request.action,
        "user_id": request.user_id,
        "since": request.since if request.HasField("since") else None,
        "until": request.until if request.HasField("until") else None,
    }


def _tenant() -> str:
    return str(caller().tenant_id)
