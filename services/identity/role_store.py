"""Tenants and their roles in PostgreSQL: one method per named query."""

import json
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from services.identity.news import News
from services.identity.permissions import Permissions
from services.identity.role import Role, RoleExists, RoleNotFound
from services.identity.tenant import GroupRole, Tenant, TenantStatus
from services.kit.errors import RequestIdReused
from services.kit.postgres import Row, Transaction


class Request(NamedTuple):
    """The id of a request that makes something, and the digest of what is in it."""

    request_id: UUID | None = None
    digest: bytes | None = None


NO_REQUEST = Request()


class RoleStore:
    """What a transaction can do about tenants and roles."""

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
            "find_role", tenant_id=tenant_id, role_id=id_in(named), role_name=named or None, request_id=request[0]
        )
        if row is None:
            return None
        refuse_reuse(row.pop("request_digest"), request)
        return role_of(row)

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
        return [role_of(row) for row in rows]

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
        by_id = {row["role_id"]: role_of(row) for row in found}
        return [[by_id[role_id] for role_id in row["role_ids"]] for row in rows]

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


def refuse_reuse(digest: bytes | None, request: Request) -> None:
    """Refuse a request id that stands for a request with other content.

    Raises:
        RequestIdReused: It does.
    """
    request_id, wanted = request
    if request_id is not None and digest is not None and bytes(digest) != wanted:
        raise RequestIdReused("this request id stands for another request; take a new one")


def id_in(text: str) -> UUID | None:
    """The id that a text is, or None."""
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


def role_of(row: Row) -> Role:
    """A role, as a row tells it."""
    return Role(**row | {"permissions": Permissions.from_document(row["permissions"])})
