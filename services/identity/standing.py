"""How somebody stands who comes with a sign-in or an API token, and the cache of it, which a change empties at once."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self
from uuid import UUID

from services.identity.news import News
from services.identity.permissions import EVERYTHING, MANAGE_BOX, Permissions
from services.identity.sign_in import TokenRevoked
from services.identity.tenant import TenantStatus
from services.identity.user import UserStatus, UserSuspended
from services.kit.ids import OPERATOR

LIFE_SECONDS = 10.0
MOST = 10_000


@dataclass(frozen=True)
class Standing:
    """How a sign-in or an API token stands, and what its user may do.

    Attributes:
        grant_id: The sign-in or the API token.
        permissions: What the user may do by their roles.
        holds: Whether the sign-in or the token was not ended.
        digest: Of an API token, what it is recognised by.
        limit: Of an API token, the permissions that its scopes name.
        expires: Of an API token, when it ends, in seconds since 1970.
    """

    COLUMNS: ClassVar = frozenset({"tenant_id", "user_id", "holds", "status", "tenant_status", "permissions"})

    tenant_id: UUID
    user_id: UUID
    grant_id: UUID
    permissions: Permissions
    holds: bool = True
    user_active: bool = True
    tenant_active: bool = True
    digest: bytes = field(default=b"", repr=False)
    limit: frozenset[str] | None = None
    expires: float = 0.0
    flags: frozenset[str] = field(default=frozenset(), init=False, repr=False)

    def __post_init__(self) -> None:
        limited = self.permissions.flags if self.limit is None else self.permissions.flags & self.limit
        object.__setattr__(self, "flags", limited)

    @classmethod
    def read(cls, grant_id: UUID, row: Mapping[str, Any]) -> Self:
        """What the database says."""
        return cls(
            row["tenant_id"],
            row["user_id"],
            grant_id,
            effective(row["user_id"], map(Permissions.from_document, row["permissions"])),
            row["holds"],
            row["status"] == UserStatus.ACTIVE.value,
            row["tenant_status"] == TenantStatus.ACTIVE.value,
        )

    def refuse(self) -> None:
        """Refuse who may not use the box any more.

        Raises:
            TokenRevoked: The sign-in or the token was ended.
            UserSuspended: The user or their tenant may not use the box.
        """
        if self.holds and self.user_active and self.tenant_active:
            return
        if not self.tenant_active:
            raise UserSuspended("your organisation may not use this box for now; ask who runs it")
        if not self.user_active:
            raise UserSuspended("your account may not use this box for now; ask an administrator")
        raise TokenRevoked("this sign-in was ended; sign in again: oiab login")


def effective(user_id: UUID, roles: Iterable[Permissions]) -> Permissions:
    """What a user may do by their roles. Nobody but the operator of the box may manage the box, and they may do all."""
    if user_id == OPERATOR:
        return EVERYTHING
    found = Permissions.union(roles)
    return found.limited_to(found.flags - {MANAGE_BOX})


class Standings:
    """Remembers for a moment how people stand.

    It is only used while the news of changes can be heard (`linked`), so that a change counts at once. A standing that
    was read while news came in is not kept: it may be older than the news.

    Args:
        clock: Tells the seconds that have passed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[UUID, tuple[Standing, float]] = {}
        self._by_user: dict[UUID, set[UUID]] = {}
        self.linked = False
        self.heard = 0
        """How many news came in. Whoever reads a standing notes it before, and says it when they keep it."""

    def get(self, grant_id: UUID) -> Standing | None:
        """How a sign-in or an API token stands, if that is known."""
        kept = self._kept.get(grant_id)
        if kept is None or not self.linked:
            return None
        standing, until = kept
        if self._clock() >= until:
            self._drop(grant_id)
            return None
        return standing

    def keep(self, standing: Standing, heard: int) -> None:
        """Remember how somebody stands, unless there was news since it was read."""
        if heard != self.heard or not self.linked:
            return
        if len(self._kept) >= MOST:
            self._drop(next(iter(self._kept)))
        self._kept[standing.grant_id] = standing, self._clock() + LIFE_SECONDS
        self._by_user.setdefault(standing.user_id, set()).add(standing.grant_id)

    def hear(self, news: News) -> None:
        """Forget whom news are about."""
        self.heard += 1
        if news.user_id is not None:
            for grant_id in self._by_user.pop(news.user_id, ()):
                self._kept.pop(grant_id, None)
            return
        for grant_id in [each for each, (kept, _) in self._kept.items() if kept.tenant_id == news.tenant_id]:
            self._drop(grant_id)

    def link(self, *, up: bool) -> None:
        """The news can be heard from now on, or cannot. What was missed is not known, so all is forgotten."""
        self.heard += 1
        self._kept.clear()
        self._by_user.clear()
        self.linked = up

    def _drop(self, grant_id: UUID) -> None:
        kept = self._kept.pop(grant_id, None)
        if kept and (grants := self._by_user.get(kept[0].user_id)):
            grants.discard(grant_id)
            if not grants:
                del self._by_user[kept[0].user_id]
