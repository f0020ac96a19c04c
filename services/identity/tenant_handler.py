"""The contract of tenants."""

from uuid import UUID

from orginabox.api.v1 import tenant_service_pb2 as pb
from orginabox.api.v1 import tenant_service_pb2_grpc

from services.identity import mapping, tenant_operations
from services.identity.passwords import Passwords
from services.identity.store import Store
from services.kit.caller import caller
from services.kit.interceptor import Context
from services.kit.pages import page_cursor, page_size, page_token


class TenantHandler(tenant_service_pb2_grpc.TenantServiceServicer):
    """The caller's tenant, and for the operator of the box every tenant."""

    def __init__(self, store: Store, passwords: Passwords) -> None:
        self._store = store
        self._passwords = passwords

    async def GetTenant(self, request: pb.GetTenantRequest, context: Context) -> pb.GetTenantResponse:
        tenant = await tenant_operations.get_tenant(self._store, caller().tenant_id)
        return pb.GetTenantResponse(tenant=mapping.tenant_to_proto(tenant))

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, context: Context) -> pb.UpdateTenantResponse:
        tenant = await tenant_operations.update_tenant(
            self._store, caller(), mapping.tenant_from_proto(request.tenant), tuple(request.update_mask.paths)
        )
        return pb.UpdateTenantResponse(tenant=mapping.tenant_to_proto(tenant))

    async def CreateTenant(self, request: pb.CreateTenantRequest, context: Context) -> pb.CreateTenantResponse:
        wanted = tenant_operations.NewTenant(request.slug, request.name, request.owner_handle, request.owner_password)
        request_id = UUID(request.request_id) if request.request_id else None
        tenant = await tenant_operations.create_tenant(self._store, self._passwords, caller(), wanted, request_id)
        return pb.CreateTenantResponse(tenant=mapping.tenant_to_proto(tenant))

    async def ListTenants(self, request: pb.ListTenantsRequest, context: Context) -> pb.ListTenantsResponse:
        size = page_size(request.page_size)
        cursor = page_cursor(request.page_token)
        found = await tenant_operations.list_tenants(self._store, cursor.text("after") if cursor else "", size)
        more = len(found) > size
        return pb.ListTenantsResponse(
            tenants=[mapping.tenant_to_proto(tenant) for tenant in found[:size]],
            next_page_token=page_token({"after": found[size - 1].slug}) if more else "",
        )
