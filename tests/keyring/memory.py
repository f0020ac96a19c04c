"""A keyring whose data keys are in memory, for tests that need no database."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from services.kit.keyring.data_key import DataKey, DataKeys, KeyState
from services.kit.keyring.file_master import FileMaster
from services.kit.keyring.keyring import Keyring
from services.kit.keyring.master import MasterKey

MASTER = FileMaster(b"k" * 32)


@dataclass
class MemoryKeys:
    """Data keys as the table would hold them, and how often they were asked for."""

    stored: dict[tuple[UUID, str], DataKey] = field(default_factory=dict)
    asked: int = 0

    async def active(self, owner: UUID) -> DataKey | None:
        """The active key."""
        self.asked += 1
        return next((key for key in await self.of(owner) if key.state is KeyState.ACTIVE), None)

    async def find(self, owner: UUID, key_id: str) -> DataKey | None:
        """A key by its name."""
        self.asked += 1
        found = self.stored.get((owner, key_id))
        return found if found and found.state is not KeyState.LOST else None

    async def of(self, owner: UUID) -> list[DataKey]:
        """All keys of an owner."""
        return [key for (whose, _), key in self.stored.items() if whose == owner]

    async def add(self, key: DataKey) -> None:
        """Add the active key, unless there is one."""
        if not any(each.state is KeyState.ACTIVE for each in await self.of(key.owner)):
            self.stored[key.owner, key.key_id] = key

    def retire(self, owner: UUID) -> None:
        """Let the owner have no active key."""
        for name, key in list(self.stored.items()):
            if name[0] == owner:
                self.stored[name] = replace(key, state=KeyState.RETIRED, retire_time=datetime.now(UTC))


def memory_keyring(
    keys: MemoryKeys | None = None, master: MasterKey = MASTER, previous: MasterKey | None = None
) -> Keyring:
    """A keyring of the room `test`."""
    return Keyring("test", cast("DataKeys", keys or MemoryKeys()), master, previous)
