"""Runtime in this process on a database and a home of its own, for tests that call it as its clients do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
from ext_authz import external_auth_pb2 as auth
from ext_authz import external_auth_pb2_grpc as auth_grpc
from orginabox.runtime.v1 import provider_pb2, runtime_service_pb2_grpc
from orginabox.runtime.v1 import runtime_service_pb2 as pb

from services.kit.ids import DEFAULT_TENANT, OPERATOR, new_id
from services.kit.keyring.admin import KeyringAdmin
from services.kit.keyring.opening import open_keyring
from services.kit.postgres import Database
from services.runtime import operations
from services.runtime.__main__ import SERVICES, installation, register
from services.runtime.installation import Installation
from services.runtime.settings import RuntimeSettings
from services.runtime.store import QUERIES, SCHEMA, SECRETS, Store
from tests.contract.rig import served
from tests.postgres import as_service

TENANT = str(DEFAULT_TENANT)


@dataclass(frozen=True)
class Runtime:
    """A running Runtime, with the calls that tests make most."""

    channel: grpc.aio.Channel
    box: Installation
    store: Store

    @property
    def stub(self) -> runtime_service_pb2_grpc.RuntimeServiceStub:
        """The contract."""
        return runtime_service_pb2_grpc.RuntimeServiceStub(self.channel)

    async def create(
        self, provider: provider_pb2.Provider, key: str = "", request_id: str = "", tenant: str = TENANT
    ) -> provider_pb2.Provider:
        """Add a provider."""
        request = pb.CreateProviderRequest(tenant_id=tenant, provider=provider, api_key=key, request_id=request_id)
        return (await self.stub.CreateProvider(request)).provider

    async def update(self, provider: provider_pb2.Provider, *mask: str, key: str = "") -> provider_pb2.Provider:
        """Change a provider."""
        request = pb.UpdateProviderRequest(tenant_id=TENANT, provider=provider, api_key=key)
        request.update_mask.paths.extend(mask)
        return (await self.stub.UpdateProvider(request)).provider

    async def delete(self, provider_id: str) -> None:
        """Remove a provider."""
        await self.stub.DeleteProvider(pb.DeleteProviderRequest(tenant_id=TENANT, provider_id=provider_id))

    async def providers(self) -> list[provider_pb2.Provider]:
        """Every provider."""
        return list((await self.stub.ListProviders(pb.ListProvidersRequest(tenant_id=TENANT))).providers)

    async def preferred(self) -> list[str]:
        """The names of the preferred providers."""
        return [provider.provider_id for provider in await self.providers() if provider.preferred]

    async def status(self, tenant: str = TENANT) -> pb.GetRuntimeStatusResponse:
        """How things stand."""
        return await self.stub.GetRuntimeStatus(pb.GetRuntimeStatusRequest(tenant_id=tenant))

    async def apply(self, tenant: str = TENANT) -> pb.ApplyRuntimeResponse:
        """Apply."""
        return await self.stub.ApplyRuntime(pb.ApplyRuntimeRequest(tenant_id=tenant))

    async def token(self, sandbox_id: str = "", tenant: str = TENANT) -> str:
        """A token of the model door."""
        request = pb.IssueModelTokenRequest(
            tenant_id=tenant, user_id=str(OPERATOR), sandbox_id=sandbox_id or str(new_id())
        )
        return (await self.stub.IssueModelToken(request)).token

    async def check(self, path: str, method: str = "POST", **headers: str) -> auth.CheckResponse:
        """What the door says to a call."""
        request = auth.CheckRequest()
        request.attributes.request.http.method = method
        request.attributes.request.http.path = path
        for name, value in headers.items():
            request.attributes.request.http.headers[name.replace("_", "-")] = value
        stub = auth_grpc.AuthorizationStub(self.channel)
        return await stub.Check(request)


@asynccontextmanager
async def runtime(url: str, home: Path, socket: Path | None = None, **more: str) -> AsyncIterator[Runtime]:
    """Run Runtime until the block ends, on a socket of its own unless one is given."""
    settings = RuntimeSettings(home=home, run_dir=home / "run", **more)  # type: ignore[arg-type]
    async with Database(as_service(url, SCHEMA), SCHEMA, QUERIES) as database:
        keyring = await open_keyring(SCHEMA, database, settings, SECRETS)
        box, store = installation(settings, keyring), Store(database)
        admin = KeyringAdmin(keyring, database, SECRETS, recorded=store.recorded)
        await operations.restore(box, store)
        async with served(SERVICES, partial(register, box, store, admin), socket=socket) as channel:
            yield Runtime(channel, box, store)
