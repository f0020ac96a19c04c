"""Serves the door to Envoy and to nobody else: by TLS 1.3, and each side proves its name, as everywhere in the mesh."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from services.kit import telemetry
from services.kit.gate import EDGE
from services.kit.mesh import Credentials, MeshIdentity

LOOK_EVERY_SECONDS = 5.0
STOP_GRACE_SECONDS = 3


@asynccontextmanager
async def served(app: Any, address: str, identity: MeshIdentity) -> AsyncIterator[None]:
    """Serve until the block ends.

    Args:
        app: What answers.
        address: Where to listen: `unix:///run/web.sock` or `host:port`.
        identity: Who serves.
    """
    context = _Context(identity)
    config = uvicorn.Config(
        app,
        **_place(address),
        http=_protocol(identity),
        ws="none",
        lifespan="off",
        ssl_context_factory=lambda *_: context.ssl,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=STOP_GRACE_SECONDS,
    )
    server = _Server(config)
    running = [asyncio.create_task(server.serve()), asyncio.create_task(context.follow())]
    while not server.started and not running[0].done():  # noqa: ASYNC110 - the library has no event for it
        await asyncio.sleep(0.01)
    if running[0].done():
        running[0].result()
        raise RuntimeError(f"nothing can be served at {address}")
    telemetry.log().info("serving", address=address)
    try:
        yield
    finally:
        server.should_exit = True
        await running[0]
        running[1].cancel()
        await asyncio.gather(running[1], return_exceptions=True)


class _Server(uvicorn.Server):
    """The process has its own way to be told to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Context:
    """TLS with the certificate that this process has now: each handshake takes the newest."""

    def __init__(self, identity: MeshIdentity) -> None:
        self._identity = identity
        self.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
        self.ssl.verify_mode = ssl.CERT_REQUIRED
        self.ssl.num_tickets = 0  # a session that is taken up again would outlive its certificate
        self.ssl.set_alpn_protocols(["http/1.1"])
        self._loaded = self._load(identity.credentials)

    async def follow(self) -> None:
        """Take each new certificate, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            found = self._identity.credentials
            if found.certificate_pem != self._loaded:
                self._loaded = self._load(found)

    def _load(self, found: Credentials) -> bytes:
        folder = self._identity.folder
        self.ssl.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self.ssl.load_verify_locations(cadata=found.roots_pem.decode())
        return found.certificate_pem


def _protocol(identity: MeshIdentity) -> type[asyncio.Protocol]:
    class FromTheEdge(H11Protocol):
        """HTTP for a peer that has proved to be Envoy."""

        def connection_made(self, transport: Any) -> None:
            certificate = transport.get_extra_info("peercert") or {}
            names = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "URI"]
            if len(names) != 1 or identity.name_of(names[0]) != EDGE:
                telemetry.log().warning("a stranger came to the door", names=names)
                transport.abort()
                return
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.transport is not None:
                super().connection_lost(exc)

    return FromTheEdge


def _place(address: str) -> dict[str, Any]:
    if address.startswith("unix://"):
        path = Path(address.removeprefix("unix://"))
        path.unlink(missing_ok=True)  # a killed process left it
        return {"uds": str(path)}
    host, _, port = address.rpartition(":")
    return {"host": host, "port": int(port)}
