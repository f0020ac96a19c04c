"""The verbs of the program that brings a tenant's users and groups by SCIM. It acts for itself, and is on record so."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from uuid import UUID

from services.identity.role import OWNER
from services.identity.scim import (
    GroupExists,
    GroupNotFound,
    ScimGroup,
    ScimMember,
    ScimQuery,
    ScimTokenInvalid,
    ScimUser,
)
from services.identity.sign_in import Origin, digest_of
from services.identity.store import Store, StoreTransaction
from services.identity.user import LastOwner, User, UserInvalid, UserNotFound, UserStatus, UserSuspended
from services.kit.ids import new_id
from services.kit.outbox import Who
from services.kit.tenancy import as_system

ACTOR = "scim"
LONGEST_NAME = 256


@dataclass(frozen=True)
class Bringer:
    """The program that brings the users and groups of a tenant."""

    tenant_id: UUID
    origin: Origin

    @property
    def who(self) -> Who:
        """How it stands on record."""
        return Who(self.tenant_id, ACTOR, None, ACTOR, self.origin.ip_address, self.origin.user_agent)


async def authenticate(store: Store, token: str, origin: Origin) -> Bringer:
    """The program that comes with a token.

    Raises:
        ScimTokenInvalid: It is none of this box, or another has taken its place.
        UserSuspended: Its tenant may not use the box.
    """
    with as_system():  # a token does not say of which tenant it is
        async with store.transaction() as tx:
            found = await tx.scim_token_tenant(digest_of(token))
            if found is None:
                raise ScimTokenInvalid("this is no SCIM token of this box; make one: oiab sso scim-token")
            tenant_id, active = found
            if not active:
                raise UserSuspended("this organisation may not use this box for now; ask who runs it")
            await tx.touch_scim_token(tenant_id)
    return Bringer(tenant_id, origin)


async def users(store: Store, by: Bringer, wanted: ScimQuery) -> tuple[list[ScimUser], int]:
    """A page of users, and how many there are in all."""
    async with store.transaction() as tx:
        return await tx.scim_users(by.tenant_id, wanted)


async def user(store: Store, by: Bringer, user_id: UUID) -> ScimUser:
    """One user."""
    async with store.transaction() as tx:
        return await _user(tx, by, user_id)


async def create_user(store: Store, by: Bringer, wanted: ScimUser) -> ScimUser:
    """Add a user, who signs in by an identity provider.

    Raises:
        UserExists: There is one of this name.
    """
    person = User(
        user_id=new_id(),
        tenant_id=by.tenant_id,
        handle=wanted.handle,
        email=wanted.email,
        display_name=wanted.display_name or wanted.handle,
        status=UserStatus.ACTIVE if wanted.active else UserStatus.SUSPENDED,
    ).checked()
    async with store.transaction() as tx:
        await tx.lock_tenant(by.tenant_id)
        await tx.add_user(person, external_id=wanted.external_id)
        tenant = await tx.find_tenant(by.tenant_id)
        if tenant and tenant.default_role:
            await tx.assign(person, (await tx.role(by.tenant_id, tenant.default_role)).role_id)
        await tx.record("admin.user_create", person.name, who=by.who, handle=person.handle, status=person.status.value)
        return await _user(tx, by, person.user_id)


async def change_user(store: Store, by: Bringer, user_id: UUID, change: Callable[[ScimUser], ScimUser]) -> ScimUser:
    """Change a user. Who is not active any more is out at once.

    Raises:
        LastOwner: The tenant would be without an owner.
    """
    async with store.transaction() as tx:
        await tx.lock_tenant(by.tenant_id)
        found = await _user(tx, by, user_id)
        wanted = change(found)
        before = await tx.user(by.tenant_id, str(user_id))
        status = UserStatus.ACTIVE if wanted.active else UserStatus.SUSPENDED
        after = replace(
            before,
            handle=wanted.handle,
            email=wanted.email,
            display_name=wanted.display_name or wanted.handle,
            status=status,
        ).checked()
        if after == before and wanted.external_id == found.external_id:
            return found
        if before.status is UserStatus.ACTIVE and not wanted.active:
            await _refuse_orphaning(tx, before)
        await tx.save_user(after, before)
        await tx.save_external_id(by.tenant_id, user_id, wanted.external_id)
        ended = 0 if wanted.active else await _end_all(tx, before)
        await tx.record("admin.user_update", before.name, who=by.who, status=status.value, ended=ended)
        return await _user(tx, by, user_id)


async def delete_user(store: Store, by: Bringer, user_id: UUID) -> None:
    """A user has left. The account stays for the record, without a way in, and somebody else can have its name.

    Raises:
        LastOwner: The tenant would be without an owner.
    """
    async with store.transaction() as tx:
        await tx.lock_tenant(by.tenant_id)
        await _user(tx, by, user_id)
        person = await tx.user(by.tenant_id, str(user_id))
        await _refuse_orphaning(tx, person)
        await tx.leave_groups(by.tenant_id, user_id)
        await tx.part_user(person)
        ended = await _end_all(tx, person)
        await tx.record("admin.user_delete", person.name, who=by.who, handle=person.handle, ended=ended)


async def groups(store: Store, by: Bringer, wanted: ScimQuery, *, members: bool = True) -> tuple[list[ScimGroup], int]:
    """A page of groups, and how many there are in all."""
    async with store.transaction() as tx:
        return await tx.scim_groups(by.tenant_id, wanted, members=members)


async def group(store: Store, by: Bringer, group_id: UUID) -> ScimGroup:
    """One group."""
    async with store.transaction() as tx:
        return await _group(tx, by, group_id)


async def create_group(store: Store, by: Bringer, wanted: ScimGroup) -> ScimGroup:
    """Add a group. Its members have its roles at once.

    Raises:
        GroupExists: There is one of this name.
    """
    made = replace(wanted, group_id=new_id())
    _refuse_name(made.name)
    async with store.transaction() as tx:
        await tx.lock_tenant(by.tenant_id)
        await _refuse_taken(tx, by, made)
        if not await tx.add_group(by.tenant_id, made):
            raise GroupExists("there is a group of this name already")
        joined = await _join(tx, by, made, {member.id for member in made.members})
        await _apply(tx, by, joined, {made.name})
        await tx.record("admin.group_create", f"group:{made.group_id}", who=by.who, members=len(joined))
        return await _group(tx, by, made.group_id)


async def change_group(
    store: Store, by: Bringer, group_id: UUID, change: Callable[[ScimGroup], ScimGroup]
) -> ScimGroup:
    """Change a group. Who joins has its roles at once, and who leaves has lost them."""
    async with store.transaction() as tx:
        await tx.lock_tenant(by.tenant_id)
        found = await _group(tx, by, group_id)
        wanted = replace(change(found), group_id=group_id)
        _refuse_name(wanted.name)
        before, after = _ids(found.members), _ids(wanted.members)
        renamed = wanted.name != found.name
        if renamed:
            await _refuse_taken(tx, by, wanted)
        if renamed or wanted.external_id != found.external_id or before != after:
            await tx.save_group(by.tenant_id, wanted)
        left = before - after
        if left:
            await tx.quit_group(by.tenant_id, group_id, left)
        joined = await _join(tx, by, wanted, after - before)
        touched = before | joined if renamed else left | joined
        await _apply(tx, by, touched, {found.name, wanted.name})
        if touched or renamed:
            await tx.record("admin.group_update", f"group:{group_id}", who=by.who, joined=len(joined), left=len(left))
        return await _group(tx, by, group_id)


async def delete_group(store: Store, by: Bringer, group_id: UUID) -> None:
    """Remove a group. Its members lose its roles at once."""
    async with store.transaction() as tx:
        await tx.lock_tenant(by.tenant_id)
        found = await _group(tx, by, group_id)
        await tx.delete_group(by.tenant_id, group_id)
        await _apply(tx, by, _ids(found.members), {found.name})
        await tx.record("admin.group_delete", f"group:{group_id}", who=by.who, members=len(found.members))


async def _user(tx: StoreTransaction, by: Bringer, user_id: UUID) -> ScimUser:
    found, _ = await tx.scim_users(by.tenant_id, ScimQuery(id=user_id, size=1))
    if not found:
        raise UserNotFound("there is no such user", userId=user_id)
    return found[0]


async def _group(tx: StoreTransaction, by: Bringer, group_id: UUID) -> ScimGroup:
    found, _ = await tx.scim_groups(by.tenant_id, ScimQuery(id=group_id, size=1))
    if not found:
        raise GroupNotFound("there is no such group")
    return found[0]


async def _refuse_taken(tx: StoreTransaction, by: Bringer, wanted: ScimGroup) -> None:
    found, _ = await tx.scim_groups(by.tenant_id, ScimQuery(name=wanted.name, size=2), members=False)
    if any(each.group_id != wanted.group_id for each in found):
        raise GroupExists("there is a group of this name already")


async def _join(tx: StoreTransaction, by: Bringer, wanted: ScimGroup, user_ids: Collection[UUID]) -> set[UUID]:
    if not user_ids:
        return set()
    known = await tx.known_users(by.tenant_id, user_ids)
    if unknown := set(user_ids) - known:
        raise UserInvalid(f"there is no user {min(unknown)} to be a member", field="members")
    await tx.join_group(by.tenant_id, wanted.group_id, known)
    return known


async def _apply(tx: StoreTransaction, by: Bringer, user_ids: Iterable[UUID], names: Collection[str]) -> None:
    """Give users the roles of the groups that they are in now, and take those of these groups if they are in them not.

    What the identity provider has said of their other groups at their last sign-in stays until the next.
    """
    mapped = await tx.group_roles(by.tenant_id)
    if not any(name in names for name, _ in mapped):
        return
    for user_id in sorted(user_ids):
        person = await tx.user(by.tenant_id, str(user_id))
        has = set(await tx.user_groups(person))
        wanted = {role_id for name, role_id in mapped if name in has}
        gone = {role_id for name, role_id in mapped if name in names} - wanted
        changed = bool(gone) and await tx.revoke_group_roles(person, gone)
        for role_id in sorted(wanted):
            changed = await tx.assign(person, role_id, "group") or changed
        if changed:
            after = await tx.user(by.tenant_id, str(user_id))
            await tx.record("auth.role_change", person.name, who=by.who, roles=list(after.roles), by="groups")


async def _refuse_orphaning(tx: StoreTransaction, person: User) -> None:
    if OWNER in person.roles and person.status is UserStatus.ACTIVE and not await tx.other_owners(person):
        raise LastOwner(f"{person.handle} is the last owner; make somebody else an owner first")


async def _end_all(tx: StoreTransaction, person: User) -> int:
    sign_ins = await tx.revoke_sign_ins(person.tenant_id, person.user_id, "suspended")
    return sign_ins + await tx.revoke_api_tokens(person.tenant_id, person.user_id)


def _refuse_name(name: str) -> None:
    if not name.strip() or len(name) > LONGEST_NAME:
        raise UserInvalid(f"a group has a name of at most {LONGEST_NAME} characters", field="displayName")


def _ids(members: Iterable[ScimMember]) -> set[UUID]:
    return {member.id for member in members}
