"""The contract of signing in."""

from datetime import timedelta
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.api.v1 import auth_service_pb2 as pb
from orginabox.api.v1 import auth_service_pb2_grpc

from services.identity import device_operations, mapping, sign_in_operations
from services.identity.origins import origin_of_context
from services.identity.sign_in_operations import Desk
from services.kit.caller import caller
from services.kit.interceptor import Context
from services.kit.pages import page_cursor, page_size, page_token


class AuthHandler(auth_service_pb2_grpc.AuthServiceServicer):
    """Signs people in and out."""

    def __init__(self, desk: Desk, public_url: str, *, operator_key: bool) -> None:
        self._desk = desk
        self._public_url = public_url
        self._operator_key = operator_key

    async def GetAuthStatus(self, request: pb.GetAuthStatusRequest, context: Context) -> pb.GetAuthStatusResponse:
        choices = await sign_in_operations.provider_choices(self._desk.store, request.tenant)
        return pb.GetAuthStatusResponse(
            passwords=True,
            operator_key=self._operator_key,
            identity_providers=[
                pb.IdentityProviderChoice(identity_provider_id=name, display_name=shown) for name, shown in choices
            ],
        )

    async def SignIn(self, request: pb.SignInRequest, context: Context) -> pb.SignInResponse:
        pair, user = await sign_in_operations.sign_in(
            self._desk, request.tenant, request.handle, request.password, request.device, origin_of_context(context)
        )
        return pb.SignInResponse(tokens=mapping.pair_to_proto(pair), user=mapping.user_to_proto(user))

    async def RefreshTokens(self, request: pb.RefreshTokensRequest, context: Context) -> pb.RefreshTokensResponse:
        request_id = UUID(request.request_id) if request.request_id else None
        pair = await sign_in_operations.refresh(
            self._desk, request.refresh_token, request_id, origin_of_context(context)
        )
        return pb.RefreshTokensResponse(tokens=mapping.pair_to_proto(pair))

    async def SignOut(self, request: pb.SignOutRequest, context: Context) -> pb.SignOutResponse:
        ended = await sign_in_operations.sign_out(self._desk.store, caller(), everywhere=request.everywhere)
        return pb.SignOutResponse(sign_ins=ended)

    async def GetMe(self, request: pb.GetMeRequest, context: Context) -> pb.GetMeResponse:
        user, tenant, permissions = await sign_in_operations.me(self._desk.store, caller())
        return pb.GetMeResponse(
            user=mapping.user_to_proto(user),
            tenant_id=str(tenant.tenant_id),
            tenant_name=tenant.name,
            permissions=mapping.permissions_to_proto(permissions),
        )

    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Context) -> pb.ChangePasswordResponse:
        await sign_in_operations.change_password(
            self._desk, caller(), request.old_password, request.new_password, origin_of_context(context)
        )
        return pb.ChangePasswordResponse()

    async def ListSignIns(self, request: pb.ListSignInsRequest, context: Context) -> pb.ListSignInsResponse:
        who, size = caller(), page_size(request.page_size)
        cursor = page_cursor(request.page_token, user=who.user_id)
        before = cursor.id("before") if cursor else None
        found = await sign_in_operations.list_sign_ins(self._desk.store, who, before, size)
        more = len(found) > size
        return pb.ListSignInsResponse(
            sign_ins=[
                mapping.sign_in_to_proto(each, current=each.sign_in_id == who.sign_in_id) for each in found[:size]
            ],
            next_page_token=page_token({"before": str(found[size - 1].sign_in_id)}, user=who.user_id) if more else "",
        )

    async def RevokeSignIn(self, request: pb.RevokeSignInRequest, context: Context) -> pb.RevokeSignInResponse:
        await sign_in_operations.revoke_sign_in(self._desk.store, caller(), UUID(request.sign_in_id))
        return pb.RevokeSignInResponse()

    async def StartDeviceSignIn(
        self, request: pb.StartDeviceSignInRequest, context: Context
    ) -> pb.StartDeviceSignInResponse:
        code, device = await device_operations.start(self._desk.store, request.device, origin_of_context(context))
        expire, interval = Timestamp(), Duration()
        expire.FromDatetime(device.expire_time)
        interval.FromTimedelta(timedelta(seconds=device.poll_seconds))
        page = f"{self._public_url}/v1/auth/device/page"
        return pb.StartDeviceSignInResponse(
            device_code=code,
            user_code=device.user_code,
            verification_uri=page,
            verification_uri_complete=f"{page}?user_code={device.user_code}",
            expire_time=expire,
            interval=interval,
        )

    async def PollDeviceSignIn(
        self, request: pb.PollDeviceSignInRequest, context: Context
    ) -> pb.PollDeviceSignInResponse:
        pair, user = await device_operations.poll(self._desk, request.device_code, origin_of_context(context))
        return pb.PollDeviceSignInResponse(tokens=mapping.pair_to_proto(pair), user=mapping.user_to_proto(user))
