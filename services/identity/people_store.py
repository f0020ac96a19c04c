"""Tenants, roles and users in PostgreSQL: one method per named query."""

import json
from collections.abc import Collection, Sequence
from typing import NamedTuple
from uuid import UUID

from services.identity.news import News
from services.identity.permissions import Permissions
from services.identity.role import Role, RoleExists, RoleNotFound
from services.identity.tenant import GroupRole, Tenant, TenantStatus
from services.identity.user import User, UserExists, UserNotFound, UserStatus
from services.kit.errors import RequestIdReused
from services.kit.postgres import Row, Transaction


class Request(NamedTuple):
    """The id of a request that makes something, and the digest of what is in it."""

    request_id: UUID | None = None
    digest: bytes | None = None


NO_REQUEST = Request()


class PeopleStore:
    """What a transaction can do about tenants, roles and users."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.news: list[News] = []

    async def tell(self, tenant_id: UUID, user_id: UUID | None = None) -> None:
        """Let every replica look anew at what a user, or anybody of a tenant, may do."""
        found = News(tenant_id, user_id)
        if found not in self.news:
            self.news.append(found)
            await self._tx.one("tell_news", news=str(found))

    async def lock_tenant(self, tenant_id: UUID) -> None:
        """Put the changes of a tenant's people and roles in order until the transaction ends."""
        await self._tx.one("lock_tenant", tenant_id=tenant_id)

    async def add_tenant(self, tenant_id: UUID, slug: str, name: str, request: Request = NO_REQUEST) -> bool:
        """Add a tenant, unless there is one with its slug or of the same request."""
        request_id, digest = request
        return bool(
            await self._tx.run(
                "add_tenant",
                tenant_id=tenant_id,
                slug=slug,
                tenant_name=name,
                request_id=request_id,
                request_digest=digest,
            )
        )

    async def find_tenant(
        self, tenant_id: UUID | None = None, *, slug: str | None = None, request: Request = NO_REQUEST
    ) -> Tenant | None:
        """A tenant by its id, its slug, or the request that made it.

        Raises:
            RequestIdReused: The request that made it had other content.
        """
        row = await self._tx.one("find_tenant", tenant_id=tenant_id, slug=slug, request_id=request[0])
        if row is None:
            return None
        refuse_reuse(row.pop("request_digest"), request)
        return await self._tenant(row)

    async def tenants(self, after: str, size: int) -> list[Tenant]:
        """Tenants by slug, after a slug."""
        return [await self._tenant(row) for row in await self._tx.many("page_tenants", after=after, size=size)]

    async def tenant_ids(self) -> list[UUID]:
        """Every tenant."""
        return [row["tenant_id"] for row in await self._tx.many("list_tenant_ids")]

    async def save_tenant(self, tenant: Tenant, default_role_id: UUID | None) -> None:
        """Change a tenant's name and default role."""
        await self._tx.run(
            "save_tenant", tenant_id=tenant.tenant_id, tenant_name=tenant.name, default_role_id=default_role_id
        )

    async def save_group_roles(self, tenant_id: UUID, roles: Sequence[tuple[str, UUID]]) -> None:
        """Say which groups have which role, and forget what was said before."""
        await self._tx.run("clear_group_roles", tenant_id=tenant_id)
        await self._tx.each(
            "add_group_role",
            [
                {"tenant_id": tenant_id, "group_name": group, "role_id": role_id, "place": place}
                for place, (group, role_id) in enumerate(roles)
            ],
        )

    async def group_roles(self, tenant_id: UUID) -> list[tuple[str, UUID]]:
        """Which groups have which role, by its id."""
        rows = await self._tx.many("list_group_roles", tenant_id=tenant_id)
        return [(row["group_name"], row["role_id"]) for row in rows]

    async def add_role(self, role: Role, request: Request = NO_REQUEST) -> None:
        """Make a role."""
        request_id, digest = request
        await self._tx.run("add_role", **_role_params(role), request_id=request_id, request_digest=digest)

    async def put_built_in(self, role: Role) -> None:
        """Make a role that comes with the tenant, or bring it up to date."""
        params = _role_params(role)
        del params["built_in"]
        if await self._tx.run("put_built_in_role", **params):
            await self.tell(role.tenant_id)

    async def find_role(self, tenant_id: UUID, named: str = "", *, request: Request = NO_REQUEST) -> Role | None:
        """A role by its id, its name, or the request that made it.

        Raises:
            RequestIdReused: The request that made it had other content.
        """
        row = await self._tx.one(
            "find_role", tenant_id=tenant_id, role_id=_id(named), role_name=named or None, request_id=request[0]
        )
        if row is None:
            return None
        refuse_reuse(row.pop("request_digest"), request)
        return _role(row)

    async def role(self, tenant_id: UUID, named: str) -> Role:
        """A role by its id or its name.

        Raises:
            RoleNotFound: The tenant has none such.
        """
        if found := await self.find_role(tenant_id, named):
            return found
        raise RoleNotFound(f"there is no role {named[:63]}", roleId=named[:63])

    async def refuse_taken_role(self, tenant_id: UUID, name: str) -> None:
        """Refuse a name that another role has.

        Raises:
            RoleExists: One has it.
        """
        if await self.find_role(tenant_id, name):
            raise RoleExists(f"there is a role {name} already; change that one, or take another name", name=name)

    async def roles(self, tenant_id: UUID, after: tuple[bool, str], size: int) -> list[Role]:
        """Roles, those that came with the tenant first, then by name."""
        rows = await self._tx.many(
            "page_roles", tenant_id=tenant_id, after_built_in=after[0], after=after[1], size=size
        )
        return [_role(row) for row in rows]

    async def save_role(self, role: Role) -> None:
        """Change a role."""
        params = _role_params(role)
        del params["built_in"]
        await self._tx.run("save_role", **params)
        await self.tell(role.tenant_id)

    async def delete_role(self, role: Role) -> None:
        """Delete a role, and take it from all who have it."""
        await self._tx.run("delete_role", tenant_id=role.tenant_id, role_id=role.role_id)
        await self.tell(role.tenant_id)

    async def role_sets(self, role: Role) -> list[list[Role]]:
        """Which sets of roles the holders of a role have."""
        rows = await self._tx.many("list_role_sets", tenant_id=role.tenant_id, role_id=role.role_id)
        wanted = {role_id for row in rows for role_id in row["role_ids"]}
        found = await self._tx.many("find_roles", tenant_id=role.tenant_id, role_ids=list(wanted))
        by_id = {row["role_id"]: _role(row) for row in found}
        return [[by_id[role_id] for role_id in row["role_ids"]] for row in rows]

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
            "find_user", tenant_id=tenant_id, user_id=_id(named), handle=named or None, request_id=request[0]
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
        return [_role(row) for row in await self._tx.many("roles_of_user", tenant_id=tenant_id, user_id=user_id)]

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

    async def _tenant(self, row: Row) -> Tenant:
        groups = await self._tx.many("list_group_roles", tenant_id=row["tenant_id"])
        return Tenant(
            tenant_id=row["tenant_id"],
            slug=row["slug"],
            name=row["name"],
            status=TenantStatus(row["status"]),
            default_role=row["default_role"] or "",
            group_roles=tuple(GroupRole(each["group_name"], each["role"]) for each in groups),
            create_time=row["create_time"],
        )


def _taken(handle: str) -> UserExists:
    return UserExists(f"there is a user {handle} already; take another handle", handle=handle)


def refuse_reuse(digest: bytes | None, request: Request) -> None:
    """Refuse a request id that stands for a request with other content.

    Raises:
        RequestIdReused: It does.
    """
    request_id, wanted = request
    if request_id is not None and digest is not None and bytes(digest) != wanted:
        raise RequestIdReused("this request id stands for another request; take a new one")


def _id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _role_params(role: Role) -> dict[str, object]:
    return {
        "role_id": role.role_id,
        "tenant_id": role.tenant_id,
        "role_name": role.name,
        "description": role.description,
        "permissions": json.dumps(role.permissions.to_document()),
        "built_in": role.built_in,
    }


def _role(row: Row) -> Role:
    return Role(**row | {"permissions": Permissions.from_document(row["permissions"])})


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
