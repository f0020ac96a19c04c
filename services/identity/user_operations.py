"""The verbs of users, for those who manage them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from services.identity.granting import Granter
from services.identity.passwords import Passwords, refuse_weak
from services.identity.role import OWNER, Role
from services.identity.role_operations import request_digest
from services.identity.role_store import Request
from services.identity.store import Store, StoreTransaction
from services.identity.user import User, UserInvalid, UserStatus
from services.kit.caller import Caller
from services.kit.ids import new_id

CHANGEABLE = frozenset({"handle", "email", "display_name", "status"})


@dataclass(frozen=True)
class NewUser:
    """What somebody says of a user to add."""

    handle: str
    email: str
    display_name: str
    password: str = field(repr=False)
    roles: tuple[str, ...]


async def create_user(
    store: Store, passwords: Passwords, caller: Caller, wanted: NewUser, request_id: UUID | None
) -> User:
    """Add a user with a local account. The same request again answers with whom it added."""
    if wanted.password:
        refuse_weak(wanted.password, wanted.handle, wanted.email)
    # Not the password: its digest could be guessed at a thousand times faster than its hash.
    content = [wanted.handle, wanted.email, wanted.display_name, bool(wanted.password), wanted.roles]
    request = Request(request_id, request_digest(caller, content))
    stored = await passwords.hash(wanted.password) if wanted.password else ""
    user = User(
        user_id=new_id(),
        tenant_id=caller.tenant_id,
        handle=wanted.handle,
        email=wanted.email,
        display_name=wanted.display_name or wanted.handle,
        password_hash=stored,
    )
    async with store.transaction() as tx:
        granter = await Granter.of(tx, caller)
        if request_id and (known := await tx.find_user(caller.tenant_id, request=request)):
            return known
        roles = await _wanted_roles(tx, caller, wanted.roles)
        for role in roles:
            granter.refuse_role(role)
        await tx.add_user(user, request)
        for role in roles:
            await tx.assign(user, role.role_id)
        await tx.record("admin.user_create", user.name, handle=user.handle, roles=[role.name for role in roles])
        return await tx.user(caller.tenant_id, str(user.user_id))


async def list_users(store: Store, caller: Caller, after: str, size: int) -> list[User]:
    """Users by handle; one more than `size` when there are more."""
    async with store.transaction() as tx:
        return await tx.users(caller.tenant_id, after, size + 1)


async def get_user(store: Store, caller: Caller, named: str) -> User:
    """One user."""
    async with store.transaction() as tx:
        return await tx.user(caller.tenant_id, named)


async def update_user(
    store: Store, caller: Caller, named: str, wanted: User, mask: Collection[str], *, status_said: bool
) -> User:
    """Change what the mask names of a user. Who is suspended or has left is out at once."""
    if unknown := set(mask) - CHANGEABLE:
        raise UserInvalid(f"{min(unknown)} cannot be changed", field="update_mask")
    said = {
        "handle": wanted.handle,
        "email": wanted.email,
        "display_name": wanted.display_name,
        "status": status_said,
    }
    fields = frozenset(mask) or frozenset(name for name, value in said.items() if value)
    async with store.transaction() as tx:
        granter = await Granter.of(tx, caller)
        found = await tx.user(caller.tenant_id, named)
        await granter.refuse_user(found)
        changed = replace(found, **{name: getattr(wanted, name) for name in fields}).checked()
        if changed == found:
            return found
        if changed.status is not UserStatus.ACTIVE:
            await granter.refuse_orphaning(found)
        await tx.save_user(changed, found)
        ended = await _end_all(tx, found) if changed.status is not UserStatus.ACTIVE else 0
        await tx.record(
            "admin.user_update", found.name, fields=sorted(fields), status=changed.status.value, ended=ended
        )
        return await tx.user(caller.tenant_id, str(found.user_id))


async def set_password(store: Store, passwords: Passwords, caller: Caller, named: str, password: str) -> None:
    """Set the password of a user. It ends their sign-ins."""
    async with store.transaction() as tx:  # nobody waits for a hash with a transaction in hand
        found = await tx.user(caller.tenant_id, named)
    if not found.local:
        raise UserInvalid(
            f"{found.handle} signs in by {found.identity_provider} and has no password here", field="user_id"
        )
    refuse_weak(password, found.handle, found.email)
    stored = await passwords.hash(password)
    async with store.transaction() as tx:
        granter = await Granter.of(tx, caller)
        user = await tx.user(caller.tenant_id, str(found.user_id))
        await granter.refuse_user(user)
        await tx.save_password(user, stored)
        ended = await tx.revoke_sign_ins(user.tenant_id, user.user_id, "password_set")
        await tx.record("admin.user_set_password", user.name, sign_ins=ended)


async def revoke_sign_ins(store: Store, caller: Caller, named: str, *, api_tokens: bool) -> tuple[int, int]:
    """End every sign-in of a user, and their API tokens if told so. Answers how many of each."""
    async with store.transaction() as tx:
        granter = await Granter.of(tx, caller)
        user = await tx.user(caller.tenant_id, named)
        await granter.refuse_user(user)
        sign_ins = await tx.revoke_sign_ins(user.tenant_id, user.user_id, "revoked")
        tokens = await tx.revoke_api_tokens(user.tenant_id, user.user_id) if api_tokens else 0
        await tx.record("admin.user_revoke_sign_ins", user.name, sign_ins=sign_ins, api_tokens=tokens)
        return sign_ins, tokens


async def assign_role(store: Store, caller: Caller, named: str, role_named: str) -> User:
    """Give a user a role. It counts at once."""
    async with store.transaction() as tx:
        granter = await Granter.of(tx, caller)
        user = await tx.user(caller.tenant_id, named)
        role = await tx.role(caller.tenant_id, role_named)
        granter.refuse_role(role)
        await granter.refuse_user(user)
        if await tx.assign(user, role.role_id):
            await tx.record("auth.role_change", user.name, assigned=role.name)
        return await tx.user(caller.tenant_id, str(user.user_id))


async def unassign_role(store: Store, caller: Caller, named: str, role_named: str) -> User:
    """Take a role from a user. It counts at once."""
    async with store.transaction() as tx:
        granter = await Granter.of(tx, caller)
        user = await tx.user(caller.tenant_id, named)
        role = await tx.role(caller.tenant_id, role_named)
        granter.refuse_role(role)
        await granter.refuse_user(user)
        if role.name == OWNER and OWNER in user.roles:
            await granter.refuse_orphaning(user)
        if await tx.unassign(user, role.role_id):
            await granter.refuse_after(user)
            await tx.record("auth.role_change", user.name, unassigned=role.name)
        return await tx.user(caller.tenant_id, str(user.user_id))


async def _wanted_roles(tx: StoreTransaction, caller: Caller, named: Sequence[str]) -> list[Role]:
    """The roles of a new user: those that are named, else the tenant's default."""
    if not named:
        tenant = await tx.find_tenant(caller.tenant_id)
        named = (tenant.default_role,) if tenant and tenant.default_role else ()
    return [await tx.role(caller.tenant_id, name) for name in named]


async def _end_all(tx: StoreTransaction, user: User) -> int:
    sign_ins = await tx.revoke_sign_ins(user.tenant_id, user.user_id, "suspended")
    return sign_ins + await tx.revoke_api_tokens(user.tenant_id, user.user_id)
