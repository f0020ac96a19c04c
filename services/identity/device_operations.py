"""The verbs of devices without a browser: start, approve or deny in a browser, poll."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.identity.attempts import Brake, refuse_early, site_of
from services.identity.device import (
    LIFE,
    Device,
    DeviceState,
    DeviceTooFast,
    new_device_code,
    new_user_code,
    read_user_code,
)
from services.identity.sign_in import Origin, TokenInvalid, TokenPair, digest_of
from services.identity.sign_in_operations import Desk
from services.identity.store import Store, StoreTransaction
from services.identity.user import User
from services.kit.caller import Caller
from services.kit.errors import DomainError
from services.kit.ids import DEFAULT_TENANT
from services.kit.outbox import Who
from services.kit.tenancy import as_system

STARTS = Brake(20, timedelta(minutes=15))
"""Anybody may start, and each start stands on record for ever: who never ends what they start has to wait."""
_TRIES = 5


async def start(store: Store, device: str, origin: Origin) -> tuple[str, Device]:
    """A device asks to be signed in. Answers the code with which it polls.

    Raises:
        TooManyAttempts: Too many were started from this address that nobody has approved.
    """
    now = datetime.now(UTC)
    with as_system():
        async with store.transaction() as tx:
            await _brake(tx, origin, now)
    for _ in range(_TRIES):
        code = new_device_code()
        asked = Device(
            digest=digest_of(code),
            tenant_id=DEFAULT_TENANT,
            user_code=new_user_code(),
            device=device or origin.user_agent,
            origin=origin,
            expire_time=now + LIFE,
        )
        with as_system():
            async with store.transaction() as tx:
                if await tx.add_device(asked, asked.digest):
                    who = Who(DEFAULT_TENANT, "anonymous", None, origin.channel, origin.ip_address, origin.user_agent)
                    await tx.record("auth.device_start", who=who)
                    return code, asked
    raise RuntimeError("every code is taken")


async def find(store: Store, user_code: str) -> Device | None:
    """The device that waits with a code, for the page that asks its user."""
    with as_system():
        async with store.transaction() as tx:
            found = await tx.lock_device_by_user_code(read_user_code(user_code))
    now = datetime.now(UTC)
    return found if found and found.state is DeviceState.PENDING and now < found.expire_time else None


async def decide(store: Store, caller: Caller, user_code: str, identity_provider: str = "", *, approved: bool) -> bool:
    """The caller approves or denies a device. False: none waits with this code."""
    with as_system():
        async with store.transaction() as tx:
            found = await tx.lock_device_by_user_code(read_user_code(user_code))
            if found is None or found.state is not DeviceState.PENDING or datetime.now(UTC) >= found.expire_time:
                return False
            decided = found.decided(caller.tenant_id, caller.user_id, identity_provider, approved=approved)
            await tx.save_device(decided)
            action = "auth.device_approve" if approved else "auth.device_deny"
            await tx.record(action, f"user:{caller.user_id}", device=found.device)
            return True


async def poll(desk: Desk, device_code: str, origin: Origin) -> tuple[TokenPair, User]:
    """A device asks whether it is signed in by now.

    Raises:
        DevicePending: Not yet.
        DeviceTooFast: It asks too often.
        DeviceDenied: Its user said no.
        TokenExpired: Nobody said anything in time.
        TokenInvalid: There is no such device, or it was signed in already.
    """
    with as_system():
        async with desk.store.transaction() as tx:
            found = await tx.lock_device(digest_of(device_code))
            if found is None:
                raise TokenInvalid("this is no device code of this box; start again")
            now = datetime.now(UTC)
            refusal = _refusal(found, now)
            if refusal is None and found.user_id is not None:
                user = await tx.mark_signed_in(await tx.user(found.tenant_id, str(found.user_id)), now)
                tenant = await tx.find_tenant(found.tenant_id)
                user.allowed_in(tenant_active=tenant is not None and tenant.active)
                await tx.save_device(replace(found.polled(now), state=DeviceState.DONE))
                await tx.take_back_attempt(DEFAULT_TENANT, _counter(found.origin))
                pair = await desk.issuer.begin(tx, user, origin, found.device, found.identity_provider)
                who = Who(user.tenant_id, user.name, user.user_id, origin.channel, origin.ip_address, origin.user_agent)
                await tx.record("auth.login", user.name, who=who, method="device")
                return pair, user
            await tx.save_device(found.polled(now))
    # What was polled is remembered also when it is refused.
    raise refusal or DeviceTooFast("ask again in a moment")


async def _brake(tx: StoreTransaction, origin: Origin, now: datetime) -> None:
    failures, wait_until = await tx.count_attempt(DEFAULT_TENANT, _counter(origin))
    refuse_early(wait_until, now)
    if wait := STARTS.wait(failures):
        await tx.delay_attempts(DEFAULT_TENANT, _counter(origin), now + wait)


def _counter(origin: Origin) -> str:
    return f"start:{site_of(origin.ip_address)}"


def _refusal(device: Device, now: datetime) -> DomainError | None:
    try:
        device.refuse(now)
    except DomainError as refusal:
        return refusal
    return None
