"""The keyring of Runtime on a database of its own, with as many providers as a test wants."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from services.kit.keyring.admin import KeyringAdmin
from services.kit.keyring.file_master import FileMaster
from services.kit.keyring.keyring import Keyring
from services.kit.keyring.opening import open_keyring
from services.kit.postgres import Database
from services.kit.tenancy import as_tenant
from services.runtime.provider import record_of
from services.runtime.settings import RuntimeSettings
from services.runtime.store import QUERIES, SCHEMA, SECRETS
from tests.postgres import as_service

A, B = UUID(int=1), UUID(int=2)
TABLES = ("provider", "applied_provider")

_SQL = {
    "put": """INSERT INTO provider (
            tenant_id, provider_id, kind, base_url, models, default_model, preferred,
            sealed_key, key_imported, key_time, request_digest
        ) VALUES (
            %(tenant_id)s, %(provider_id)s, 'anthropic', '', '{m}', 'm', false, %(sealed)s, %(imported)s, now(), ''
        )""",
    "read": "SELECT provider_id, sealed_key FROM provider WHERE tenant_id = %(tenant_id)s",
    "read_applied": "SELECT provider_id, sealed_key FROM applied_provider WHERE tenant_id = %(tenant_id)s",
    "records": "SELECT record->>'action' AS action FROM audit_outbox ORDER BY outbox_id",
    "set": """UPDATE provider SET sealed_key = %(sealed)s
        WHERE tenant_id = %(tenant_id)s AND provider_id = %(provider_id)s""",
}


@dataclass(frozen=True)
class Room:
    """Runtime's secrets."""

    database: Database
    keyring: Keyring
    admin: KeyringAdmin

    async def put(self, owner: UUID, name: str, secret: str = "", sealed: str = "", *, imported: bool = False) -> None:
        """Store a provider with a key: the one given, or one that is sealed already."""
        sealed = sealed or await self.keyring.seal(owner, secret or secret_of(name), record_of(owner, name))
        await self._run("put", owner, provider_id=name, sealed=sealed, imported=imported)

    async def put_many(self, owner: UUID, names: Sequence[str]) -> None:
        """Store many providers."""
        for name in names:
            await self.put(owner, name)

    async def apply(self, owner: UUID) -> None:
        """Make the providers the applied ones."""
        with as_tenant(owner):
            async with self.database.transaction() as tx:
                await tx.run("add_runtime", tenant_id=owner)
                await tx.run("forget_applied", tenant_id=owner)
                await tx.run("copy_applied", tenant_id=owner)

    async def sealed(self, owner: UUID, query: str = "read") -> dict[str, str]:
        """The stored form of every key."""
        with as_tenant(owner):
            async with self.database.transaction() as tx:
                return {row["provider_id"]: row["sealed_key"] for row in await tx.many(query, tenant_id=owner)}

    async def opened(self, owner: UUID, query: str = "read") -> dict[str, str]:
        """Every key."""
        found = await self.sealed(owner, query)
        return {name: await self.keyring.open(owner, text, record_of(owner, name)) for name, text in found.items()}

    async def set(self, owner: UUID, name: str, sealed: str) -> None:
        """Change a stored form behind the keyring's back."""
        await self._run("set", owner, provider_id=name, sealed=sealed)

    async def records(self, owner: UUID) -> list[str]:
        """The actions on record."""
        with as_tenant(owner):
            async with self.database.transaction() as tx:
                return [row["action"] for row in await tx.many("records")]

    async def _run(self, query: str, owner: UUID, **params: object) -> None:
        with as_tenant(owner):
            async with self.database.transaction() as tx:
                await tx.run(query, tenant_id=owner, **params)


@asynccontextmanager
async def room(url: str, home: Path, **settings: str) -> AsyncIterator[Room]:
    """Open the keyring of Runtime as its process does."""
    told = RuntimeSettings(home=home, **settings)  # type: ignore[arg-type]
    async with Database(as_service(url, SCHEMA), SCHEMA, QUERIES | _SQL) as database:
        keyring = await open_keyring(SCHEMA, database, told, SECRETS)
        yield Room(database, keyring, KeyringAdmin(keyring, database, SECRETS))


def master_of(home: Path) -> FileMaster:
    """The master key of a home."""
    return FileMaster.open(home / "secrets" / "keyring")


def secret_of(name: str) -> str:
    """The key of a provider, when none is given."""
    return f"sk-{name}"
