"""The room of identity, put together. Api takes it into its process: its callers have to be known at every call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from orginabox.api.v1 import (
    api_token_service_pb2_grpc,
    auth_service_pb2_grpc,
    identity_provider_service_pb2_grpc,
    role_service_pb2_grpc,
    tenant_service_pb2_grpc,
    user_service_pb2_grpc,
)
from orginabox.audit.v1 import audit_service_pb2_grpc
from starlette.applications import Starlette

from services.identity import tenant_operations
from services.identity.access_token import AccessTokens
from services.identity.api_token_handler import ApiTokenHandler
from services.identity.auth_handler import AuthHandler
from services.identity.authenticator import Authenticator, Credentials
from services.identity.browser import CSRF_HEADER, Browsers, Sender
from services.identity.federation import Federation
from services.identity.housekeeping import Housekeeping
from services.identity.identity_provider_handler import IdentityProviderHandler
from services.identity.issuer import Issuer
from services.identity.listener import Listener
from services.identity.oidc import OpenId
from services.identity.origins import origin_of
from services.identity.outbound import Outbound
from services.identity.passwords import Passwords
from services.identity.principals import Principals
from services.identity.role_handler import RoleHandler
from services.identity.sealing import Sealing
from services.identity.settings import IdentitySettings
from services.identity.sign_in_operations import Desk
from services.identity.standing import Standings
from services.identity.store import QUERIES, SCHEMA, SECRETS, Store
from services.identity.tenant_handler import TenantHandler
from services.identity.token_keys import KEPT, TokenKeys
from services.identity.user_handler import UserHandler
from services.identity.web import app as web
from services.identity.web.door import CALLBACK, Door
from services.kit.caller import Caller
from services.kit.courier import AuditCourier
from services.kit.gate import Call
from services.kit.keyring import Keyring
from services.kit.keyring.admin import KeyringAdmin
from services.kit.keyring.handler import KeyringHandler
from services.kit.keyring.opening import open_keyring
from services.kit.policy import changes_something
from services.kit.postgres import Database
from services.kit.tenancy import as_system

SERVICES = (
    "orginabox.api.v1.AuthService",
    "orginabox.api.v1.UserService",
    "orginabox.api.v1.RoleService",
    "orginabox.api.v1.ApiTokenService",
    "orginabox.api.v1.TenantService",
    "orginabox.api.v1.IdentityProviderService",
)


@dataclass(frozen=True)
class Room:
    """Identity, ready to be served.

    Attributes:
        authenticator: Knows who calls.
        desk: Signs people in.
        principals: Tells how a user stands on whose behalf something goes on.
        url: The address at which browsers find the box.
        operator_key: Whether the key of the box opens it.
        keyring: Seals the secrets of identity.
        token_keys: Keeps the keys of tokens.
        federation: Signs people in by identity providers.
        browsers: Knows browsers by their cookies.
    """

    authenticator: Authenticator
    desk: Desk
    principals: Principals
    url: str
    operator_key: bool
    keyring: Keyring
    token_keys: TokenKeys
    federation: Federation
    browsers: Browsers

    @property
    def keyrings(self) -> KeyringHandler:
        """Operates the keyring, for Api."""
        return KeyringHandler(self.token_keys.admin)

    async def identify(self, call: Call) -> Caller:
        """Who calls: for the gate of a server."""
        said = call.metadata
        sender = Sender(said.get("origin", ""), said.get("sec-fetch-site", ""), said.get(CSRF_HEADER, ""))
        credentials = Credentials(
            said.get("authorization", ""),
            origin_of(said),
            said.get("cookie", ""),
            sender,
            unsafe=changes_something(call.method),
        )
        return await self.authenticator.authenticate(credentials)

    def pages(self) -> Starlette:
        """The browser's door: what answers to its requests."""
        return web.build(Door(self.authenticator, self.desk, self.federation, self.browsers), self.url)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the handlers to a server."""
        store, passwords = self.desk.store, self.desk.passwords
        auth = AuthHandler(self.desk, self.url, operator_key=self.operator_key)
        auth_service_pb2_grpc.add_AuthServiceServicer_to_server(auth, server)
        user_service_pb2_grpc.add_UserServiceServicer_to_server(UserHandler(store, passwords), server)
        role_service_pb2_grpc.add_RoleServiceServicer_to_server(RoleHandler(store), server)
        api_token_service_pb2_grpc.add_ApiTokenServiceServicer_to_server(ApiTokenHandler(store), server)
        tenant_service_pb2_grpc.add_TenantServiceServicer_to_server(TenantHandler(store, passwords), server)
        identity_provider_service_pb2_grpc.add_IdentityProviderServiceServicer_to_server(
            IdentityProviderHandler(self.federation, self.url), server
        )


@asynccontextmanager
async def opened(
    settings: IdentitySettings,
    operator_key: str,
    audits: audit_service_pb2_grpc.AuditServiceStub,
    passwords: Passwords | None = None,
) -> AsyncIterator[Room]:
    """Put the room together, and keep it going until the block ends.

    Args:
        settings: What identity is told.
        operator_key: The key of the box. Empty: it has none.
        audits: Where audit records are brought.
        passwords: How passwords are kept. None means as they should be.
    """
    urls = settings.identity_urls()
    async with Database(urls, SCHEMA, QUERIES) as database:
        store = Store(database)
        await tenant_operations.seed(store)
        keyring = await open_keyring(SCHEMA, database, settings, SECRETS)
        admin = KeyringAdmin(keyring, database, SECRETS, grace=KEPT, recorded=store.recorded)
        token_keys = TokenKeys(keyring, admin)
        access_tokens = AccessTokens(await token_keys.signing())
        standings = Standings()
        browsers = Browsers(await token_keys.sealing_cookies(), settings.url())
        authenticator = Authenticator(
            store, access_tokens, standings, browsers, operator_key, remote_key=settings.api_key_remote
        )
        issuer = Issuer(access_tokens, await token_keys.refreshing())
        desk = Desk(store, issuer, passwords or Passwords())
        outbound = Outbound(private_networks=settings.sso_private_networks)
        federation = Federation(store, issuer, OpenId(outbound), Sealing(keyring), f"{settings.url()}{CALLBACK}")
        with as_system():  # each loop keeps the scope in which it begins
            background = [
                asyncio.create_task(Listener(urls.system, standings).run()),
                asyncio.create_task(authenticator.run()),
                asyncio.create_task(AuditCourier(database.transaction, audits, store.recorded).run()),
                asyncio.create_task(Housekeeping(store).run()),
                asyncio.create_task(token_keys.run(access_tokens, issuer, browsers)),
            ]
        try:
            yield Room(
                authenticator,
                desk,
                Principals(store, standings),
                settings.url(),
                bool(operator_key),
                keyring,
                token_keys,
                federation,
                browsers,
            )
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await authenticator.flush()
            await outbound.close()
