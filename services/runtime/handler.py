"""The contracts of Runtime: its own, and Envoy's for the model door."""

from uuid import UUID

from ext_authz import external_auth_pb2 as auth
from ext_authz import external_auth_pb2_grpc as auth_grpc
from orginabox.runtime.v1 import runtime_service_pb2 as pb
from orginabox.runtime.v1 import runtime_service_pb2_grpc
from pydantic import SecretStr

from services.kit import telemetry
from services.kit.interceptor import Context
from services.kit.pages import page_cursor, page_size, page_token
from services.runtime import mapping, operations
from services.runtime.dialect import ProviderKind
from services.runtime.door import Door, DoorClosed
from services.runtime.installation import Installation
from services.runtime.metrics import APPLIED, DECISION_SECONDS, DECISIONS
from services.runtime.store import Store, TokenHolder


class RuntimeHandler(runtime_service_pb2_grpc.RuntimeServiceServicer):
    """Providers, the bundle made of them, and the tokens of the model door."""

    def __init__(self, box: Installation, store: Store, door: Door) -> None:
        self._box = box
        self._store = store
        self._door = door

    async def CreateProvider(self, request: pb.CreateProviderRequest, context: Context) -> pb.CreateProviderResponse:
        kind = mapping.kind_from_proto(request.provider.kind)
        provider = await operations.create_provider(
            self._box,
            self._store,
            UUID(request.tenant_id),
            mapping.values_from_proto(request.provider, kind),
            SecretStr(request.api_key),
            UUID(request.request_id) if request.request_id else None,
        )
        return pb.CreateProviderResponse(provider=mapping.provider_to_proto(provider))

    async def ListProviders(self, request: pb.ListProvidersRequest, context: Context) -> pb.ListProvidersResponse:
        tenant, size = UUID(request.tenant_id), page_size(request.page_size)
        cursor = page_cursor(request.page_token, tenant=tenant)
        found = await operations.list_providers(
            self._box, self._store, tenant, cursor.text("after") if cursor else "", size
        )
        more = len(found) > size
        return pb.ListProvidersResponse(
            providers=[mapping.provider_to_proto(provider) for provider in found[:size]],
            next_page_token=page_token({"after": found[size - 1].provider_id}, tenant=tenant) if more else "",
        )

    async def UpdateProvider(self, request: pb.UpdateProviderRequest, context: Context) -> pb.UpdateProviderResponse:
        provider = await operations.update_provider(
            self._box,
            self._store,
            UUID(request.tenant_id),
            mapping.values_from_proto(request.provider, ProviderKind.OPENAI_COMPATIBLE),
            tuple(request.update_mask.paths),
            SecretStr(request.api_key),
        )
        return pb.UpdateProviderResponse(provider=mapping.provider_to_proto(provider))

    async def DeleteProvider(self, request: pb.DeleteProviderRequest, context: Context) -> pb.DeleteProviderResponse:
        await operations.delete_provider(self._box, self._store, UUID(request.tenant_id), request.provider_id)
        return pb.DeleteProviderResponse()

    async def GetRuntimeStatus(
        self, request: pb.GetRuntimeStatusRequest, context: Context
    ) -> pb.GetRuntimeStatusResponse:
        status = await operations.status(self._box, self._store, UUID(request.tenant_id))
        return pb.GetRuntimeStatusResponse(status=mapping.status_to_proto(status))

    async def ApplyRuntime(self, request: pb.ApplyRuntimeRequest, context: Context) -> pb.ApplyRuntimeResponse:
        status, changed = await operations.apply(self._box, self._store, UUID(request.tenant_id))
        self._door.forget()
        APPLIED.inc(changed)
        return pb.ApplyRuntimeResponse(status=mapping.status_to_proto(status), changed=changed)

    async def IssueModelToken(self, request: pb.IssueModelTokenRequest, context: Context) -> pb.IssueModelTokenResponse:
        holder = TokenHolder(UUID(request.tenant_id), UUID(request.user_id), UUID(request.sandbox_id))
        token = await operations.issue_token(self._store, holder)
        self._door.forget()
        return pb.IssueModelTokenResponse(token=token.get_secret_value())


class AuthorizationHandler(auth_grpc.AuthorizationServicer):
    """Answers Envoy's question whether a model call goes out, where to and with which key."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def Check(self, request: auth.CheckRequest, context: Context) -> auth.CheckResponse:
        http = request.attributes.request.http
        try:
            with DECISION_SECONDS.time():
                passage = await self._door.check(http.method, http.path, http.headers)
        except DoorClosed as closed:
            DECISIONS.labels(closed.kind).inc()
            telemetry.log().info("model call refused", status=closed.status, type=closed.kind)
            return mapping.closed_to_proto(closed)
        DECISIONS.labels("out").inc()
        return mapping.passage_to_proto(passage)
