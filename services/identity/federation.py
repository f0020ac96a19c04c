"""Signing in by an identity provider: from a browser's first step to the user whom the provider vouches for."""

import base64
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from services.identity.attempts import ADDRESS, refuse_early, site_of
from services.identity.door_store import WebSignIn
from services.identity.identity_provider import IdentityProvider, IdentityProviderRefused
from services.identity.issuer import Issuer
from services.identity.oidc import OpenId, Proof
from services.identity.sealing import Sealing
from services.identity.sign_in import Origin, TokenExpired, TokenInvalid, TokenPair, digest_of
from services.identity.sign_in_operations import find_tenant
from services.identity.store import Store, StoreTransaction
from services.identity.tenant import Tenant, TenantNotProvisioned
from services.identity.tenant_operations import apply_groups
from services.identity.user import User, UserExists
from services.kit.errors import DomainError
from services.kit.ids import new_id
from services.kit.outbox import Who
from services.kit.tenancy import as_system, as_tenant

LIFE = timedelta(minutes=10)
MOST_GROUPS = 2_000
_TRIES = 20


@dataclass(frozen=True)
class Federation:
    """What signing in by an identity provider works with.

    Attributes:
        redirect_uri: The address to which providers send people back.
    """

    store: Store
    issuer: Issuer
    openid: OpenId
    sealing: Sealing
    redirect_uri: str


@dataclass(frozen=True)
class Begun:
    """A sign-in on its way to an identity provider.

    Attributes:
        state: Names the sign-in.
        secret: What the browser keeps, so that nobody ends it in another.
    """

    address: str
    state: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Person:
    """Who an identity provider says somebody is.

    Attributes:
        verified_email: Their mail address, if it says that it has made sure of it.
        groups: Their groups. None: it does not tell all of them.
    """

    subject: str
    object_id: str
    email: str
    verified_email: str
    name: str
    preferred: str
    groups: frozenset[str] | None


@dataclass(frozen=True)
class SignedIn:
    """Somebody is signed in."""

    pair: TokenPair
    user: User
    redirect: str


async def begin(desk: Federation, tenant_slug: str, named: str, redirect: str) -> Begun:
    """Send a browser to an identity provider.

    Raises:
        IdentityProviderNotFound: The tenant has none such.
        IdentityProviderUnavailable: It cannot be reached.
    """
    tenant = await find_tenant(desk.store, tenant_slug)
    if tenant is None:
        raise TenantNotProvisioned("there is no such organisation on this box")
    with as_tenant(tenant.tenant_id):
        async with desk.store.transaction() as tx:
            provider = await tx.identity_provider(tenant.tenant_id, named)
        state, secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        address = await desk.openid.address(provider, proof_of(secret, state), desk.redirect_uri)
        begun = WebSignIn(tenant.tenant_id, named, digest_of(secret), redirect, datetime.now(UTC) + LIFE)
        async with desk.store.transaction() as tx:
            await tx.add_web_sign_in(digest_of(state), begun)
    return Begun(address, state, secret)


async def end(desk: Federation, state: str, secret: str, code: str, origin: Origin) -> SignedIn:
    """A browser comes back from an identity provider.

    Raises:
        TokenInvalid: The sign-in was not begun here, or in another browser, or has ended already.
        TokenExpired: It took too long.
        IdentityProviderRefused: What the provider says cannot be accepted.
        TenantNotProvisioned: Nobody has added this user.
        TooManyAttempts: Too many have failed from this address.
        UserSuspended: They may not use the box.
    """
    begun = await _take(desk.store, state, secret)
    with as_tenant(begun.tenant_id):
        async with desk.store.transaction() as tx:
            provider = await tx.identity_provider(begun.tenant_id, begun.identity_provider_id)
            await _brake(tx, provider, origin)
        try:
            client_secret = await desk.sealing.open(provider.tenant_id, provider.sealed_secret, provider.record)
            claims = await desk.openid.claims(provider, client_secret, code, proof_of(secret, state), desk.redirect_uri)
            return await _sign_in(desk, provider, person_of(provider, claims), begun.redirect, origin)
        except DomainError as refusal:
            await _record_failure(desk.store, provider, refusal.reason, origin)
            raise


def proof_of(secret: str, state: str) -> Proof:
    """What a browser's secret gives for one sign-in."""
    return Proof(state, _derived(secret, f"nonce {state}"), _derived(secret, f"verifier {state}"))


def person_of(provider: IdentityProvider, claims: Mapping[str, Any]) -> Person:
    """Who the claims of an identity provider say somebody is.

    Raises:
        IdentityProviderRefused: They name nobody.
    """
    object_id = _subject(claims, "oid") if provider.of_directories else ""
    email = _text(claims, "email")
    email = email if re.fullmatch(r"[^@\s]+@[^@\s]+", email) and len(email) <= 254 else ""  # noqa: PLR2004 - RFC 5321
    return Person(
        subject=object_id or _subject(claims, "sub"),
        object_id=object_id,
        email=email,
        verified_email=email if claims.get("email_verified") is True else "",
        name=_text(claims, "name")[:200],
        preferred=_text(claims, "preferred_username") or email,
        groups=_groups(claims, provider.groups_in),
    )


async def _take(store: Store, state: str, secret: str) -> WebSignIn:
    with as_system():  # the state does not say of which tenant it is
        async with store.transaction() as tx:
            begun = await tx.take_web_sign_in(digest_of(state))
    if begun is None or not hmac.compare_digest(begun.browser_digest, digest_of(secret)):
        raise TokenInvalid("this sign-in was not begun in this browser, or was ended already; start again")
    if begun.expire_time <= datetime.now(UTC):
        raise TokenExpired("this sign-in took longer than ten minutes; start again")
    return begun


async def _brake(tx: StoreTransaction, provider: IdentityProvider, origin: Origin) -> None:
    """Count an attempt of an address: each that fails calls the provider, and stands on record for ever."""
    now = datetime.now(UTC)
    failures, wait_until = await tx.count_attempt(provider.tenant_id, _counter(origin))
    refuse_early(wait_until, now)
    if wait := ADDRESS.wait(failures):
        await tx.delay_attempts(provider.tenant_id, _counter(origin), now + wait)


def _counter(origin: Origin) -> str:
    return f"provider:{site_of(origin.ip_address)}"


async def _sign_in(
    desk: Federation, provider: IdentityProvider, person: Person, redirect: str, origin: Origin
) -> SignedIn:
    async with desk.store.transaction() as tx:
        await tx.lock_tenant(provider.tenant_id)
        await tx.identity_provider(provider.tenant_id, provider.identity_provider_id)  # it may have gone meanwhile
        tenant = await tx.find_tenant(provider.tenant_id)
        if tenant is None:
            raise LookupError("an identity provider without a tenant")
        user = await _known(tx, provider, person, origin) or await _added(tx, tenant, provider, person, origin)
        user.allowed_in(tenant_active=tenant.active)
        who = _who(user, origin)
        if await apply_groups(tx, user, await _all_groups(tx, tenant, user, person)):
            after = await tx.user(user.tenant_id, str(user.user_id))
            await tx.record("auth.role_change", user.name, who=who, roles=list(after.roles), by="groups")
        fresh = await tx.mark_signed_in(user, datetime.now(UTC))
        await tx.take_back_attempt(provider.tenant_id, _counter(origin))
        pair = await desk.issuer.begin(tx, fresh, origin, "", provider.identity_provider_id)
        await tx.record("auth.login", fresh.name, who=who, method="oidc", provider=provider.identity_provider_id)
    return SignedIn(pair, fresh, redirect)


async def _known(tx: StoreTransaction, provider: IdentityProvider, person: Person, origin: Origin) -> User | None:
    """The user whom the provider knows already, or who was added and waits for their first sign-in."""
    if user := await tx.user_by_subject(provider, person.subject):
        return user
    user = await tx.waiting_user(provider.tenant_id, person.subject, person.verified_email)
    if user is None or not await tx.link_user(user, provider, person.subject, person.object_id):
        return None
    await tx.record("admin.user_update", user.name, who=_who(user, origin), linked=provider.identity_provider_id)
    return await tx.user(provider.tenant_id, str(user.user_id))


async def _added(
    tx: StoreTransaction, tenant: Tenant, provider: IdentityProvider, person: Person, origin: Origin
) -> User:
    if not provider.create_users:
        raise TenantNotProvisioned(
            f"nobody has added you to {tenant.name} on this box yet; ask an administrator of your organisation"
        )
    handle = await _free_handle(tx, tenant, person)
    user = User(
        user_id=new_id(),
        tenant_id=tenant.tenant_id,
        handle=handle,
        email=person.email,
        display_name=person.name or handle,
        identity_provider=provider.identity_provider_id,
        subject=person.subject,
    )
    await tx.add_user(user, directory_object_id=person.object_id)
    if tenant.default_role:
        await tx.assign(user, (await tx.role(tenant.tenant_id, tenant.default_role)).role_id)
    await tx.record(
        "admin.user_create", user.name, who=_who(user, origin), handle=handle, by=provider.identity_provider_id
    )
    return user


async def _free_handle(tx: StoreTransaction, tenant: Tenant, person: Person) -> str:
    wanted = re.sub(r"[^a-z0-9._@+-]", "-", person.preferred.lower())[:100].lstrip("._@+-") or "user"
    for number in range(_TRIES):
        handle = wanted if not number else f"{wanted}-{secrets.token_hex(2 + number // 8)}"
        if await tx.find_user(tenant.tenant_id, handle) is None:
            return handle
    raise UserExists(f"there is a user {wanted} already", handle=wanted)


async def _all_groups(tx: StoreTransaction, tenant: Tenant, user: User, person: Person) -> frozenset[str]:
    brought = frozenset(await tx.user_groups(user))
    if person.groups is not None:
        return person.groups | brought
    if tenant.group_roles and not brought:
        raise IdentityProviderRefused(
            "you are in more groups than the identity provider tells us of, so nobody knows your roles; an "
            "administrator can let it send only the groups assigned to this application, or bring groups by SCIM"
        )
    return brought


async def _record_failure(store: Store, provider: IdentityProvider, reason: str, origin: Origin) -> None:
    who = Who(provider.tenant_id, "anonymous", None, origin.channel, origin.ip_address, origin.user_agent)
    async with store.transaction() as tx:
        await tx.record("auth.login_failed", provider.name, who=who, method="oidc", reason=reason)


def _groups(claims: Mapping[str, Any], claim: str) -> frozenset[str] | None:
    elsewhere = claims.get("_claim_names")
    if (isinstance(elsewhere, Mapping) and claim in elsewhere) or claims.get("hasgroups"):
        return None
    found = claims.get(claim, ())
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, (list, tuple)) or len(found) > MOST_GROUPS:
        raise IdentityProviderRefused(f"the claim {claim} of the token is no list of groups")
    return frozenset(str(group) for group in found)


def _subject(claims: Mapping[str, Any], claim: str) -> str:
    """Who somebody is. It is taken as it is or not at all: cut or cleaned, it could be somebody else's."""
    found = claims.get(claim)
    if not isinstance(found, str) or not re.fullmatch(r"[\x20-\x7e]{1,255}", found):
        raise IdentityProviderRefused(f"the token says in no way that can be kept who you are ({claim})")
    return found


def _text(claims: Mapping[str, Any], claim: str) -> str:
    """What a claim says, without what is no text."""
    found = claims.get(claim)
    return found.encode(errors="ignore").decode().replace("\0", "").strip() if isinstance(found, str) else ""


def _who(user: User, origin: Origin) -> Who:
    return Who(user.tenant_id, user.name, user.user_id, origin.channel, origin.ip_address, origin.user_agent)


def _derived(secret: str, purpose: str) -> str:
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), purpose.encode(), "sha256")).decode().rstrip("=")
