"""Data keys in PostgreSQL: the keys that secrets are sealed with, one active key for each tenant, all wrapped.

A room that seals has the table of `data_key_table.sql` in its migrations, and `QUERIES` among its queries. A table of
the room with a sealed secret names the data key in a column of its own, with a foreign key: so the database itself
forbids to destroy a key that is still needed.

    sealed_by text COLLATE "C"
        GENERATED ALWAYS AS (CASE WHEN sealed_key LIKE 'v2:k%' THEN split_part(sealed_key, ':', 2) END) STORED,
    CONSTRAINT provider_data_key FOREIGN KEY (tenant_id, sealed_by) REFERENCES data_key (tenant_id, key_id)
"""

import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Self
from uuid import UUID

from psycopg.errors import ForeignKeyViolation

from services.kit.keyring.master import Wrapped
from services.kit.postgres import Database, Row, Transaction
from services.kit.queries import load_queries
from services.kit.tenancy import as_system, as_tenant

QUERIES = load_queries(Path(__file__).with_name("data_key.sql"))
"""The queries of the data keys. A room adds them to its own."""

INSTALLATION = UUID(int=0)
"""Whose keys are nobody's in particular."""

MARK = "k"


class KeyState(StrEnum):
    """Where a data key stands."""

    ACTIVE = "active"
    """Secrets are sealed with it."""
    RETIRED = "retired"
    """What is sealed with it can be read."""
    LOST = "lost"
    """Its master key is gone, and so is what is sealed with it."""


@dataclass(frozen=True)
class DataKey:
    """A data key, wrapped."""

    owner: UUID
    key_id: str
    wrapped: Wrapped
    state: KeyState = KeyState.ACTIVE
    create_time: datetime | None = None
    retire_time: datetime | None = None

    @classmethod
    def from_row(cls, row: Row) -> Self:
        """A key as it is stored."""
        return cls(
            row["tenant_id"],
            row["key_id"],
            Wrapped(row["master_key_id"], bytes(row["wrapped"])),
            KeyState(row["state"]),
            row["create_time"],
            row["retire_time"],
        )


def new_key_id() -> str:
    """A name for a new key."""
    return f"{MARK}{secrets.token_hex(8)}"


class DataKeys:
    """The data keys of a room. Each is read and written in the scope of its owner."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def active(self, owner: UUID) -> DataKey | None:
        """The key that secrets are sealed with now, or None when there is none yet."""
        with as_tenant(owner):
            async with self._database.transaction() as tx:
                row = await tx.one("find_active_data_key", tenant_id=owner)
        return DataKey.from_row(row) if row else None

    async def find(self, owner: UUID, key_id: str) -> DataKey | None:
        """A key of the owner, or None when the owner has none of that name."""
        with as_tenant(owner):
            async with self._database.transaction() as tx:
                row = await tx.one("find_data_key", tenant_id=owner, key_id=key_id)
        return DataKey.from_row(row) if row else None

    async def of(self, owner: UUID) -> list[DataKey]:
        """The keys of an owner, oldest first."""
        with as_tenant(owner):
            async with self._database.transaction() as tx:
                return [DataKey.from_row(row) for row in await tx.many("list_data_keys", tenant_id=owner)]

    async def add(self, key: DataKey) -> None:
        """Make a key the active one, unless there is one."""
        with as_tenant(key.owner):
            async with self._database.transaction() as tx:
                await _add(tx, key)

    async def replace(self, tx: Transaction, old: str, new: DataKey) -> bool:
        """Make a key the active one in place of another, unless somebody did so first."""
        if not await tx.run("retire_data_key", tenant_id=new.owner, key_id=old):
            return False
        return bool(await _add(tx, new))

    async def destroy(self, key: DataKey) -> bool:
        """Forget a key that is not active. False when a secret is still sealed with it."""
        try:
            with as_tenant(key.owner):
                async with self._database.transaction() as tx:
                    return bool(await tx.run("destroy_data_key", tenant_id=key.owner, key_id=key.key_id))
        except ForeignKeyViolation:
            return False

    async def under_others(self, master_key_id: str, after: DataKey | None, size: int) -> list[DataKey]:
        """Keys of all owners that another master key has wrapped, in an order of their own."""
        owner, key_id = (after.owner, after.key_id) if after else (INSTALLATION, "")
        with as_system():
            async with self._database.transaction() as tx:
                rows = await tx.many(
                    "page_data_keys_of_other_masters",
                    master_key_id=master_key_id,
                    after_tenant=owner,
                    after_key=key_id,
                    size=size,
                )
        return [DataKey.from_row(row) for row in rows]

    async def rewrap(self, key: DataKey, wrapped: Wrapped) -> bool:
        """Keep a key as another master key wraps it. False when it was changed meanwhile."""
        with as_tenant(key.owner):
            async with self._database.transaction() as tx:
                changed = await tx.run(
                    "rewrap_data_key",
                    tenant_id=key.owner,
                    key_id=key.key_id,
                    wrapped=wrapped.ciphertext,
                    master_key_id=wrapped.master_key_id,
                    was=key.wrapped.ciphertext,
                )
        return bool(changed)

    async def masters(self) -> dict[str, int]:
        """How many keys, of all owners, each master key has wrapped."""
        with as_system():
            async with self._database.transaction() as tx:
                rows = await tx.many("count_data_keys_by_master")
        return {row["master_key_id"]: row["data_keys"] for row in rows}

    async def lose(self, master_key_id: str) -> int:
        """Give up the keys under a master key."""
        with as_system():
            async with self._database.transaction() as tx:
                return await tx.run("lose_data_keys", master_key_id=master_key_id)


async def _add(tx: Transaction, key: DataKey) -> int:
    return await tx.run(
        "add_data_key",
        tenant_id=key.owner,
        key_id=key.key_id,
        wrapped=key.wrapped.ciphertext,
        master_key_id=key.wrapped.master_key_id,
    )
