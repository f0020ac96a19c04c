"""The contract of identity providers."""

from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.api.v1 import identity_provider_service_pb2 as pb
from orginabox.api.v1 import identity_provider_service_pb2_grpc

from services.identity import identity_provider_operations as operations
from services.identity.federation import Federation
from services.identity.identity_provider import IdentityProvider
from services.kit.caller import caller
from services.kit.ids import DEFAULT_TENANT
from services.kit.interceptor import Context
from services.kit.pages import page_cursor, page_size, page_token


class IdentityProviderHandler(identity_provider_service_pb2_grpc.IdentityProviderServiceServicer):
    """The identity providers of the caller's tenant."""

    def __init__(self, federation: Federation, public_url: str) -> None:
        self._federation = federation
        self._public_url = public_url

    async def PutIdentityProvider(
        self, request: pb.PutIdentityProviderRequest, context: Context
    ) -> pb.PutIdentityProviderResponse:
        said = request.identity_provider
        kept = await operations.put(
            self._federation.store,
            self._federation.openid,
            self._federation.sealing,
            caller(),
            _from_proto(said),
            said.client_secret,
        )
        return pb.PutIdentityProviderResponse(
            identity_provider=_to_proto(kept), redirect_uri=self._federation.redirect_uri
        )

    async def ListIdentityProviders(
        self, request: pb.ListIdentityProvidersRequest, context: Context
    ) -> pb.ListIdentityProvidersResponse:
        who, size = caller(), page_size(request.page_size)
        cursor = page_cursor(request.page_token, tenant=who.tenant_id)
        after = cursor.text("after") if cursor else ""
        found = await operations.list_all(self._federation.store, who, after, size)
        more = len(found) > size
        last = found[size - 1].identity_provider_id if more else ""
        return pb.ListIdentityProvidersResponse(
            identity_providers=[_to_proto(each) for each in found[:size]],
            next_page_token=page_token({"after": last}, tenant=who.tenant_id) if more else "",
        )

    async def DeleteIdentityProvider(
        self, request: pb.DeleteIdentityProviderRequest, context: Context
    ) -> pb.DeleteIdentityProviderResponse:
        await operations.delete(self._federation.store, caller(), request.identity_provider_id)
        return pb.DeleteIdentityProviderResponse()

    async def RotateScimToken(self, request: pb.RotateScimTokenRequest, context: Context) -> pb.RotateScimTokenResponse:
        token = await operations.rotate_scim_token(self._federation.store, caller())
        return pb.RotateScimTokenResponse(token=token, base_uri=f"{self._public_url}/scim/v2")


def _from_proto(said: pb.IdentityProvider) -> IdentityProvider:
    return IdentityProvider(
        tenant_id=DEFAULT_TENANT,
        identity_provider_id=said.identity_provider_id,
        issuer=said.issuer,
        client_id=said.client_id,
        display_name=said.display_name,
        scopes=tuple(said.scopes),
        groups_claim=said.groups_claim,
        create_users=said.create_users,
        directory_id=said.directory_id,
    )


def _to_proto(kept: IdentityProvider) -> pb.IdentityProvider:
    stamp = None
    if kept.update_time:
        stamp = Timestamp()
        stamp.FromDatetime(kept.update_time)
    return pb.IdentityProvider(
        identity_provider_id=kept.identity_provider_id,
        display_name=kept.display_name,
        issuer=kept.issuer,
        client_id=kept.client_id,
        scopes=kept.scopes,
        groups_claim=kept.groups_claim,
        create_users=kept.create_users,
        directory_id=kept.directory_id,
        update_time=stamp,
    )
