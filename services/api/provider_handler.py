"""The contract's ProviderService and AuditService: other services' answers, for users who may have them."""

from orginabox.api.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    provider_service_pb2_grpc,
)
from orginabox.api.v1 import provider_service_pb2 as pb
from orginabox.audit.v1 import audit_service_pb2 as audit
from orginabox.audit.v1 import audit_service_pb2_grpc as audit_grpc
from orginabox.runtime.v1 import runtime_service_pb2 as runtime
from orginabox.runtime.v1 import runtime_service_pb2_grpc as runtime_grpc

from services.api import operations
from services.api.store import Store
from services.kit.caller import caller
from services.kit.interceptor import Context


class ProviderHandler(provider_service_pb2_grpc.ProviderServiceServicer):
    """Providers and the runtime, which Runtime keeps. Changes are put on record before they are asked for."""

    def __init__(self, store: Store, runtimes: runtime_grpc.RuntimeServiceStub) -> None:
        self._store = store
        self._runtimes = runtimes

    async def CreateProvider(self, request: pb.CreateProviderRequest, context: Context) -> pb.CreateProviderResponse:
        await self._record("admin.provider_create", f"provider:{request.provider.provider_id}")
        answer = await self._runtimes.CreateProvider(
            runtime.CreateProviderRequest(
                tenant_id=_tenant(),
                provider=request.provider,
                api_key=request.api_key,
                request_id=request.request_id,
            )
        )
        return pb.CreateProviderResponse(provider=answer.provider)

    async def ListProviders(self, request: pb.ListProvidersRequest, context: Context) -> pb.ListProvidersResponse:
        answer = await self._runtimes.ListProviders(
            runtime.ListProvidersRequest(
                tenant_id=_tenant(), page_size=request.page_size, page_token=request.page_token
            )
        )
        return pb.ListProvidersResponse(providers=answer.providers, next_page_token=answer.next_page_token)

    async def UpdateProvider(self, request: pb.UpdateProviderRequest, context: Context) -> pb.UpdateProviderResponse:
        await self._record("admin.provider_update", f"provider:{request.provider.provider_id}")
        answer = await self._runtimes.UpdateProvider(
            runtime.UpdateProviderRequest(
                tenant_id=_tenant(),
                provider=request.provider,
                update_mask=request.update_mask if request.HasField("update_mask") else None,
                api_key=request.api_key,
            )
        )
        return pb.UpdateProviderResponse(provider=answer.provider)

    async def DeleteProvider(self, request: pb.DeleteProviderRequest, context: Context) -> pb.DeleteProviderResponse:
        await self._record("admin.provider_delete", f"provider:{request.provider_id}")
        await self._runtimes.DeleteProvider(
            runtime.DeleteProviderRequest(tenant_id=_tenant(), provider_id=request.provider_id)
        )
        return pb.DeleteProviderResponse()

    async def GetRuntimeStatus(
        self, request: pb.GetRuntimeStatusRequest, context: Context
    ) -> pb.GetRuntimeStatusResponse:
        answer = await self._runtimes.GetRuntimeStatus(runtime.GetRuntimeStatusRequest(tenant_id=_tenant()))
        return pb.GetRuntimeStatusResponse(status=answer.status)

    async def ApplyRuntime(self, request: pb.ApplyRuntimeRequest, context: Context) -> pb.ApplyRuntimeResponse:
        await self._record("admin.runtime_apply", "runtime")
        answer = await self._runtimes.ApplyRuntime(runtime.ApplyRuntimeRequest(tenant_id=_tenant()))
        return pb.ApplyRuntimeResponse(status=answer.status, changed=answer.changed)

    async def _record(self, action: str, target: str) -> None:
        await operations.record_action(self._store, caller(), action, target)


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
