"""The verbs of signing in and out."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn
from uuid import UUID

from services.identity.attempts import Counter, counters, refuse_early
from services.identity.granting import permissions_of
from services.identity.issuer import Issuer
from services.identity.passwords import CredentialsRefused, Passwords, refuse_weak
from services.identity.permissions import Permissions
from services.identity.sign_in import (
    Origin,
    SignIn,
    SignInNotFound,
    TokenExpired,
    TokenInvalid,
    TokenPair,
    TokenReused,
    TokenRevoked,
    Use,
    digest_of,
)
from services.identity.store import Store, StoreTransaction
from services.identity.tenant import Tenant
from services.identity.user import User, UserInvalid
from services.kit.caller import Caller
from services.kit.ids import DEFAULT_TENANT
from services.kit.outbox import Who
from services.kit.tenancy import as_system, as_tenant

DEFAULT_SLUG = "default"


@dataclass(frozen=True)
class Desk:
    """What signing in works with."""

    store: Store
    issuer: Issuer
    passwords: Passwords


async def find_tenant(store: Store, slug: str) -> Tenant | None:
    """The tenant that somebody wants to sign in to."""
    with as_system():
        async with store.transaction() as tx:
            return await tx.find_tenant(slug=slug or DEFAULT_SLUG)


async def provider_choices(store: Store, slug: str) -> list[tuple[str, str]]:
    """The identity providers of a tenant. One that does not exist has none."""
    if (tenant := await find_tenant(store, slug)) is None:
        return []
    with as_tenant(tenant.tenant_id):
        async with store.transaction() as tx:
            return await tx.provider_choices(tenant.tenant_id)


async def sign_in(
    desk: Desk, tenant_slug: str, name: str, password: str, device: str, origin: Origin
) -> tuple[TokenPair, User]:
    """Sign a user in with their password.

    Raises:
        CredentialsRefused: There is no such user, or it is not their password.
        UserSuspended: It is, and they may not use the box.
        TooManyAttempts: There were too many failures.
    """
    account = name.strip().lower()
    tenant = await find_tenant(desk.store, tenant_slug)
    tenant_id = tenant.tenant_id if tenant else DEFAULT_TENANT
    with as_tenant(tenant_id):
        async with desk.store.transaction() as tx:
            user = await tx.user_by_name(tenant_id, account) if tenant else None
            braked = await _brake(tx, tenant_id, f"{tenant_slug}/{account}", user, origin)
        stored = user.password_hash if user and user.local else ""
        if not await desk.passwords.check(stored, password) or user is None or tenant is None:
            await _record_failure(desk.store, tenant_id, user, origin)
            raise CredentialsRefused("the handle or the password is wrong")
        renewed = await desk.passwords.hash(password) if desk.passwords.outdated(stored) else ""
        async with desk.store.transaction() as tx:
            fresh = await tx.mark_signed_in(user, datetime.now(UTC))
            if fresh.password_hash != stored:  # it was changed while we looked at it
                raise CredentialsRefused("the handle or the password is wrong")
            fresh.allowed_in(tenant_active=tenant.active)
            await _release(tx, tenant_id, braked)
            if renewed:
                await tx.rehash_password(fresh, renewed)
            pair = await desk.issuer.begin(tx, fresh, origin, device)
            await tx.record("auth.login", fresh.name, who=_who(fresh, origin), method="password")
            return pair, fresh


async def refresh(desk: Desk, token: str, request_id: UUID | None, origin: Origin) -> TokenPair:
    """Take a refresh token, and give the next pair in its place.

    Of several who come with the same token at once one is first, and the others end the sign-in; but for those who
    repeat the request of the first, whom it answers alike.

    Raises:
        TokenInvalid: It is none of ours.
        TokenExpired: It has ended.
        TokenRevoked: Its sign-in was ended.
        TokenReused: It was used before, so its sign-in is ended now.
        UserSuspended: Its user may not use the box.
    """
    with as_system():  # a refresh token says nothing of its tenant
        async with desk.store.transaction() as tx:
            found = await tx.lock_refresh_token(digest_of(token))
            if found is None:
                raise TokenInvalid("this is no refresh token of this box; sign in again: oiab login")
            used, successor = found
            user = await tx.user(used.tenant_id, str(used.user_id))
            use = used.use(request_id, datetime.now(UTC))
            pair = None
            if use in {Use.FIRST, Use.REPLAY}:
                tenant = await tx.find_tenant(used.tenant_id)
                user.allowed_in(tenant_active=tenant is not None and tenant.active)
            if use is Use.FIRST:
                pair = await desk.issuer.go_on(tx, user, used, token, request_id)
                await tx.record("auth.token_refresh", f"sign_in:{used.sign_in_id}", who=_who(user, origin))
            elif use is Use.REPLAY:
                pair = desk.issuer.again(user, used, token, request_id, successor)
                use = use if pair else Use.REUSE
            if use is Use.REUSE:
                await tx.revoke_sign_in(used.tenant_id, used.user_id, used.sign_in_id, "reused")
                await tx.record("auth.token_reuse", f"sign_in:{used.sign_in_id}", who=_who(user, origin))
    # The end of the sign-in is committed before anybody is told of it.
    return pair or _refuse_use(use)


async def sign_out(store: Store, caller: Caller, *, everywhere: bool) -> int:
    """End the sign-in that the call came with, or every one of the caller. Answers how many."""
    async with store.transaction() as tx:
        if everywhere:
            ended = await tx.revoke_sign_ins(caller.tenant_id, caller.user_id, "signed_out")
        elif caller.sign_in_id:
            held = await tx.revoke_sign_in(caller.tenant_id, caller.user_id, caller.sign_in_id, "signed_out")
            ended = int(held)
        else:
            ended = 0
        if ended:
            await tx.record("auth.logout", f"user:{caller.user_id}", sign_ins=ended, everywhere=everywhere)
        return ended


async def revoke_sign_in(store: Store, caller: Caller, sign_in_id: UUID) -> None:
    """End one of the caller's sign-ins."""
    async with store.transaction() as tx:
        if not await tx.revoke_sign_in(caller.tenant_id, caller.user_id, sign_in_id, "signed_out"):
            raise SignInNotFound("you have no sign-in with this id that holds")
        await tx.record("auth.logout", f"sign_in:{sign_in_id}", sign_ins=1)


async def list_sign_ins(store: Store, caller: Caller, before: UUID | None, size: int) -> list[SignIn]:
    """The caller's sign-ins that hold; one more than `size` when there are more."""
    async with store.transaction() as tx:
        return await tx.sign_ins(caller.tenant_id, caller.user_id, before, size + 1)


async def me(store: Store, caller: Caller) -> tuple[User, Tenant, Permissions]:
    """Who the caller is, where, and what they may do with what they came with."""
    async with store.transaction() as tx:
        user = await tx.user(caller.tenant_id, str(caller.user_id))
        tenant = await tx.find_tenant(caller.tenant_id)
        found = await permissions_of(tx, caller.tenant_id, caller.user_id)
    if tenant is None:
        raise LookupError("a user without a tenant")
    return user, tenant, found.limited_to(caller.permissions)


async def change_password(desk: Desk, caller: Caller, old: str, new: str, origin: Origin) -> None:
    """Change the caller's own password. It ends their other sign-ins.

    Raises:
        CredentialsRefused: The old one is wrong.
        PasswordRefused: The new one is too easy.
        TooManyAttempts: There were too many failures.
    """
    async with desk.store.transaction() as tx:
        user = await tx.user(caller.tenant_id, str(caller.user_id))
        if not user.local:
            raise UserInvalid(
                f"you sign in by {user.identity_provider}; change your password there", field="old_password"
            )
        braked = await _brake(tx, caller.tenant_id, f"password/{user.user_id}", user, origin)
    if not await desk.passwords.check(user.password_hash, old):
        await _record_failure(desk.store, caller.tenant_id, user, origin)
        raise CredentialsRefused("the old password is wrong")
    refuse_weak(new, user.handle, user.email)
    stored = await desk.passwords.hash(new)
    async with desk.store.transaction() as tx:
        if (await tx.user(caller.tenant_id, str(caller.user_id))).password_hash != user.password_hash:
            raise CredentialsRefused("the old password is wrong")
        await _release(tx, caller.tenant_id, braked)
        await tx.save_password(user, stored)
        ended = await tx.revoke_sign_ins(caller.tenant_id, caller.user_id, "password_changed", caller.sign_in_id)
        await tx.record("auth.password_change", user.name, sign_ins=ended)


async def _brake(
    tx: StoreTransaction, tenant_id: UUID, account: str, user: User | None, origin: Origin
) -> list[Counter]:
    """Count an attempt as a failure before it is looked at, and refuse it if it has to wait."""
    known = user is not None and bool(origin.ip_address) and await tx.known_address(user, origin.ip_address)
    found = [
        counter for counter in counters(tenant_id, account, origin.ip_address) if not (known and counter.stranger_only)
    ]
    now = datetime.now(UTC)
    for counter in sorted(found, key=lambda each: each.subject):  # one order, so that two do not wait for each other
        failures, wait_until = await tx.count_attempt(tenant_id, counter.subject)
        refuse_early(wait_until, now)
        if wait := counter.brake.wait(failures):
            await tx.delay_attempts(tenant_id, counter.subject, datetime.now(UTC) + wait)
    return found


async def _release(tx: StoreTransaction, tenant_id: UUID, braked: list[Counter]) -> None:
    """An attempt was right."""
    for counter in sorted(braked, key=lambda each: each.subject):
        if counter.resets:
            await tx.forget_attempts(tenant_id, counter.subject)
        else:
            await tx.take_back_attempt(tenant_id, counter.subject)


async def _record_failure(store: Store, tenant_id: UUID, user: User | None, origin: Origin) -> None:
    async with store.transaction() as tx:
        who = _who(user, origin) if user else Who(tenant_id, "anonymous", None, *vars(origin).values())
        await tx.record("auth.login_failed", user.name if user else "", who=who)


def _who(user: User, origin: Origin) -> Who:
    return Who(user.tenant_id, user.name, user.user_id, origin.channel, origin.ip_address, origin.user_agent)


def _refuse_use(use: Use) -> NoReturn:
    match use:
        case Use.EXPIRED:
            raise TokenExpired("this sign-in has ended, since it was not used for a week; sign in again: oiab login")
        case Use.REVOKED:
            raise TokenRevoked("this sign-in was ended; sign in again: oiab login")
        case _:
            raise TokenReused(
                "this refresh token was used before, so somebody else may have it; "
                "the sign-in is ended, sign in again: oiab login"
            )
