"""An OpenID provider that forges: each test says what its next token is, and how it is signed."""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import joserfc.jwt
from aiohttp import web
from joserfc.jwk import ECKey, OctKey


@dataclass
class ForgingIssuer:
    """What it says, until a test says otherwise."""

    url: str = ""
    key: ECKey = field(
        default_factory=lambda: ECKey.generate_key("P-256", {"kid": "first", "use": "sig", "alg": "ES256"})
    )
    published: list[ECKey] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "ada", "name": "Ada"})
    forge: Callable[[dict[str, Any]], str] | None = None
    document: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    asked: dict[str, str] = field(default_factory=dict)
    exchanged: dict[str, str] = field(default_factory=dict)
    keys_read: int = 0

    def token(self, clock: float) -> str:
        """The token of the next sign-in."""
        claims = {
            "iss": self.url,
            "aud": "box",
            "nonce": self.asked.get("nonce", ""),
            "iat": int(clock),
            "exp": int(clock) + 300,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        if self.forge:
            return self.forge(claims)
        return signed(claims, self.key)


def signed(claims: dict[str, Any], key: ECKey | OctKey, algorithm: str = "ES256", kid: str = "") -> str:
    """A token."""
    header = {"alg": algorithm, "kid": kid or str(key.kid)}
    return joserfc.jwt.encode(header, claims, key, algorithms=[algorithm])


def unsigned(claims: dict[str, Any]) -> str:
    """A token of `alg: none`."""
    parts = [{"alg": "none"}, claims]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


@asynccontextmanager
async def forging() -> AsyncIterator[ForgingIssuer]:
    """Run one."""
    issuer = ForgingIssuer()

    async def discovery(_: web.Request) -> web.Response:
        if issuer.status != 200:
            return web.Response(status=issuer.status)
        document = {
            "issuer": issuer.url,
            "authorization_endpoint": f"{issuer.url}/authorize",
            "token_endpoint": f"{issuer.url}/token",
            "jwks_uri": f"{issuer.url}/keys",
            **issuer.document,
        }
        return web.json_response({name: value for name, value in document.items() if value is not None})

    async def keys(_: web.Request) -> web.Response:
        issuer.keys_read += 1
        return web.json_response({"keys": [key.as_dict(private=False) for key in issuer.published or [issuer.key]]})

    async def authorize(request: web.Request) -> web.Response:
        issuer.asked = dict(request.query)
        query = urlencode({"code": secrets.token_hex(8), "state": issuer.asked["state"]})
        raise web.HTTPSeeOther(f"{issuer.asked['redirect_uri']}?{query}")

    async def token(request: web.Request) -> web.Response:
        issuer.exchanged = {name: str(value) for name, value in (await request.post()).items()}
        if issuer.status != 200:
            return web.Response(status=issuer.status)
        clock = time.time()
        return web.json_response({"access_token": "x", "token_type": "Bearer", "id_token": issuer.token(clock)})

    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", discovery)
    app.router.add_get("/keys", keys)
    app.router.add_get("/authorize", authorize)
    app.router.add_post("/token", token)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = site._server
    assert isinstance(server, asyncio.Server)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield issuer
    await runner.cleanup()
