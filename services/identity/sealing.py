"""How secrets of identity go into the database: sealed by the keyring, and bound to their record."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from services.kit.keyring.keyring import Keyring

T = TypeVar("T")


@dataclass(frozen=True)
class Sealing:
    """Seals and opens the secrets of tenants."""

    keyring: Keyring

    async def seal(self, tenant_id: UUID, secret: str, record: str) -> str:
        """Encrypt a secret of a tenant for a record. Empty stays empty."""
        return await self.keyring.seal(tenant_id, secret, record) if secret else ""

    async def open(self, tenant_id: UUID, sealed: str, record: str) -> str:
        """Decrypt a secret of a tenant's record. Empty stays empty."""
        return await self.keyring.open(tenant_id, sealed, record) if sealed else ""

    async def again(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do work that seals and stores, and do it anew when a rotation has destroyed its key in between."""
        return await self.keyring.again(work)
