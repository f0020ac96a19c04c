"""Who may give what to whom: nobody grants what they lack, nobody touches who may do more. One place for every path."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from services.identity.permissions import Permissions
from services.identity.role import OWNER, Role, refuse_lack, refuse_manage_box
from services.identity.sign_in import TokenRevoked
from services.identity.standing import effective
from services.identity.store import StoreTransaction
from services.identity.user import LastOwner, User, UserStatus
from services.kit.caller import Caller
from services.kit.ids import OPERATOR


class Granter:
    """The caller, as somebody who wants to give or take something.

    Made in the transaction of the change, after the tenant is locked, so that it is what they may do at
    that moment.

    Args:
        tx: The transaction.
        caller: The caller.
        permissions: What they may do.
    """

    def __init__(self, tx: StoreTransaction, caller: Caller, permissions: Permissions) -> None:
        self._tx = tx
        self._caller = caller
        self.permissions = permissions

    @classmethod
    async def of(cls, tx: StoreTransaction, caller: Caller) -> "Granter":
        """The caller, with what they may do now, and no more than what they came with allows."""
        await tx.lock_tenant(caller.tenant_id)
        await refuse_gone(tx, caller)
        found = await permissions_of(tx, caller.tenant_id, caller.user_id)
        return cls(tx, caller, found.limited_to(caller.permissions))

    def refuse_role(self, role: Role) -> None:
        """Refuse to give a role that may do more than the caller.

        Raises:
            PermissionEscalation: It may.
        """
        refuse_lack(self.permissions.lacks(role.permissions), f"to give the role {role.name}")

    def refuse_making(self, permissions: Permissions, name: str) -> None:
        """Refuse to make a role that may do more than its maker, or that makes operators.

        Raises:
            PermissionEscalation: It would.
        """
        refuse_manage_box(permissions)
        refuse_lack(self.permissions.lacks(permissions), f"the role {name}")

    async def refuse_user(self, user: User) -> None:
        """Refuse to touch an account that may do more than the caller.

        Raises:
            PermissionEscalation: It may.
        """
        theirs = await permissions_of(self._tx, user.tenant_id, user.user_id)
        refuse_lack(self.permissions.lacks(theirs), f"to change {user.handle}")

    async def refuse_after(self, user: User) -> None:
        """Refuse what has made an account that may do more than the caller, such as taking a role that denied.

        Raises:
            PermissionEscalation: It has.
        """
        theirs = await permissions_of(self._tx, user.tenant_id, user.user_id)
        refuse_lack(self.permissions.lacks(theirs), f"what {user.handle} could do then")

    def refuse_gain(self, sets: Iterable[Sequence[Role]], before: Role, after: Role | None) -> None:
        """Refuse a change of a role by which one of its holders gains what the caller lacks.

        Args:
            sets: The sets of roles of its holders.
            before: The role as it is.
            after: The role as it would be. None: it goes.

        Raises:
            PermissionEscalation: Somebody would.
        """
        for held in sets:
            others = [role.permissions for role in held if role.role_id != before.role_id]
            now = Permissions.union([*others, before.permissions])
            then = Permissions.union([*others, after.permissions] if after else others)
            refuse_lack(self.permissions.lacks_of_change(now, then), "what the holders of the role could do then")

    async def refuse_orphaning(self, user: User) -> None:
        """Refuse what would leave the tenant without an owner, or the box without its operator.

        Raises:
            LastOwner: It would.
        """
        if user.user_id == OPERATOR:
            raise LastOwner("the operator of the box is always an owner")
        if OWNER in user.roles and user.status is UserStatus.ACTIVE and not await self._tx.other_owners(user):
            raise LastOwner(f"{user.handle} is the last owner; make somebody else an owner first")


async def refuse_gone(tx: StoreTransaction, caller: Caller) -> None:
    """Refuse a caller whose sign-in was ended since they came in: what they make now would outlive their end.

    It is for a transaction that holds the tenant, as those do that end sign-ins.

    Raises:
        TokenRevoked: It was.
        UserSuspended: The user or their tenant may not use the box any more.
    """
    if caller.sign_in_id is None:
        return
    standing = await tx.sign_in_standing(caller.tenant_id, caller.sign_in_id)
    if standing is None and (found := await tx.api_token_standing(caller.sign_in_id)):
        standing = found[0]
    if standing is None:
        raise TokenRevoked("this sign-in was ended; sign in again: oiab login")
    standing.refuse()


async def permissions_of(tx: StoreTransaction, tenant_id: UUID, user_id: UUID) -> Permissions:
    """What a user may do now."""
    roles = await tx.roles_of(tenant_id, user_id)
    return effective(user_id, [role.permissions for role in roles])
