"""Calls to identity providers, whose addresses people set: they reach the public internet, and nothing of ours.

The guard sits where the connection is made: every address that a name stands for is looked at, and the one that was
looked at is the one that is called. A name that stands for something else a moment later gains nothing by it.
"""

import asyncio
import ipaddress
import json
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from services.identity.identity_provider import IdentityProviderRefused, IdentityProviderUnavailable

TIMEOUT_SECONDS = 10.0
MOST_BYTES = 1024 * 1024
# Where clouds hand out credentials; the addresses of the link are refused as a whole.
_METADATA = frozenset(
    ipaddress.ip_address(each) for each in ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Outbound:
    """Calls identity providers.

    Args:
        private_networks: Whether they may be on private networks, such as a Keycloak of the company, and on this
            machine without TLS.
    """

    def __init__(self, *, private_networks: bool = False) -> None:
        self._private = private_networks
        transport = httpx.AsyncHTTPTransport(
            verify=ssl.create_default_context(), limits=httpx.Limits(max_connections=32)
        )
        # The library has no door for this; a test sees to it that the guard is there.
        transport._pool._network_backend = _Guard(self)  # noqa: SLF001
        self._client = httpx.AsyncClient(
            transport=transport,
            timeout=TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=False,
            headers={"accept": "application/json", "user-agent": "orginabox"},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def refuse_url(self, url: str) -> None:
        """Refuse an address by what is written in it.

        Raises:
            IdentityProviderRefused: It may not be called.
        """
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            raise IdentityProviderRefused("the address of the identity provider cannot be read") from None
        if not host or parts.username is not None or parts.fragment:
            raise IdentityProviderRefused("the address of the identity provider must be https://host/path")
        if parts.scheme != "https" and not (parts.scheme == "http" and self._private and _is_loopback(host)):
            raise IdentityProviderRefused(f"{host}: the address of an identity provider must begin with https://")
        if address := _as_ip(host):
            self.refuse_address(address)

    def refuse_address(self, address: IPAddress) -> None:
        """Refuse an address that a name stands for.

        Raises:
            IdentityProviderRefused: It may not be called.
        """
        inner = _embedded(address) or address
        if inner.is_link_local or inner.is_multicast or inner.is_unspecified or inner in _METADATA:
            raise IdentityProviderRefused("this address is not where an identity provider can be")
        if not self._private and not inner.is_global:
            raise IdentityProviderRefused(
                "the identity provider is on a private network; who runs the box can allow that with "
                "OIAB_SSO_PRIVATE_NETWORKS=true"
            )

    async def get(self, url: str) -> dict[str, Any]:
        """What is at an address, as an object of JSON.

        Raises:
            IdentityProviderRefused: It may not be called, or what is there is not one.
            IdentityProviderUnavailable: It does not answer, or with an error.
        """
        status, found = await self._call("GET", url)
        if status != httpx.codes.OK:
            raise IdentityProviderUnavailable(f"the identity provider answers with {status}; try again in a moment")
        return found

    async def post(
        self, url: str, form: Mapping[str, str], auth: tuple[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Send a form; the status and the object of JSON that come back."""
        return await self._call("POST", url, data=form, auth=auth)

    async def _call(self, method: str, url: str, **more: Any) -> tuple[int, dict[str, Any]]:
        self.refuse_url(url)
        try:
            async with asyncio.timeout(2 * TIMEOUT_SECONDS):
                async with self._client.stream(method, url, **more) as answer:
                    body = await _bounded(answer)
        except (httpx.HTTPError, TimeoutError, OSError):
            raise IdentityProviderUnavailable(
                "the identity provider cannot be reached; try again in a moment"
            ) from None
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return answer.status_code, found
        if answer.status_code >= httpx.codes.BAD_REQUEST:
            return answer.status_code, {}
        raise IdentityProviderRefused("the identity provider does not answer in JSON; is it the right issuer?")


class _Guard(httpcore.AsyncNetworkBackend):
    """Makes connections to addresses that may be called."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        for address in addresses:
            self._outbound.refuse_address(ipaddress.ip_address(address.partition("%")[0]))
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


async def _bounded(answer: httpx.Response) -> bytes:
    """The body of an answer, unless it has no end."""
    parts, size = [], 0
    async for part in answer.aiter_bytes():
        size += len(part)
        if size > MOST_BYTES:
            raise IdentityProviderRefused("the identity provider answers with more than 1 MiB")
        parts.append(part)
    return b"".join(parts)


def _embedded(address: IPAddress) -> IPAddress | None:
    """The IPv4 address that an IPv6 address is a way to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _as_ip(host: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _as_ip(host)
    return host == "localhost" if address is None else address.is_loopback
