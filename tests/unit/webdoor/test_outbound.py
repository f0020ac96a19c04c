"""Calls to identity providers reach nothing of ours."""

import asyncio
import ipaddress
import socket
from typing import Any

import pytest

from services.identity.identity_provider import IdentityProviderRefused, IdentityProviderUnavailable
from services.identity.outbound import Outbound, _Guard

INSIDE = ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"]
NEVER = [
    *("169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
    *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fd00:ec2::254"),
]


@pytest.fixture
async def public() -> Any:
    found = Outbound()
    yield found
    await found.close()


@pytest.fixture
async def private() -> Any:
    found = Outbound(private_networks=True)
    yield found
    await found.close()


@pytest.mark.parametrize("address", INSIDE)
async def test_private_networks_are_called_only_where_that_is_allowed(
    public: Outbound, private: Outbound, address: str
) -> None:
    with pytest.raises(IdentityProviderRefused):
        public.refuse_address(ipaddress.ip_address(address))
    private.refuse_address(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NEVER)
async def test_some_addresses_are_never_called(private: Outbound, address: str) -> None:
    with pytest.raises(IdentityProviderRefused):
        private.refuse_address(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        *("http://idp.example", "ftp://idp.example", "https://", "https://a:b@idp.example", "https://idp.example/#x"),
        *("https://10.0.0.1", "https://[::1]", "https://idp.example:x", "javascript:alert(1)", "http://127.0.0.1"),
    ],
)
async def test_addresses_are_refused_as_they_are_written(public: Outbound, url: str) -> None:
    with pytest.raises(IdentityProviderRefused):
        public.refuse_url(url)


async def test_a_name_is_looked_at_where_the_connection_is_made(
    public: Outbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(public._client._transport._pool._network_backend, _Guard)  # type: ignore[attr-defined]

    async def rebound(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443)), (2, 1, 6, "", ("127.0.0.1", 443))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebound)
    with pytest.raises(IdentityProviderRefused):
        await public.get("https://idp.example/.well-known/openid-configuration")


async def test_an_answer_without_end_is_cut(private: Outbound) -> None:
    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        try:
            while True:
                writer.write(b" " * 65536)
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(IdentityProviderRefused, match="1 MiB"):
        await private.get(f"http://127.0.0.1:{port}/")
    server.close()


async def test_redirects_are_not_followed_and_nothing_is_called_that_does_not_listen(private: Outbound) -> None:
    async def elsewhere(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(elsewhere, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(IdentityProviderUnavailable, match="302"):
        await private.get(f"http://127.0.0.1:{port}/")
    server.close()
    with pytest.raises(IdentityProviderUnavailable, match="reached"):
        await private.get("http://127.0.0.1:1/")
