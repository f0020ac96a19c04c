"""Users and groups as SCIM sees them, in PostgreSQL: one method per named query."""

from collections.abc import Collection
from dataclasses import replace
from uuid import UUID

from services.identity.door_store import DoorStore
from services.identity.scim import ScimGroup, ScimMember, ScimQuery, ScimUser
from services.identity.user import User, UserStatus
from services.kit.ids import OPERATOR
from services.kit.postgres import Row


class ScimStore(DoorStore):
    """What a transaction can do about users and groups that another program keeps."""

    async def scim_users(self, tenant_id: UUID, wanted: ScimQuery) -> tuple[list[ScimUser], int]:
        """A page of users, and how many there are in all."""
        rows = await self._tx.many(
            "scim_users",
            tenant_id=tenant_id,
            operator=OPERATOR,
            user_id=wanted.id,
            handle=wanted.name.lower() if wanted.name is not None else None,
            external_id=wanted.external_id,
            email=wanted.email,
            skip=wanted.skip,
            size=wanted.size,
        )
        if not rows and (wanted.skip or not wanted.size):  # a page past the end does not tell how many there are
            _, total = await self.scim_users(tenant_id, replace(wanted, skip=0, size=1))
            return [], total
        return [_user(row) for row in rows], _total(rows)

    async def save_external_id(self, tenant_id: UUID, user_id: UUID, external_id: str) -> None:
        """Change the id of a user in the program that brings them."""
        await self._tx.run("save_external_id", tenant_id=tenant_id, user_id=user_id, external_id=external_id)

    async def leave_groups(self, tenant_id: UUID, user_id: UUID) -> None:
        """Take a user out of every group."""
        await self._tx.run("leave_groups", tenant_id=tenant_id, user_id=user_id)

    async def part_user(self, user: User) -> None:
        """A user has left: the account has no way in any more and no role, and its name is free."""
        await self._tx.run("part_user", tenant_id=user.tenant_id, user_id=user.user_id)
        await self._tx.run("drop_roles", tenant_id=user.tenant_id, user_id=user.user_id)
        await self.tell(user.tenant_id, user.user_id)

    async def scim_groups(
        self, tenant_id: UUID, wanted: ScimQuery, *, members: bool = True
    ) -> tuple[list[ScimGroup], int]:
        """A page of groups, and how many there are in all."""
        rows = await self._tx.many(
            "scim_groups",
            tenant_id=tenant_id,
            group_id=wanted.id,
            group_name=wanted.name,
            external_id=wanted.external_id,
            members=members,
            skip=wanted.skip,
            size=wanted.size,
        )
        if not rows and (wanted.skip or not wanted.size):
            _, total = await self.scim_groups(tenant_id, replace(wanted, skip=0, size=1), members=False)
            return [], total
        return [_group(row) for row in rows], _total(rows)

    async def add_group(self, tenant_id: UUID, group: ScimGroup) -> bool:
        """Add a group without its members. False: there is one of its name."""
        added = await self._tx.run(
            "add_group",
            tenant_id=tenant_id,
            group_id=group.group_id,
            group_name=group.name,
            external_id=group.external_id,
        )
        return bool(added)

    async def save_group(self, tenant_id: UUID, group: ScimGroup) -> None:
        """Change the name and the outer id of a group."""
        await self._tx.run(
            "save_group",
            tenant_id=tenant_id,
            group_id=group.group_id,
            group_name=group.name,
            external_id=group.external_id,
        )

    async def delete_group(self, tenant_id: UUID, group_id: UUID) -> bool:
        """Remove a group, and say whether there was one."""
        return bool(await self._tx.run("delete_group", tenant_id=tenant_id, group_id=group_id))

    async def known_users(self, tenant_id: UUID, user_ids: Collection[UUID]) -> set[UUID]:
        """Which of these users there are."""
        rows = await self._tx.many("known_users", tenant_id=tenant_id, user_ids=list(user_ids), operator=OPERATOR)
        return {row["user_id"] for row in rows}

    async def join_group(self, tenant_id: UUID, group_id: UUID, user_ids: Collection[UUID]) -> None:
        """Put users into a group."""
        await self._tx.run("join_group", tenant_id=tenant_id, group_id=group_id, user_ids=list(user_ids))

    async def quit_group(self, tenant_id: UUID, group_id: UUID, user_ids: Collection[UUID]) -> None:
        """Take users out of a group."""
        await self._tx.run("quit_group", tenant_id=tenant_id, group_id=group_id, user_ids=list(user_ids))


def _total(rows: list[Row]) -> int:
    return int(rows[0]["total"]) if rows else 0


def _user(row: Row) -> ScimUser:
    return ScimUser(
        user_id=row["user_id"],
        handle=row["handle"],
        email=row["email"],
        display_name=row["display_name"],
        active=row["status"] == UserStatus.ACTIVE.value,
        external_id=row["external_id"],
        groups=_members(row["groups"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
    )


def _group(row: Row) -> ScimGroup:
    return ScimGroup(
        group_id=row["group_id"],
        name=row["name"],
        external_id=row["external_id"],
        members=_members(row["members"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
    )


def _members(found: list[dict[str, str]]) -> tuple[ScimMember, ...]:
    return tuple(ScimMember(UUID(each["id"]), each["name"]) for each in found)
