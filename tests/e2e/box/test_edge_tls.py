"""The edge before other machines: TLS for them, none needed on this machine, and a certificate that may be renewed."""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.box.transport import Certificate, Door
from tests.certificates import Authority
from tests.e2e.box.conftest import Running, _running, edge_in


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who gave the box its certificate."""
    return Authority(tmp_path, ["localhost", "box.example"])


@pytest.fixture
def certificate(tmp_path: Path, authority: Authority) -> Certificate:
    """The certificate of the edge."""
    return Certificate(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "edge_certificate.yaml")


@pytest.fixture
async def secured(folder: Path, certificate: Certificate) -> AsyncIterator[Running]:
    """Envoy on every address of this machine, with TLS."""
    edge = replace(edge_in(folder), door=Door("0.0.0.0", certificate))
    async with _running(folder, edge) as found:
        yield found


def trusting(authority: Authority) -> ssl.SSLContext:
    """What a client of another machine needs to know."""
    return ssl.create_default_context(cafile=authority.file)


def url(running: Running) -> str:
    """The box by TLS."""
    return f"https://localhost:{running.edge.port}"


async def test_people_come_by_tls(secured: Running, authority: Authority) -> None:
    async with httpx.AsyncClient(verify=trusting(authority), trust_env=False) as http:
        answer = await http.post(f"{url(secured)}/v1/sessions", json={"title": "hello"})
        assert answer.json()["sessionId"] == "s1"
        assert secured.sessions.metadata["x-forwarded-proto"] == "https"
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        async with httpx.AsyncClient(trust_env=False) as stranger:
            await stranger.get(f"{url(secured)}/v1/healthz")


async def test_grpc_comes_by_tls_on_the_same_port(secured: Running, authority: Authority) -> None:
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{secured.edge.port}", credentials) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(("newest", "taken"), [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)])
async def test_old_tls_is_refused(secured: Running, authority: Authority, newest: ssl.TLSVersion, taken: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    async with httpx.AsyncClient(verify=context, trust_env=False) as http:
        if taken:
            assert (await http.get(f"{url(secured)}/v1/healthz")).is_success
        else:
            with pytest.raises(httpx.ConnectError):
                await http.get(f"{url(secured)}/v1/healthz")


async def test_this_machine_needs_no_tls(secured: Running) -> None:
    assert (await secured.http.get("/v1/healthz")).is_success


async def test_other_machines_do(secured: Running) -> None:
    """A connection from an address that is not that of its other end is taken for one of another machine."""
    assert await asyncio.to_thread(_asked, ("127.0.0.1", 0), secured.edge.port) == b"HTTP/1.1 200 OK"
    for address in _addresses():
        assert await asyncio.to_thread(_asked, (address, 0), secured.edge.port) == b""


def _addresses() -> list[str]:
    """The addresses of this machine by which others know it."""
    found = [
        each.address for cards in psutil.net_if_addrs().values() for each in cards if each.family == socket.AF_INET
    ]
    return [address for address in found if not address.startswith("127.")] or pytest.skip("there is no network card")


def _asked(source: tuple[str, int], port: int) -> bytes:
    """The first line of what comes back without TLS."""
    with socket.create_connection(("127.0.0.1", port), 10, source) as plain:
        plain.settimeout(10)
        try:
            plain.sendall(b"GET /v1/healthz HTTP/1.1\r\nhost: box\r\n\r\n")
            return plain.recv(4096).split(b"\r\n", maxsplit=1)[0]
        except ConnectionError:
            return b""


async def test_a_renewed_certificate_is_taken_without_a_restart(
    secured: Running, authority: Authority, certificate: Certificate, tmp_path: Path
) -> None:
    other = tmp_path / "renewed"
    other.mkdir()
    renewed = Authority(other, ["localhost"])
    # As certbot does: the new files are there, and take the places of the old ones.
    for name in ("server.key", "server.pem"):
        shutil.copy(other / name, tmp_path / f"{name}.new")
    for name in ("server.key", "server.pem"):
        (tmp_path / f"{name}.new").replace(tmp_path / name)
    for _ in range(50):
        async with httpx.AsyncClient(verify=trusting(renewed), trust_env=False) as http:
            try:
                assert (await http.get(f"{url(secured)}/v1/healthz")).is_success
            except httpx.ConnectError:
                await asyncio.sleep(0.1)
            else:
                return
    raise AssertionError("the old certificate is still in use")


async def test_a_bound_address_is_not_the_only_one(folder: Path, certificate: Certificate) -> None:
    """Programs of this machine find the box where it always is."""
    edge = replace(edge_in(folder), door=Door("127.0.0.2", certificate))
    async with _running(folder, edge) as found:
        assert (await found.http.get("/v1/healthz")).is_success
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"http://127.0.0.2:{edge.port}/v1/healthz")).is_success


async def test_nobody_says_for_whom_api_calls(running: Running) -> None:
    await running.http.post("/v1/sessions", json={}, headers={"x-oiab-user": "forged"})
    assert "x-oiab-user" not in running.sessions.metadata
