"""Users in PostgreSQL: one method per named query."""

from collections.abc import Collection
from uuid import UUID

from services.identity.role import Role
from services.identity.role_store import NO_REQUEST, Request, RoleStore, id_in, refuse_reuse, role_of
from services.identity.user import User, UserExists, UserNotFound, UserStatus
from services.kit.postgres import Row


class PeopleStore(RoleStore):
    """What a transaction can do about users, besides all that it can do about tenants and roles."""

    async def add_user(self, user: User, request: Request = NO_REQUEST, **outside: str) -> None:
        """Add a user.

        Args:
            user: The user.
            request: The request that adds them.
            outside: Their `directory_object_id` and `external_id`, if they have any.

        Raises:
            UserExists: Another has the handle.
        """
        request_id, digest = request
        params = {"directory_object_id": "", "external_id": ""} | outside
        if not await self._tx.run(
            "add_user",
            **_user_params(user),
            **params,
            identity_provider=user.identity_provider,
            subject=user.subject,
            password_hash=user.password_hash,
            request_id=request_id,
            request_digest=digest,
        ):
            raise _taken(user.handle)

    async def find_user(self, tenant_id: UUID, named: str = "", *, request: Request = NO_REQUEST) -> User | None:
        """A user by their id, their handle, or the request that made them.

        Raises:
            RequestIdReused: The request that made them had other content.
        """
        row = await self._tx.one(
            "find_user", tenant_id=tenant_id, user_id=id_in(named), handle=named or None, request_id=request[0]
        )
        if row is None:
            return None
        refuse_reuse(row.pop("request_digest"), request)
        return _user(row)

    async def user(self, tenant_id: UUID, named: str) -> User:
        """A user by their id or their handle.

        Raises:
            UserNotFound: The tenant has none such.
        """
        if found := await self.find_user(tenant_id, named):
            return found
        raise UserNotFound(f"there is no user {named[:127]}", userId=named[:127])

    async def user_by_name(self, tenant_id: UUID, name: str) -> User | None:
        """A user by the handle, or by the mail address that nobody else has."""
        if found := await self.find_user(tenant_id, name):
            return found
        rows = await self._tx.many("find_users_by_email", tenant_id=tenant_id, email=name) if "@" in name else []
        return await self.find_user(tenant_id, str(rows[0]["user_id"])) if len(rows) == 1 else None

    async def users(self, tenant_id: UUID, after: str, size: int) -> list[User]:
        """Users by handle, after a handle."""
        rows = await self._tx.many("page_users", tenant_id=tenant_id, after=after, size=size)
        return [_user(row) for row in rows]

    async def save_user(self, user: User, before: User) -> None:
        """Change a user.

        Raises:
            UserExists: Another has the handle.
        """
        if user.handle != before.handle and await self.find_user(user.tenant_id, user.handle):
            raise _taken(user.handle)
        await self._tx.run("save_user", **_user_params(user))
        await self.tell(user.tenant_id, user.user_id)

    async def save_password(self, user: User, password_hash: str) -> None:
        """Set the password of a user."""
        await self._tx.run("save_password", tenant_id=user.tenant_id, user_id=user.user_id, password_hash=password_hash)

    async def rehash_password(self, user: User, password_hash: str) -> None:
        """Keep the same password in another form."""
        await self._tx.run(
            "rehash_password",
            tenant_id=user.tenant_id,
            user_id=user.user_id,
            password_hash=password_hash,
            before=user.password_hash,
        )

    async def roles_of(self, tenant_id: UUID, user_id: UUID) -> list[Role]:
        """The roles of a user."""
        return [role_of(row) for row in await self._tx.many("roles_of_user", tenant_id=tenant_id, user_id=user_id)]

    async def assign(self, user: User, role_id: UUID, source: str = "direct") -> bool:
        """Give a user a role, and say whether they had not got it from there."""
        given = await self._tx.run(
            "assign_role", tenant_id=user.tenant_id, user_id=user.user_id, role_id=role_id, source=source
        )
        if given:
            await self.tell(user.tenant_id, user.user_id)
        return bool(given)

    async def unassign(self, user: User, role_id: UUID) -> bool:
        """Take a role from a user, and say whether they had it."""
        taken = await self._tx.run("unassign_role", tenant_id=user.tenant_id, user_id=user.user_id, role_id=role_id)
        if taken:
            await self.tell(user.tenant_id, user.user_id)
        return bool(taken)

    async def keep_group_roles(self, user: User, role_ids: Collection[UUID]) -> bool:
        """Take the roles that came from groups, but for these, and say whether any was taken."""
        taken = await self._tx.run(
            "keep_group_roles", tenant_id=user.tenant_id, user_id=user.user_id, role_ids=list(role_ids)
        )
        if taken:
            await self.tell(user.tenant_id, user.user_id)
        return bool(taken)

    async def other_owners(self, user: User) -> int:
        """How many active users besides this one are owners."""
        row = await self._tx.one("other_owners", tenant_id=user.tenant_id, user_id=user.user_id)
        return int(row["owners"]) if row else 0


def _taken(handle: str) -> UserExists:
    return UserExists(f"there is a user {handle} already; take another handle", handle=handle)


def _user_params(user: User) -> dict[str, object]:
    return {
        "user_id": user.user_id,
        "tenant_id": user.tenant_id,
        "handle": user.handle,
        "email": user.email,
        "display_name": user.display_name,
        "status": user.status.value,
    }


def _user(row: Row) -> User:
    return User(**row | {"status": UserStatus(row["status"]), "roles": tuple(row["roles"])})
