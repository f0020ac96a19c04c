"""A sign-in, with the refresh tokens that keep it, and what is refused of them.

Each refresh token is good for one use. A second use says that two have it, so it ends the sign-in. One thing looks like
a second use and is none: the same request sent again, because its answer was lost. It carries the request id of the
first, which a thief of the token does not have, and it is answered like the first: the next token is derived from the
token and the request id, so the answer can be given again although no token is ever stored.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

from services.kit.errors import DomainError, Kind

REFRESH_LIFE = timedelta(days=7)
REPLAY_LIFE = timedelta(minutes=10)
"""How long the answer to a refresh can be asked for again."""
PREFIX = "oiab_ref_"


class TokenInvalid(DomainError):
    """The token is none of this box, or was changed."""

    kind = Kind.UNAUTHENTICATED
    reason = "TOKEN_INVALID"


class TokenExpired(DomainError):
    """The token has ended."""

    kind = Kind.UNAUTHENTICATED
    reason = "TOKEN_EXPIRED"


class TokenRevoked(DomainError):
    """The sign-in or the API token was ended."""

    kind = Kind.UNAUTHENTICATED
    reason = "TOKEN_REVOKED"


class TokenReused(DomainError):
    """A refresh token was used a second time."""

    kind = Kind.UNAUTHENTICATED
    reason = "TOKEN_REUSED"


class SignInNotFound(DomainError):
    """The caller has no such sign-in."""

    kind = Kind.NOT_FOUND
    reason = "SIGN_IN_NOT_FOUND"


@dataclass(frozen=True)
class Origin:
    """Where a call comes from, as far as it is known."""

    channel: str = ""
    ip_address: str = ""
    user_agent: str = ""


@dataclass(frozen=True)
class SignIn:
    """One sign-in of a user."""

    sign_in_id: UUID
    tenant_id: UUID
    user_id: UUID
    device: str
    ip_address: str
    identity_provider: str
    create_time: datetime
    refresh_time: datetime
    expire_time: datetime


@dataclass(frozen=True)
class RefreshToken:
    """A refresh token as it is stored, with how its sign-in stands.

    Attributes:
        use_request: The request id of its use. None when it was used without one, or not yet.
        successor_used: Whether the token that took its place was used, too.
        revoked: Whether the sign-in was ended.
    """

    tenant_id: UUID
    user_id: UUID
    sign_in_id: UUID
    expire_time: datetime
    use_time: datetime | None
    use_request: UUID | None
    successor_used: bool
    revoked: bool

    def use(self, request_id: UUID | None, now: datetime) -> "Use":
        """What it means that somebody comes with it."""
        if self.revoked:
            return Use.REVOKED
        if self.use_time is not None:
            again = request_id is not None and request_id == self.use_request
            if again and not self.successor_used and now - self.use_time < REPLAY_LIFE:
                return Use.REPLAY
            return Use.REUSE
        return Use.FIRST if now < self.expire_time else Use.EXPIRED


class Use(Enum):
    """What it means that somebody comes with a refresh token."""

    FIRST = "first"
    REPLAY = "replay"
    REUSE = "reuse"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class TokenPair:
    """What a signed-in client holds."""

    access_token: str = field(repr=False)
    access_expire_time: datetime
    refresh_token: str = field(repr=False)
    refresh_expire_time: datetime


def new_refresh_token() -> str:
    """The first refresh token of a sign-in."""
    return PREFIX + secrets.token_urlsafe(32)


def next_refresh_token(key: bytes, token: str, request_id: UUID | None) -> str:
    """The refresh token that takes the place of another: the same for the same request, else a new one."""
    if request_id is None:
        return new_refresh_token()
    derived = hmac.digest(key, request_id.bytes + token.encode(), "sha256")
    return PREFIX + base64.urlsafe_b64encode(derived).decode().rstrip("=")


def digest_of(token: str) -> bytes:
    """What is stored of a token. It is random in full, so a plain digest tells nothing of it."""
    return hashlib.sha256(token.encode()).digest()
