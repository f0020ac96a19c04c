"""How a user stands on whose behalf something goes on while they are away, such as the turn of an agent."""

from uuid import UUID

from services.identity.permissions import EVERYTHING
from services.identity.standing import Standing, Standings
from services.identity.store import Store
from services.kit.ids import OPERATOR
from services.kit.tenancy import as_tenant


class Principals:
    """Tells how users stand now, without a sign-in of theirs.

    Args:
        store: Where users and their roles are.
        standings: Remembers for a moment how people stand. A user is kept there under their own id.
    """

    def __init__(self, store: Store, standings: Standings) -> None:
        self._store = store
        self._standings = standings

    async def standing(self, tenant_id: UUID, user_id: UUID) -> Standing | None:
        """How a user stands, or None when there is no such user in the tenant (any more)."""
        if user_id == OPERATOR:
            return Standing(tenant_id, user_id, user_id, EVERYTHING)
        known = self._standings.get(user_id)
        if known and known.tenant_id == tenant_id:
            return known
        heard = self._standings.heard
        with as_tenant(tenant_id):
            async with self._store.transaction() as tx:
                found = await tx.user_standing(tenant_id, user_id)
        if found:
            self._standings.keep(found, heard)
        return found
