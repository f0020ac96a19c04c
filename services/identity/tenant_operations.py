"""The verbs of tenants, and what every tenant begins with."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from uuid import UUID

from services.identity.granting import Granter
from services.identity.passwords import Passwords, refuse_weak
from services.identity.role import BUILT_INS, MEMBER, OWNER, Role
from services.identity.role_operations import request_digest
from services.identity.role_store import Request
from services.identity.store import Store, StoreTransaction
from services.identity.tenant import Tenant, TenantExists, TenantInvalid
from services.identity.user import User
from services.kit.caller import Caller
from services.kit.ids import DEFAULT_TENANT, OPERATOR, new_id
from services.kit.outbox import Who
from services.kit.tenancy import as_system

CHANGEABLE = frozenset({"name", "default_role", "group_roles"})
OPERATOR_HANDLE = "operator"


@dataclass(frozen=True)
class NewTenant:
    """What somebody says of a tenant to add."""

    slug: str
    name: str
    owner_handle: str
    owner_password: str = field(repr=False)


async def seed(store: Store) -> None:
    """Make sure of what every box has: the first tenant, its operator, and in every tenant the roles that come with it.

    It is done at every start, so that what this release says of the roles counts.
    """
    with as_system():
        async with store.transaction() as tx:
            first = await tx.add_tenant(DEFAULT_TENANT, "default", "Default")
            for tenant_id in await tx.tenant_ids():
                await tx.lock_tenant(tenant_id)
                await _put_roles(tx, tenant_id)
            if first:
                tenant = await tx.find_tenant(DEFAULT_TENANT)
                if tenant is not None:
                    await tx.save_tenant(tenant, (await tx.role(DEFAULT_TENANT, MEMBER)).role_id)
            if await tx.find_user(DEFAULT_TENANT, str(OPERATOR)) is None:
                operator = User(OPERATOR, DEFAULT_TENANT, OPERATOR_HANDLE, display_name="Operator of the box")
                await tx.add_user(operator)
                await tx.assign(operator, (await tx.role(DEFAULT_TENANT, OWNER)).role_id)


async def get_tenant(store: Store, tenant_id: UUID) -> Tenant:
    """The caller's tenant."""
    async with store.transaction() as tx:
        return await _tenant(tx, tenant_id)


async def update_tenant(store: Store, caller: Caller, wanted: Tenant, mask: Collection[str]) -> Tenant:
    """Change what the mask names of the caller's tenant.

    Raises:
        RoleNotFound: A role that is named does not exist.
        PermissionEscalation: A group or a new user would get more than the caller has.
    """
    if unknown := set(mask) - CHANGEABLE:
        raise TenantInvalid(f"{min(unknown)} cannot be changed", field="update_mask")
    fields = frozenset(mask) or frozenset(name for name in CHANGEABLE if getattr(wanted, name))
    async with store.transaction() as tx:
        granter = await Granter.of(tx, caller)
        found = await _tenant(tx, caller.tenant_id)
        changed = replace(found, **{name: getattr(wanted, name) for name in fields})
        if not changed.name:
            raise TenantInvalid("a tenant has a name", field="tenant.name")
        roles = await _named_roles(tx, changed)
        await _refuse_escalation(tx, granter, found, changed, roles)
        default = roles[changed.default_role].role_id if changed.default_role else None
        await tx.save_tenant(changed, default)
        if changed.group_roles != found.group_roles:
            pairs = [(each.group, roles[each.role].role_id) for each in changed.group_roles]
            await tx.save_group_roles(caller.tenant_id, pairs)
        await tx.record("admin.tenant_update", f"tenant:{caller.tenant_id}", fields=sorted(fields))
        return await _tenant(tx, caller.tenant_id)


async def create_tenant(
    store: Store, passwords: Passwords, caller: Caller, wanted: NewTenant, request_id: UUID | None
) -> Tenant:
    """Add a tenant with its roles and its first owner. The same request again answers with what it made."""
    refuse_weak(wanted.owner_password, wanted.owner_handle, wanted.slug)
    # Not the password: its digest could be guessed at a thousand times faster than its hash.
    request = Request(request_id, request_digest(caller, [wanted.slug, wanted.name, wanted.owner_handle]))
    stored = await passwords.hash(wanted.owner_password)
    tenant_id = new_id()
    with as_system():  # it is of no tenant yet
        async with store.transaction() as tx:
            if not await tx.add_tenant(tenant_id, wanted.slug, wanted.name or wanted.slug, request):
                return await _known(tx, wanted.slug, request)
            await _put_roles(tx, tenant_id)
            owner = User(
                new_id(), tenant_id, wanted.owner_handle, display_name=wanted.owner_handle, password_hash=stored
            )
            await tx.add_user(owner)
            await tx.assign(owner, (await tx.role(tenant_id, OWNER)).role_id)
            member = await tx.role(tenant_id, MEMBER)
            await tx.save_tenant(await _tenant(tx, tenant_id), member.role_id)
            here = Who.current()
            there = replace(here, tenant_id=tenant_id, user_id=None, actor=here.actor)
            for who in (here, there):
                await tx.record("admin.tenant_create", f"tenant:{tenant_id}", who=who, slug=wanted.slug)
            return await _tenant(tx, tenant_id)


async def list_tenants(store: Store, after: str, size: int) -> list[Tenant]:
    """Tenants by slug; one more than `size` when there are more."""
    with as_system():
        async with store.transaction() as tx:
            return await tx.tenants(after, size + 1)


async def apply_groups(tx: StoreTransaction, user: User, groups: Collection[str]) -> bool:
    """Give a user the roles of the groups that they are in, and take those of groups that they have left.

    It is done at every sign-in by an identity provider, and whenever SCIM changes a group. Roles that were given to
    them directly stay.
    """
    wanted = [role_id for group, role_id in await tx.group_roles(user.tenant_id) if group in groups]
    changed = await tx.keep_group_roles(user, wanted)
    for role_id in wanted:
        changed = await tx.assign(user, role_id, "group") or changed
    return changed


async def _put_roles(tx: StoreTransaction, tenant_id: UUID) -> None:
    for each in BUILT_INS:
        await tx.put_built_in(Role(new_id(), tenant_id, each.name, each.description, each.permissions, built_in=True))


async def _tenant(tx: StoreTransaction, tenant_id: UUID) -> Tenant:
    if found := await tx.find_tenant(tenant_id):
        return found
    raise LookupError("a caller without a tenant")


async def _known(tx: StoreTransaction, slug: str, request: Request) -> Tenant:
    """The tenant that a repeated request has made."""
    if request[0] and (known := await tx.find_tenant(request=request)):
        return known
    raise TenantExists(f"there is a tenant {slug} already; take another slug", slug=slug)


async def _named_roles(tx: StoreTransaction, tenant: Tenant) -> dict[str, Role]:
    named = {each.role for each in tenant.group_roles} | ({tenant.default_role} if tenant.default_role else set())
    return {name: await tx.role(tenant.tenant_id, name) for name in sorted(named)}


async def _refuse_escalation(
    tx: StoreTransaction, granter: Granter, before: Tenant, after: Tenant, roles: dict[str, Role]
) -> None:
    given = {each.role for each in set(after.group_roles) - set(before.group_roles)}
    if after.default_role and after.default_role != before.default_role:
        given.add(after.default_role)
    for name in sorted(given):
        granter.refuse_role(roles[name])
    # Whoever has a role by a group loses it at their next sign-in, and with it what it denies.
    for name in sorted({each.role for each in set(before.group_roles) - set(after.group_roles)}):
        role = await tx.role(before.tenant_id, name)
        granter.refuse_gain(await tx.role_sets(role), role, None)
