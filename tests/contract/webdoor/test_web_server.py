"""The door is open to Envoy alone, by TLS 1.3, over renewals."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.identity.web import server
from services.kit.certificates import write_issued
from services.kit.mesh import MeshIdentity
from tests.identities import authority, identity


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def told(who: str, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = version
    context.load_verify_locations(cadata=identity("envoy").credentials.roots_pem.decode())
    if who:
        folder = identity(who).folder
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@asynccontextmanager
async def client(socket: Path, context: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=str(socket), verify=context)
    async with httpx.AsyncClient(transport=transport, base_url="https://api.orginabox.internal") as found:
        yield found


async def test_envoy_is_let_in_and_nobody_else(tmp_path: Path) -> None:
    socket = tmp_path / "w.sock"
    async with server.served(hello, f"unix://{socket}", identity("api")):
        async with client(socket, told("envoy")) as envoy:
            assert (await envoy.get("/")).text == "hello"
        for stranger in (told("worker"), told(""), told("envoy", version=ssl.TLSVersion.TLSv1_2)):
            async with client(socket, stranger) as other:
                with pytest.raises((httpx.TransportError, ssl.SSLError)):
                    await other.get("/")
    assert not await asyncio.to_thread(_answers, socket)


async def test_a_new_certificate_is_shown_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOOK_EVERY_SECONDS", 0.1)
    folder, socket = tmp_path / "api", tmp_path / "w.sock"
    write_issued(folder, authority().issue("api"))
    async with server.served(hello, f"unix://{socket}", MeshIdentity.load(folder)):
        before = await _shown(socket)
        write_issued(folder, authority().issue("api"))
        async with asyncio.timeout(10):
            while await _shown(socket) == before:  # noqa: ASYNC110 - it is heard of in no other way
                await asyncio.sleep(0.1)


async def _shown(socket: Path) -> bytes:
    """The certificate that the door shows."""
    name = "api.orginabox.internal"
    _, writer = await asyncio.open_unix_connection(str(socket), ssl=told("envoy"), server_hostname=name)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    assert isinstance(found, bytes)
    return found


def _answers(socket: Path) -> bool:
    import socket as sockets

    with sockets.socket(sockets.AF_UNIX) as probe:
        return probe.connect_ex(str(socket)) == 0
