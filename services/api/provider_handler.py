"""The contract's ProviderService: what Runtime answers, for users who may have it."""

from orginabox.api.v1 import provider_service_pb2 as pb
from orginabox.api.v1 import provider_service_pb2_grpc
from orginabox.runtime.v1 import runtime_service_pb2 as runtime
from orginabox.runtime.v1 import runtime_service_pb2_grpc as runtime_grpc

from services.kit.caller import caller
from services.kit.interceptor import Context


class ProviderHandler(provider_service_pb2_grpc.ProviderServiceServicer):
    """Providers and the runtime, which Runtime keeps and whose changes it puts on record."""

    def __init__(self, runtimes: runtime_grpc.RuntimeServiceStub) -> None:
        self._runtimes = runtimes

    async def CreateProvider(self, request: pb.CreateProviderRequest, context: Context) -> pb.CreateProviderResponse:
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
        answer = await self._runtimes.ApplyRuntime(runtime.ApplyRuntimeRequest(tenant_id=_tenant()))
        return pb.ApplyRuntimeResponse(status=answer.status, changed=answer.changed)


def _tenant() -> str:
    return str(caller().tenant_id)
