"""The address of a provider's API, and which addresses are refused."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, urlsplit

from services.kit.errors import DomainError, Kind

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
MAX_URL = 2_048
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_PORTS = {"http": 80, "https": 443}

# Names that public DNS does not give out, so that what they stand for is a network of ours.
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".svc", ".test")

# Where clouds hand out credentials to whoever asks from inside; link-local addresses are refused as a whole.
_METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"})
_METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(text) for text in ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class ProviderAddressRefused(DomainError):
    """The provider's address may not be used."""

    kind = Kind.INVALID_ARGUMENT
    reason = "PROVIDER_ADDRESS_REFUSED"


@dataclass(frozen=True)
class Address:
    """Where a provider's API is. A unix socket stands for the demo model, which nobody can set."""

    scheme: str
    host: str
    port: int
    path: str
    socket: str = ""

    @classmethod
    def parse(cls, url: str, *, root: str = "", has_key: bool = False) -> Self:
        """Read an address that somebody gave.

        Loopback and private networks are allowed: models that a company runs itself are a reason to have this box, and
        they live there. Only who may manage providers can set an address, the path and the calls are bounded, and the
        sandbox sees nothing but a model's answers. What is refused is where clouds keep credentials.

        Args:
            url: The address.
            root: The path that an address means which has none, or only the beginning of it.
            has_key: Whether calls carry a key, which must not cross a public network in the clear.

        Raises:
            ProviderAddressRefused: It may not be used.
        """
        parts = _split(url)
        host, port = _host(parts), _port(parts)
        _refuse_metadata(host)
        if has_key and parts.scheme == "http" and not is_private(host):
            raise ProviderAddressRefused(
                f"{host} is not on a private network, so its key needs https", host=host, scheme=parts.scheme
            )
        path = _path(parts, host)
        return cls(parts.scheme, host, port, root if root.startswith(f"{path}/") else path)

    @property
    def is_ip(self) -> bool:
        """Whether the host is a number and not a name."""
        return _as_ip(self.host) is not None

    @property
    def authority(self) -> str:
        """Host and port as the Host header names them."""
        if self.socket:
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as it is written."""
        return f"{self.scheme}://{self.authority}{self.path}"


def is_private(host: str) -> bool:
    """Whether the host is this machine or on a private network, as far as its name tells."""
    if address := _as_ip(host):
        return address.is_loopback or address.is_private
    # A name without a dot is one of a container network or of the company's search domain.
    return "." not in host or host.endswith(_PRIVATE_SUFFIXES)


def _split(url: str) -> SplitResult:
    if len(url) > MAX_URL or not _PRINTABLE.fullmatch(url):  # the library drops tabs and line ends without a word
        raise ProviderAddressRefused("the address is too long or holds what an address does not", host="")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ProviderAddressRefused("the address cannot be read; it looks like https://host/path", host="") from None
    if parts.scheme not in _PORTS:
        raise ProviderAddressRefused("the address must begin with https:// or http://", host=parts.hostname or "")
    if parts.username is not None or parts.password is not None:
        raise ProviderAddressRefused(
            "the address must not hold a user or password; give the key as the key", host=parts.hostname or ""
        )
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ProviderAddressRefused("the address must end with its path", host=parts.hostname or "")
    return parts


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").removesuffix(".")
    if "%" not in host and _as_ip(host) is not None:
        return str(ipaddress.ip_address(host))
    # Resolvers read 2852039166, 0xa9fea9fe and 169.254.43518 as numbers: a host that ends like one must be a plain one.
    last = host.rpartition(".")[2]
    if not _HOST.fullmatch(host) or re.fullmatch(r"\d+|0x[0-9a-f]*", last):
        raise ProviderAddressRefused("the address has no host that can be read", host=host)
    return host


def _port(parts: SplitResult) -> int:
    if parts.port == 0 or parts.netloc.endswith(":"):
        raise ProviderAddressRefused("the address has no port that can be used", host=parts.hostname or "")
    return parts.port or _PORTS[parts.scheme]


def _path(parts: SplitResult, host: str) -> str:
    path = parts.path.rstrip("/")
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ProviderAddressRefused("the path of the address holds what a path of an API does not", host=host)
    return path


def _refuse_metadata(host: str) -> None:
    address = _as_ip(host)
    inner = _embedded(address) if address else None
    if host in _METADATA_NAMES or any(found and _is_refused(found) for found in (address, inner)):
        raise ProviderAddressRefused(f"{host} is not where a model can be", host=host)


def _is_refused(address: IPAddress) -> bool:
    return address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA_ADDRESSES


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
