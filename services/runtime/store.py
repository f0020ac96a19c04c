"""Providers and tokens in PostgreSQL: one method per named query."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from services.kit import outbox
from services.kit.keyring import data_key
from services.kit.keyring.secret_table import SecretTable
from services.kit.postgres import Database, Row, Transaction
from services.kit.queries import load_queries
from services.runtime.dialect import ProviderKind
from services.runtime.provider import Provider, ProviderNotFound

SCHEMA = "runtime"
QUERIES = load_queries(Path(__file__).with_name("queries.sql")) | outbox.QUERIES | data_key.QUERIES
SECRETS = tuple(
    SecretTable(
        stale=f"stale_{table}_keys",
        save=f"reseal_{table}_key",
        count=f"count_{table}_keys",
        originals=f"original_{table}_keys",
        # An apply copies the one table to the other.
        lock="lock_runtime",
    )
    for table in ("provider", "applied_provider")
)
"""Where sealed secrets are. Applied ones come from wanted ones, so these are sealed anew first."""


@dataclass(frozen=True)
class TokenHolder:
    """Whose sandbox calls models with a token."""

    tenant_id: UUID
    user_id: UUID
    sandbox_id: UUID


class Store:
    """Where transactions come from.

    Attributes:
        recorded: Set whenever an audit record has been committed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.recorded = asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["StoreTransaction"]:
        """Open a transaction: it commits when the block ends."""
        async with self._database.transaction() as tx:
            transaction = StoreTransaction(tx)
            yield transaction
        if transaction.recorded:
            self.recorded.set()


class StoreTransaction:
    """One transaction on providers and tokens."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.recorded = False

    async def record(self, tenant_id: UUID, action: str, target: str, **payload: object) -> None:
        """Put on record what this transaction does."""
        await outbox.record(self._tx, action, target, tenant_id=tenant_id, payload=payload)
        self.recorded = True

    async def lock(self, tenant_id: UUID) -> datetime | None:
        """Hold the tenant's runtime until the transaction ends, and say when it was last applied."""
        await self._tx.run("add_runtime", tenant_id=tenant_id)
        return _apply_time(await self._tx.one("lock_runtime", tenant_id=tenant_id))

    async def apply_time(self, tenant_id: UUID) -> datetime | None:
        """When the tenant's runtime was last applied, or None when it never was."""
        return _apply_time(await self._tx.one("read_runtime", tenant_id=tenant_id))

    async def tenants(self) -> list[UUID]:
        """Every tenant that has a runtime."""
        return [row["tenant_id"] for row in await self._tx.many("list_tenants")]

    async def providers(self, tenant_id: UUID) -> list[Provider]:
        """The desired providers, oldest first."""
        return [_provider(row) for row in await self._tx.many("list_providers", tenant_id=tenant_id)]

    async def page(self, tenant_id: UUID, after: str, size: int) -> list[Provider]:
        """Desired providers by name."""
        rows = await self._tx.many("page_providers", tenant_id=tenant_id, after=after, size=size)
        return [_provider(row) for row in rows]

    async def find(self, tenant_id: UUID, provider_id: str) -> Provider | None:
        """A desired provider, or None when there is no such."""
        row = await self._tx.one("find_provider", tenant_id=tenant_id, provider_id=provider_id)
        return _provider(row) if row else None

    async def provider(self, tenant_id: UUID, provider_id: str) -> Provider:
        """A desired provider.

        Raises:
            ProviderNotFound: There is no such.
        """
        if found := await self.find(tenant_id, provider_id):
            return found
        raise ProviderNotFound(f"there is no provider {provider_id}", providerId=provider_id)

    async def request(self, tenant_id: UUID, request_id: UUID) -> tuple[str, bytes] | None:
        """The name of the provider that a request made and the digest of the request, or None when it made none."""
        row = await self._tx.one("find_request", tenant_id=tenant_id, request_id=request_id)
        return (row["provider_id"], bytes(row["request_digest"])) if row else None

    async def add(self, provider: Provider, request_id: UUID | None, digest: bytes) -> None:
        """Add a desired provider, not preferred."""
        await self._tx.run(
            "add_provider",
            tenant_id=provider.tenant_id,
            provider_id=provider.provider_id,
            kind=provider.kind,
            base_url=provider.base_url,
            models=list(provider.models),
            default_model=provider.default_model,
            sealed_key=provider.sealed_key,
            request_id=request_id,
            request_digest=digest,
        )

    async def save(self, provider: Provider) -> None:
        """Change a desired provider; its key and its preference have calls of their own."""
        await self._tx.run(
            "save_provider",
            tenant_id=provider.tenant_id,
            provider_id=provider.provider_id,
            base_url=provider.base_url,
            models=list(provider.models),
            default_model=provider.default_model,
        )

    async def save_key(self, provider: Provider, sealed_key: str) -> None:
        """Set the key of a desired provider."""
        await self._tx.run(
            "save_key", tenant_id=provider.tenant_id, provider_id=provider.provider_id, sealed_key=sealed_key
        )

    async def delete(self, provider: Provider) -> None:
        """Remove a desired provider with its key."""
        await self._tx.run("delete_provider", tenant_id=provider.tenant_id, provider_id=provider.provider_id)

    async def any_preferred(self, tenant_id: UUID) -> bool:
        """Whether a stored provider is preferred."""
        row = await self._tx.one("any_preferred", tenant_id=tenant_id)
        return bool(row and row["found"])

    async def prefer(self, tenant_id: UUID, provider_id: str) -> None:
        """Prefer this provider, and no other. An empty name prefers none of the stored ones."""
        await self._tx.run("prefer_none", tenant_id=tenant_id)
        if provider_id:
            await self._tx.run("prefer", tenant_id=tenant_id, provider_id=provider_id)

    async def applied(self, tenant_id: UUID) -> list[Provider]:
        """The applied providers, oldest first."""
        return [_provider(row) for row in await self._tx.many("list_applied", tenant_id=tenant_id)]

    async def apply(self, tenant_id: UUID) -> None:
        """Make the desired providers the applied ones."""
        await self._tx.run("forget_applied", tenant_id=tenant_id)
        await self._tx.run("copy_applied", tenant_id=tenant_id)
        await self._tx.run("mark_applied", tenant_id=tenant_id)

    async def begin(self, tenant_id: UUID) -> None:
        """Make a state without stored providers the applied one."""
        await self._tx.run("mark_applied", tenant_id=tenant_id)

    async def put_token(self, holder: TokenHolder, digest: bytes) -> None:
        """Give a sandbox a token in place of the one it had."""
        await self._tx.run(
            "put_token",
            sandbox_id=holder.sandbox_id,
            tenant_id=holder.tenant_id,
            user_id=holder.user_id,
            digest=digest,
        )

    async def token_holder(self, digest: bytes) -> TokenHolder | None:
        """Whose token it is, or None when it is nobody's."""
        row = await self._tx.one("find_token", digest=digest)
        return TokenHolder(**row) if row else None


def _apply_time(row: Row | None) -> datetime | None:
    found: datetime | None = row["apply_time"] if row else None
    return found


def _provider(row: Row) -> Provider:
    return Provider(**row | {"kind": ProviderKind(row["kind"]), "models": tuple(row["models"])})
