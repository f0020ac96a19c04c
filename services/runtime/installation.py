"""What of this installation Runtime works with: its folders, its base, its demo model."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr

from services.kit.keyring.keyring import Keyring
from services.runtime.bundle import Base
from services.runtime.folders import Folders
from services.runtime.provider import Provider, demo_provider


@dataclass(frozen=True)
class Installation:
    """The parts that are the same for every call."""

    keyring: Keyring
    base: Base
    folder: Path
    """Where the bundles are."""
    clusters_file: Path
    """The file of clusters that Envoy watches."""
    trusted_ca: str
    """The file of certificates by which providers are trusted."""
    demo_socket: str
    """Where the demo model listens. Empty when there is none."""
    applying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Links and clusters are written after a commit, and must be written in the order of commits."""

    def folders(self, tenant_id: UUID) -> Folders:
        """The bundles of a tenant."""
        return Folders.of(self.folder, tenant_id)

    async def key_of(self, provider: Provider) -> SecretStr | None:
        """The key of a provider, or None when it has none.

        Raises:
            KeyringMismatch: The stored key cannot be read.
            KeyringUnavailable: It cannot be read just now.
            KeyringDenied: It may not be read.
        """
        if not provider.has_key:
            return None
        sealed, imported = provider.sealed_key, provider.key_imported
        return SecretStr(await self.keyring.open(provider.tenant_id, sealed, provider.record, imported=imported))

    def with_demo(self, tenant_id: UUID, stored: Iterable[Provider]) -> list[Provider]:
        """The providers with the built-in one, which is preferred when no other is."""
        found = list(stored)
        if self.demo_socket:
            preferred = not any(provider.preferred for provider in found)
            found.append(demo_provider(tenant_id, self.demo_socket, preferred=preferred))
        return found
