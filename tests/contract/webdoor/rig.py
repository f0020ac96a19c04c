"""The browser's door in this process, with browsers that keep cookies and follow where they are sent."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from google.protobuf.field_mask_pb2 import FieldMask
from orginabox.api.v1 import identity_provider_service_pb2 as pb
from orginabox.api.v1 import identity_provider_service_pb2_grpc as pb_grpc
from orginabox.api.v1 import tenant_service_pb2

from tests.contract.identity.rig import HERE, Rig, running

BOX = "http://127.0.0.1:8787"
LOGIN = f"{BOX}/v1/auth/login"


@dataclass
class Web:
    """A running door."""

    rig: Rig

    def __post_init__(self) -> None:
        self.app = self.rig.room.pages()
        self.providers = pb_grpc.IdentityProviderServiceStub(self.rig.channel)
        self._clients: list[httpx.AsyncClient] = []

    async def close(self) -> None:
        """Close every browser."""
        for client in self._clients:
            await client.aclose()

    def _opened(self, client: httpx.AsyncClient) -> httpx.AsyncClient:
        self._clients.append(client)
        return client

    def browser(self, account: str = "", address: str = HERE) -> httpx.AsyncClient:
        """A browser with a cookie jar of its own; with an account, the provider knows who sits before it."""
        cookies = {"test_account": account} if account else None
        return self._opened(
            httpx.AsyncClient(
                mounts={BOX: httpx.ASGITransport(self.app, raise_app_exceptions=False)},
                headers={"accept": "text/html", "x-forwarded-for": address, "user-agent": "Browser"},
                cookies=cookies,
                follow_redirects=True,
                trust_env=False,
            )
        )

    async def add_provider(self, issuer: str, client_id: str = "box", **more: object) -> pb.IdentityProvider:
        """Let people sign in there."""
        provider = pb.IdentityProvider(identity_provider_id="idp", issuer=issuer, client_id=client_id, **more)  # type: ignore[arg-type]
        request = pb.PutIdentityProviderRequest(identity_provider=provider)
        answer = await self.providers.PutIdentityProvider(request, metadata=self.rig.operator)
        assert answer.redirect_uri == f"{BOX}/v1/auth/callback"
        kept: pb.IdentityProvider = answer.identity_provider
        return kept

    async def map_groups(self, **roles: str) -> None:
        """Say which group has which role."""
        request = tenant_service_pb2.UpdateTenantRequest(
            tenant=tenant_service_pb2.Tenant(
                group_roles=[tenant_service_pb2.GroupRole(group=group, role=role) for group, role in roles.items()]
            ),
            update_mask=FieldMask(paths=["group_roles"]),
        )
        await self.rig.tenants.UpdateTenant(request, metadata=self.rig.operator)

    async def scim_token(self) -> str:
        """The token of the program that brings users."""
        answer = await self.providers.RotateScimToken(pb.RotateScimTokenRequest(), metadata=self.rig.operator)
        assert answer.base_uri == f"{BOX}/scim/v2"
        return str(answer.token)

    def directory(self, token: str) -> httpx.AsyncClient:
        """The program that brings users."""
        return self._opened(
            httpx.AsyncClient(
                base_url=f"{BOX}/scim/v2",
                transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
                headers={"authorization": f"Bearer {token}"},
                trust_env=False,
            )
        )

    def cookies(self, browser: httpx.AsyncClient, **more: str) -> tuple[tuple[str, str], ...]:
        """What a script of a signed-in page sends along with a call of the API."""
        kept = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies.jar)
        return (("cookie", kept), ("x-forwarded-for", HERE), *((k.replace("_", "-"), v) for k, v in more.items()))


def field(page: httpx.Response, name: str) -> str:
    """The value of a hidden field of a form."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    assert found, page.text
    return found[1]


def refusal(page: httpx.Response) -> str:
    """What a page says that did not work."""
    found = re.search(r'class="refusal" role="alert">([^<]*)<', page.text)
    assert found, page.text
    return found[1]


@asynccontextmanager
async def web_door(database_url: str, folder: Path) -> AsyncIterator[Web]:
    """Run one."""
    async with running(database_url, str(folder / "keyring"), sso_private_networks=True) as rigs:
        web = Web(rigs[0])
        yield web
        await web.close()
