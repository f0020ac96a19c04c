"""News of changes to what somebody may do: told with the commit of the change, heard by every replica."""

from dataclasses import dataclass
from typing import Self
from uuid import UUID


@dataclass(frozen=True)
class News:
    """Whoever remembers how a user stands has to look again. Without a user: how anybody of the tenant stands."""

    tenant_id: UUID
    user_id: UUID | None = None

    def __str__(self) -> str:
        return f"{self.tenant_id}/{self.user_id or ''}"

    @classmethod
    def read(cls, text: str) -> Self:
        """The news that a text tells.

        Raises:
            ValueError: It tells none.
        """
        tenant, _, user = text.partition("/")
        return cls(UUID(tenant), UUID(user) if user else None)
