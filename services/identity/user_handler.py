"""The contract of users."""

from uuid import UUID

from orginabox.api.v1 import user_service_pb2 as pb
from orginabox.api.v1 import user_service_pb2_grpc

from services.identity import mapping, user_operations
from services.identity.passwords import Passwords
from services.identity.store import Store
from services.kit.caller import caller
from services.kit.interceptor import Context
from services.kit.pages import page_cursor, page_size, page_token


class UserHandler(user_service_pb2_grpc.UserServiceServicer):
    """Users, for those who manage them."""

    def __init__(self, store: Store, passwords: Passwords) -> None:
        self._store = store
        self._passwords = passwords

    async def CreateUser(self, request: pb.CreateUserRequest, context: Context) -> pb.CreateUserResponse:
        wanted = user_operations.NewUser(
            request.handle, request.email, request.display_name, request.password, tuple(request.roles)
        )
        request_id = UUID(request.request_id) if request.request_id else None
        user = await user_operations.create_user(self._store, self._passwords, caller(), wanted, request_id)
        return pb.CreateUserResponse(user=mapping.user_to_proto(user))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        who, size = caller(), page_size(request.page_size)
        cursor = page_cursor(request.page_token, tenant=who.tenant_id)
        found = await user_operations.list_users(self._store, who, cursor.text("after") if cursor else "", size)
        more = len(found) > size
        return pb.ListUsersResponse(
            users=[mapping.user_to_proto(user) for user in found[:size]],
            next_page_token=page_token({"after": found[size - 1].handle}, tenant=who.tenant_id) if more else "",
        )

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.GetUserResponse:
        user = await user_operations.get_user(self._store, caller(), request.user_id)
        return pb.GetUserResponse(user=mapping.user_to_proto(user))

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.UpdateUserResponse:
        mask = tuple(request.update_mask.paths)
        user = await user_operations.update_user(
            self._store,
            caller(),
            request.user.user_id,
            mapping.user_from_proto(request.user, mask),
            mask,
            status_said=bool(request.user.status),
        )
        return pb.UpdateUserResponse(user=mapping.user_to_proto(user))

    async def SetPassword(self, request: pb.SetPasswordRequest, context: Context) -> pb.SetPasswordResponse:
        await user_operations.set_password(self._store, self._passwords, caller(), request.user_id, request.password)
        return pb.SetPasswordResponse()

    async def RevokeSignIns(self, request: pb.RevokeSignInsRequest, context: Context) -> pb.RevokeSignInsResponse:
        sign_ins, api_tokens = await user_operations.revoke_sign_ins(
            self._store, caller(), request.user_id, api_tokens=request.api_tokens
        )
        return pb.RevokeSignInsResponse(sign_ins=sign_ins, api_tokens=api_tokens)

    async def AssignRole(self, request: pb.AssignRoleRequest, context: Context) -> pb.AssignRoleResponse:
        user = await user_operations.assign_role(self._store, caller(), request.user_id, request.role_id)
        return pb.AssignRoleResponse(user=mapping.user_to_proto(user))

    async def UnassignRole(self, request: pb.UnassignRoleRequest, context: Context) -> pb.UnassignRoleResponse:
        user = await user_operations.unassign_role(self._store, caller(), request.user_id, request.role_id)
        return pb.UnassignRoleResponse(user=mapping.user_to_proto(user))
