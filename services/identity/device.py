"""A device that asks to be signed in (RFC 8628): the noun, its states, and what is refused of it."""

import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

from services.identity.sign_in import Origin, TokenExpired, TokenInvalid
from services.kit.errors import DomainError, Kind

LIFE = timedelta(minutes=10)
POLL_SECONDS = 5
SLOWER_BY = 5
PREFIX = "oiab_dev_"
# No vowels, so that no code is a word, and nothing that looks like something else.
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


class DevicePending(DomainError):
    """The user has not approved the device yet."""

    kind = Kind.FAILED_PRECONDITION
    reason = "DEVICE_SIGN_IN_PENDING"


class DeviceTooFast(DomainError):
    """The device asks too often."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "DEVICE_SIGN_IN_SLOW_DOWN"


class DeviceDenied(DomainError):
    """The user did not approve the device."""

    kind = Kind.PERMISSION_DENIED
    reason = "DEVICE_SIGN_IN_DENIED"


class DeviceState(Enum):
    """How the request of a device stands."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    DONE = "done"


@dataclass(frozen=True)
class Device:
    """A device that asks to be signed in."""

    digest: bytes = field(repr=False)
    tenant_id: UUID
    user_code: str
    device: str
    origin: Origin
    expire_time: datetime
    poll_seconds: int = POLL_SECONDS
    state: DeviceState = DeviceState.PENDING
    user_id: UUID | None = None
    identity_provider: str = ""
    create_time: datetime | None = None
    poll_time: datetime | None = None

    def too_fast(self, now: datetime) -> bool:
        """Whether it asks before it should."""
        # Clocks and networks are not exact: a second early is not too fast.
        return self.poll_time is not None and now - self.poll_time < timedelta(seconds=self.poll_seconds - 1)

    def polled(self, now: datetime) -> "Device":
        """The same, after it has asked; slower from now on if it asked too fast."""
        slower = SLOWER_BY if self.too_fast(now) else 0
        return replace(self, poll_time=now, poll_seconds=self.poll_seconds + slower)

    def refuse(self, now: datetime) -> None:
        """Refuse to sign the device in, unless somebody has approved it.

        Raises:
            TokenExpired: It is too late.
            TokenInvalid: It was signed in already.
            DeviceDenied: Somebody said no.
            DevicePending: Nobody has said anything yet.
            DeviceTooFast: It asks too often.
        """
        if self.state is DeviceState.DONE:
            raise TokenInvalid("this device code was used; start again")
        if now >= self.expire_time:
            raise TokenExpired("nobody approved the device in time; start again")
        if self.state is DeviceState.DENIED:
            raise DeviceDenied("the sign-in was denied in the browser")
        if self.too_fast(now):
            raise DeviceTooFast("this asks too often; wait five seconds longer each time")
        if self.state is DeviceState.PENDING:
            raise DevicePending("nobody has approved the device yet; ask again in a moment")

    def decided(self, tenant_id: UUID, user_id: UUID, identity_provider: str, *, approved: bool) -> "Device":
        """The same, after a user has said yes or no."""
        if not approved:
            return replace(self, state=DeviceState.DENIED)
        return replace(
            self,
            state=DeviceState.APPROVED,
            tenant_id=tenant_id,
            user_id=user_id,
            identity_provider=identity_provider,
        )


def new_device_code() -> str:
    """What a device polls with."""
    return PREFIX + secrets.token_urlsafe(32)


def new_user_code() -> str:
    """What a user compares or types, such as `WDJB-MJHT`."""
    letters = "".join(secrets.choice(_LETTERS) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"


def read_user_code(typed: str) -> str:
    """The code that somebody typed, with or without the line, in letters of any size."""
    letters = "".join(letter for letter in typed.upper() if letter in _LETTERS)
    return f"{letters[:4]}-{letters[4:8]}"
