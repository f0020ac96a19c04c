"""The contract of roles."""

from uuid import UUID

from orginabox.api.v1 import role_service_pb2 as pb
from orginabox.api.v1 import role_service_pb2_grpc

from services.identity import mapping, role_operations
from services.identity.store import Store
from services.kit.caller import caller
from services.kit.interceptor import Context
from services.kit.pages import page_cursor, page_size, page_token

_BUILT_IN = 1


class RoleHandler(role_service_pb2_grpc.RoleServiceServicer):
    """Roles, for those who manage them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def CreateRole(self, request: pb.CreateRoleRequest, context: Context) -> pb.CreateRoleResponse:
        request_id = UUID(request.request_id) if request.request_id else None
        role = await role_operations.create_role(
            self._store, caller(), mapping.role_from_proto(request.role), request_id
        )
        return pb.CreateRoleResponse(role=mapping.role_to_proto(role))

    async def ListRoles(self, request: pb.ListRolesRequest, context: Context) -> pb.ListRolesResponse:
        who, size = caller(), page_size(request.page_size)
        cursor = page_cursor(request.page_token, tenant=who.tenant_id)
        after = (cursor.number("built_in") == _BUILT_IN, cursor.text("after")) if cursor else (True, "")
        found = await role_operations.list_roles(self._store, who, after, size)
        more = len(found) > size
        last = found[size - 1] if more else None
        return pb.ListRolesResponse(
            roles=[mapping.role_to_proto(role) for role in found[:size]],
            next_page_token=page_token({"built_in": int(last.built_in), "after": last.name}, tenant=who.tenant_id)
            if last
            else "",
        )

    async def GetRole(self, request: pb.GetRoleRequest, context: Context) -> pb.GetRoleResponse:
        role = await role_operations.get_role(self._store, caller(), request.role_id)
        return pb.GetRoleResponse(role=mapping.role_to_proto(role))

    async def UpdateRole(self, request: pb.UpdateRoleRequest, context: Context) -> pb.UpdateRoleResponse:
        role = await role_operations.update_role(
            self._store,
            caller(),
            request.role.role_id,
            mapping.role_from_proto(request.role),
            tuple(request.update_mask.paths),
            permissions_said=request.role.HasField("permissions"),
        )
        return pb.UpdateRoleResponse(role=mapping.role_to_proto(role))

    async def DeleteRole(self, request: pb.DeleteRoleRequest, context: Context) -> pb.DeleteRoleResponse:
        await role_operations.delete_role(self._store, caller(), request.role_id)
        return pb.DeleteRoleResponse()
