"""The model door: who calls with which token, and where the call goes with which key.

Every model call of every sandbox waits for this decision, so what it needs is kept in memory for a few seconds.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

from pydantic import SecretStr

from services.kit.keyring import KeyringDenied, KeyringMismatch, KeyringUnavailable
from services.kit.tenancy import as_system, as_tenant
from services.runtime.clusters import cluster_name
from services.runtime.installation import Installation
from services.runtime.operations import token_digest
from services.runtime.provider import Provider
from services.runtime.store import Store, TokenHolder

K = TypeVar("K")
V = TypeVar("V")

KEPT_SECONDS = 5.0
KEPT_ENTRIES = 10_000

# Where the libraries of model providers put a key.
KEY_HEADERS = ("authorization", "x-api-key", "api-key")
# What a sandbox must not say to a provider: in whose name the company's key acts, and our own ids.
WITHHELD_HEADERS = (
    *KEY_HEADERS,
    "cookie",
    "openai-organization",
    "openai-project",
    "x-session-id",
    "x-session-affinity",
    "x-parent-session-id",
)


class DoorClosed(Exception):
    """The call does not go out."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message


@dataclass(frozen=True)
class Passage:
    """A call that goes out: to where, and with what."""

    holder: TokenHolder
    cluster: str
    path: str
    key_header: str
    key_prefix: str
    key: SecretStr | None


@dataclass(frozen=True)
class _Route:
    """A provider as the door needs it."""

    provider: Provider
    cluster: str
    base_path: str
    key: SecretStr | None = None
    closed: DoorClosed | None = None
    """Why nothing goes out this way."""


class Door:
    """Decides on calls.

    Args:
        box: The installation.
        store: Where tokens and applied providers are.
        clock: Seconds that only go forward.
    """

    def __init__(self, box: Installation, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._box = box
        self._store = store
        self._forgotten = 0
        self._holders: _Recent[bytes, TokenHolder] = _Recent(clock)
        self._routes: _Recent[UUID, Mapping[str, _Route]] = _Recent(clock)

    async def check(self, method: str, path: str, headers: Mapping[str, str]) -> Passage:
        """Let a call out.

        Args:
            method: Its HTTP method.
            path: Its path with the query, `/<provider>/<call>`.
            headers: Its headers, by lower-case name.

        Raises:
            DoorClosed: It does not go out.
        """
        holder = await self._holder(_token(headers))
        provider_id, call, query = _parts(path)
        route = (await self._routes_of(holder.tenant_id)).get(provider_id)
        if route is None:
            raise DoorClosed(404, "not_found_error", f"no provider {provider_id[:32]} is applied")
        dialect = route.provider.dialect
        if (method, call) not in dialect.calls:
            raise DoorClosed(403, "permission_error", "only calls to models go out")
        if route.closed:
            raise DoorClosed(route.closed.status, route.closed.kind, route.closed.message)
        return Passage(
            holder=holder,
            cluster=route.cluster,
            path=f"{route.base_path}{call}{query}",
            key_header=dialect.key_header,
            key_prefix=dialect.key_prefix,
            key=route.key,
        )

    def forget(self) -> None:
        """Look everything up anew: something was applied, or a token was replaced.

        What is being looked up at this moment is not kept: it may be from before.
        """
        self._forgotten += 1
        self._holders.clear()
        self._routes.clear()

    async def _holder(self, token: str) -> TokenHolder:
        digest = token_digest(token)
        holder, forgotten = self._holders.get(digest), self._forgotten
        if holder is None:
            # A call brings a token and nothing else: whose it is, is the question.
            with as_system():
                async with self._store.transaction() as tx:
                    holder = await tx.token_holder(digest)
            if holder is None:
                raise DoorClosed(401, "authentication_error", "this token does not open the model door")
            if forgotten == self._forgotten:
                self._holders.put(digest, holder)
        return holder

    async def _routes_of(self, tenant_id: UUID) -> Mapping[str, _Route]:
        routes, forgotten = self._routes.get(tenant_id), self._forgotten
        if routes is None:
            with as_tenant(tenant_id):
                async with self._store.transaction() as tx:
                    applied = self._box.with_demo(tenant_id, await tx.applied(tenant_id))
            routes = {provider.provider_id: await _route(self._box, provider) for provider in applied}
            if forgotten == self._forgotten:
                self._routes.put(tenant_id, routes)
        return routes


def _token(headers: Mapping[str, str]) -> str:
    """The token of a call, wherever the provider's library puts a key."""
    for name in KEY_HEADERS:
        if value := headers.get(name, ""):
            scheme, _, token = value.rpartition(" ")
            if name != "authorization" or scheme.lower() == "bearer":
                return token
    raise DoorClosed(401, "authentication_error", "the model door opens with a token, and there is none")


def _parts(path: str) -> tuple[str, str, str]:
    """Provider, call and query of a path."""
    plain, mark, query = path.partition("?")
    provider_id, _, call = plain.removeprefix("/").partition("/")
    return provider_id, f"/{call}", mark + query


async def _route(box: Installation, provider: Provider) -> _Route:
    cluster, base_path = cluster_name(provider), provider.address.path
    try:
        return _Route(provider, cluster, base_path, await box.key_of(provider))
    except KeyringMismatch:
        closed = DoorClosed(401, "authentication_error", "the provider's stored key cannot be read; set it again")
    except (KeyringUnavailable, KeyringDenied):
        closed = DoorClosed(503, "api_error", "the provider's stored key cannot be read just now; try again later")
    return _Route(provider, cluster, base_path, closed=closed)


@dataclass
class _Recent(Generic[K, V]):
    """What was looked up a moment ago."""

    clock: Callable[[], float]
    entries: dict[K, tuple[float, V]] = field(default_factory=dict)

    def get(self, key: K) -> V | None:
        found = self.entries.get(key)
        if found is None or found[0] < self.clock():
            return None
        return found[1]

    def put(self, key: K, value: V) -> None:
        if len(self.entries) >= KEPT_ENTRIES:
            self.entries.clear()
        self.entries[key] = (self.clock() + KEPT_SECONDS, value)

    def clear(self) -> None:
        self.entries.clear()
