"""The contract of API tokens."""

from uuid import UUID

from orginabox.api.v1 import api_token_service_pb2 as pb
from orginabox.api.v1 import api_token_service_pb2_grpc

from services.identity import api_token_operations, mapping
from services.identity.store import Store
from services.kit.caller import caller
from services.kit.interceptor import Context
from services.kit.pages import page_cursor, page_size, page_token


class ApiTokenHandler(api_token_service_pb2_grpc.ApiTokenServiceServicer):
    """The caller's API tokens."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def CreateApiToken(self, request: pb.CreateApiTokenRequest, context: Context) -> pb.CreateApiTokenResponse:
        wanted = api_token_operations.NewApiToken(
            request.name,
            frozenset(request.scopes),
            mapping.time_from_proto(request.expire_time) if request.HasField("expire_time") else None,
        )
        request_id = UUID(request.request_id) if request.request_id else None
        token, secret = await api_token_operations.create_api_token(self._store, caller(), wanted, request_id)
        return pb.CreateApiTokenResponse(api_token=mapping.api_token_to_proto(token), token=secret)

    async def ListApiTokens(self, request: pb.ListApiTokensRequest, context: Context) -> pb.ListApiTokensResponse:
        who, size = caller(), page_size(request.page_size)
        cursor = page_cursor(request.page_token, user=who.user_id)
        before = cursor.id("before") if cursor else None
        found = await api_token_operations.list_api_tokens(self._store, who, before, size)
        more = len(found) > size
        return pb.ListApiTokensResponse(
            api_tokens=[mapping.api_token_to_proto(token) for token in found[:size]],
            next_page_token=page_token({"before": str(found[size - 1].api_token_id)}, user=who.user_id) if more else "",
        )

    async def RevokeApiToken(self, request: pb.RevokeApiTokenRequest, context: Context) -> pb.RevokeApiTokenResponse:
        await api_token_operations.revoke_api_token(self._store, caller(), UUID(request.api_token_id))
        return pb.RevokeApiTokenResponse()
