"""The room of identity, put together. Api takes it into its process: its callers have to be known at every call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from orginabox.api.v1 import (
    api_token_service_pb2_grpc,
    auth_service_pb2_grpc,
    role_service_pb2_grpc,
    tenant_service_pb2_grpc,
    user_service_pb2_grpc,
)
from orginabox.audit.v1 import audit_service_pb2_grpc

from services.identity import tenant_operations
from services.identity.access_token import KEY_BYTES, AccessTokens, SigningKey
from services.identity.api_token_handler import ApiTokenHandler
from services.identity.auth_handler import AuthHandler
from services.identity.authenticator import Authenticator, Credentials
from services.identity.housekeeping import Housekeeping
from services.identity.issuer import Issuer
from services.identity.listener import Listener
from services.identity.origins import origin_of
from services.identity.passwords import Passwords
from services.identity.principals import Principals
from services.identity.role_handler import RoleHandler
from services.identity.settings import IdentitySettings
from services.identity.sign_in_operations import Desk
from services.identity.standing import Standings
from services.identity.store import QUERIES, SCHEMA, Store
from services.identity.tenant_handler import TenantHandler
from services.identity.user_handler import UserHandler
from services.kit.caller import Caller
from services.kit.courier import AuditCourier
from services.kit.gate import Call
from services.kit.keyring import Keyring
from services.kit.postgres import Database
from services.kit.tenancy import as_system

SERVICES = (
    "orginabox.api.v1.AuthService",
    "orginabox.api.v1.UserService",
    "orginabox.api.v1.RoleService",
    "orginabox.api.v1.ApiTokenService",
    "orginabox.api.v1.TenantService",
)


@dataclass(frozen=True)
class Room:
    """Identity, ready to be served.

    Attributes:
        authenticator: Knows who calls.
        desk: Signs people in.
        principals: Tells how a user stands on whose behalf something goes on.
        url: The address at which browsers find the box.
    """

    authenticator: Authenticator
    desk: Desk
    principals: Principals
    url: str
    operator_key: bool

    async def identify(self, call: Call) -> Caller:
        """Who calls: for the gate of a server."""
        credentials = Credentials(call.metadata.get("authorization", ""), origin_of(call.metadata))
        return await self.authenticator.authenticate(credentials)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the handlers to a server."""
        store, passwords = self.desk.store, self.desk.passwords
        auth = AuthHandler(self.desk, self.url, operator_key=self.operator_key)
        auth_service_pb2_grpc.add_AuthServiceServicer_to_server(auth, server)
        user_service_pb2_grpc.add_UserServiceServicer_to_server(UserHandler(store, passwords), server)
        role_service_pb2_grpc.add_RoleServiceServicer_to_server(RoleHandler(store), server)
        api_token_service_pb2_grpc.add_ApiTokenServiceServicer_to_server(ApiTokenHandler(store), server)
        tenant_service_pb2_grpc.add_TenantServiceServicer_to_server(TenantHandler(store, passwords), server)


@asynccontextmanager
async def opened(
    settings: IdentitySettings,
    keyring: Keyring,
    operator_key: str,
    audits: audit_service_pb2_grpc.AuditServiceStub,
    passwords: Passwords | None = None,
) -> AsyncIterator[Room]:
    """Put the room together, and keep it going until the block ends.

    Args:
        settings: What identity is told.
        keyring: From which the keys of tokens are derived.
        operator_key: The key of the box. Empty: it has none.
        audits: Where audit records are brought.
        passwords: How passwords are kept. None means as they should be.
    """
    urls = settings.identity_urls()
    async with Database(urls, SCHEMA, QUERIES) as database:
        store = Store(database)
        await tenant_operations.seed(store)
        access_tokens = AccessTokens(signing_keys(keyring))
        standings = Standings()
        authenticator = Authenticator(store, access_tokens, standings, operator_key, remote_key=settings.api_key_remote)
        desk = Desk(store, Issuer(access_tokens, refresh_keys(keyring)), passwords or Passwords())
        with as_system():  # each loop keeps the scope in which it begins
            background = [
                asyncio.create_task(Listener(urls.system, standings).run()),
                asyncio.create_task(authenticator.run()),
                asyncio.create_task(AuditCourier(database.transaction, audits, store.recorded).run()),
                asyncio.create_task(Housekeeping(store).run()),
            ]
        try:
            yield Room(authenticator, desk, Principals(store, standings), settings.url(), bool(operator_key))
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await authenticator.flush()


def signing_keys(keyring: Keyring) -> list[SigningKey]:
    """The keys of access tokens, the newest first."""
    return [SigningKey(_derived(keyring, b"orginabox access tokens"))]


def refresh_keys(keyring: Keyring) -> list[bytes]:
    """The keys from which refresh tokens are derived, the newest first."""
    return [_derived(keyring, b"orginabox refresh tokens")]


def _derived(keyring: Keyring, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(keyring.key)
