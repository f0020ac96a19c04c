"""The verbs of roles."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import replace
from uuid import UUID

from services.identity.granting import Granter
from services.identity.role import Role
from services.identity.role_store import Request
from services.identity.store import Store
from services.identity.user import UserInvalid
from services.kit.caller import Caller
from services.kit.ids import new_id

CHANGEABLE = frozenset({"name", "description", "permissions"})


async def create_role(store: Store, caller: Caller, wanted: Role, request_id: UUID | None) -> Role:
    """Make a role. The same request again answers with what it made."""
    role = replace(wanted, role_id=new_id(), tenant_id=caller.tenant_id, built_in=False)
    content = [role.name, role.description, role.permissions.to_document()]
    request = Request(request_id, request_digest(caller, content))
    async with store.transaction() as tx:
        granter = await Granter.of(tx, caller)
        if request_id and (known := await tx.find_role(caller.tenant_id, request=request)):
            return known
        granter.refuse_making(role.permissions, role.name)
        await tx.refuse_taken_role(caller.tenant_id, role.name)
        await tx.add_role(role, request)
        await tx.record(
            "admin.role_create", f"role:{role.role_id}", name=role.name, permissions=role.permissions.to_document()
        )
        return await tx.role(caller.tenant_id, str(role.role_id))


async def list_roles(store: Store, caller: Caller, after: tuple[bool, str], size: int) -> list[Role]:
    """Roles; one more than `size` when there are more."""
    async with store.transaction() as tx:
        return await tx.roles(caller.tenant_id, after, size + 1)


async def get_role(store: Store, caller: Caller, named: str) -> Role:
    """One role."""
    async with store.transaction() as tx:
        return await tx.role(caller.tenant_id, named)


async def update_role(
    store: Store, caller: Caller, named: str, wanted: Role, mask: Collection[str], *, permissions_said: bool
) -> Role:
    """Change what the mask names of a role. It counts for its holders at once.

    Args:
        store: Where roles are.
        caller: Who changes it.
        named: The role, by its id or its name.
        wanted: The new values.
        mask: Which of them count. None means all that are set.
        permissions_said: Whether permissions are among those that are set.
    """
    if unknown := set(mask) - CHANGEABLE:
        raise UserInvalid(f"{min(unknown)} cannot be changed", field="update_mask")
    said = {"name": wanted.name, "description": wanted.description, "permissions": permissions_said}
    fields = frozenset(mask) or frozenset(name for name, value in said.items() if value)
    async with store.transaction() as tx:
        granter = await Granter.of(tx, caller)
        found = (await tx.role(caller.tenant_id, named)).changeable()
        changed = replace(found, **{name: getattr(wanted, name) for name in fields})
        if changed == found:
            return found
        granter.refuse_making(found.permissions, found.name)
        granter.refuse_making(changed.permissions, changed.name)
        granter.refuse_gain(await tx.role_sets(found), found, changed)
        if changed.name != found.name:
            await tx.refuse_taken_role(caller.tenant_id, changed.name)
        await tx.save_role(changed)
        await tx.record(
            "admin.role_update",
            f"role:{found.role_id}",
            name=changed.name,
            before=found.permissions.to_document(),
            permissions=changed.permissions.to_document(),
        )
        return await tx.role(caller.tenant_id, str(found.role_id))


async def delete_role(store: Store, caller: Caller, named: str) -> None:
    """Delete a role. Its holders lose it."""
    async with store.transaction() as tx:
        granter = await Granter.of(tx, caller)
        found = (await tx.role(caller.tenant_id, named)).changeable()
        granter.refuse_making(found.permissions, found.name)
        granter.refuse_gain(await tx.role_sets(found), found, None)
        await tx.delete_role(found)
        await tx.record("admin.role_delete", f"role:{found.role_id}", name=found.name)


def request_digest(caller: Caller, content: object) -> bytes:
    """What is kept of a request, to know it again: of its content, and of who made it."""
    return hashlib.sha256(json.dumps([str(caller.user_id), content], default=str).encode()).digest()
