"""The verbs of identity providers, for those who manage their tenant."""

import secrets
from dataclasses import replace

from services.identity.granting import Granter
from services.identity.identity_provider import IdentityProvider, IdentityProviderRefused
from services.identity.oidc import OpenId
from services.identity.role import OWNER
from services.identity.sealing import Sealing
from services.identity.sign_in import digest_of
from services.identity.store import Store, StoreTransaction
from services.kit.caller import Caller

SCIM_TOKEN = "oiab_scim_"  # noqa: S105 - the beginning of it


async def put(
    store: Store, openid: OpenId, sealing: Sealing, caller: Caller, wanted: IdentityProvider, secret: str
) -> IdentityProvider:
    """Add an identity provider, or replace it.

    Raises:
        IdentityProviderRefused: What it says cannot be accepted.
        IdentityProviderUnavailable: It cannot be reached.
        PermissionEscalation: The caller may do less than an owner.
    """
    provider = replace(wanted, tenant_id=caller.tenant_id).checked()
    async with store.transaction() as tx:  # nobody makes us call an address who may not keep it
        await _refuse_lesser(tx, caller)
    await openid.check(provider)
    return await sealing.again(lambda: _put(store, sealing, caller, provider, secret))


async def _put(
    store: Store, sealing: Sealing, caller: Caller, wanted: IdentityProvider, secret: str
) -> IdentityProvider:
    sealed = await sealing.seal(caller.tenant_id, secret, wanted.record)
    provider = replace(wanted, sealed_secret=sealed)
    async with store.transaction() as tx:
        await _refuse_lesser(tx, caller)
        await _refuse_takeover(tx, provider)
        await tx.put_identity_provider(provider)
        await tx.record("admin.identity_provider_put", provider.name, issuer=provider.issuer, secret=bool(secret))
        return await tx.identity_provider(caller.tenant_id, provider.identity_provider_id)


async def list_all(store: Store, caller: Caller, after: str, size: int) -> list[IdentityProvider]:
    """Identity providers by id; one more than `size` when there are more."""
    async with store.transaction() as tx:
        return await tx.identity_providers(caller.tenant_id, after, size + 1)


async def delete(store: Store, caller: Caller, named: str) -> None:
    """Remove an identity provider. Sign-ins on their way there end with it."""
    async with store.transaction() as tx:
        found = await tx.identity_provider(caller.tenant_id, named)
        await tx.delete_identity_provider(caller.tenant_id, named)
        await tx.record("admin.identity_provider_delete", found.name)


async def rotate_scim_token(store: Store, caller: Caller) -> str:
    """Make the token of the program that brings users and groups, in place of the one before.

    Raises:
        PermissionEscalation: The caller may do less than an owner.
    """
    token = SCIM_TOKEN + secrets.token_urlsafe(32)
    async with store.transaction() as tx:
        await _refuse_lesser(tx, caller)
        await tx.put_scim_token(caller.tenant_id, digest_of(token))
        await tx.record("admin.scim_token_rotate", f"tenant:{caller.tenant_id}")
    return token


async def _refuse_lesser(tx: StoreTransaction, caller: Caller) -> None:
    """Who says who vouches for people could become any of them, so nobody does who may do less than an owner."""
    granter = await Granter.of(tx, caller)
    granter.refuse_role(await tx.role(caller.tenant_id, OWNER))


async def _refuse_takeover(tx: StoreTransaction, provider: IdentityProvider) -> None:
    """Another issuer calls other people by the same subjects."""
    for known in await tx.identity_providers(provider.tenant_id, "", 500):
        if known.identity_provider_id != provider.identity_provider_id:
            continue
        moved = (known.issuer, known.directory_id) != (provider.issuer, provider.directory_id)
        if moved and await tx.linked_users(known):
            raise IdentityProviderRefused(
                "users are known by this identity provider, and another issuer may call others by their names; "
                "add it under another id"
            )
