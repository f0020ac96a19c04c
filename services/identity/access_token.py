"""Access tokens: JWTs of 15 minutes, signed with HS256 and a key that has a name."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt

from services.identity.sign_in import TokenExpired, TokenInvalid
from services.kit.ids import new_id

ALGORITHM = "HS256"
LIFE = timedelta(minutes=15)
CLOCK_SKEW = timedelta(seconds=5)
KEY_BYTES = 32
LONGEST = 4096
_CLAIMS = ["sub", "tid", "sid", "roles", "iat", "exp", "jti"]


@dataclass(frozen=True)
class SigningKey:
    """A key with which access tokens are signed. Its name stands in their header, and tells nothing of it."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise ValueError(f"a signing key has {KEY_BYTES} bytes")

    @property
    def key_id(self) -> str:
        """The name of the key."""
        return hashlib.sha256(b"orginabox signing key" + self.secret).hexdigest()[:16]


@dataclass(frozen=True)
class Claims:
    """What an access token says."""

    tenant_id: UUID
    user_id: UUID
    sign_in_id: UUID
    roles: tuple[str, ...]
    expire_time: datetime


class AccessTokens:
    """Signs access tokens with the newest key, and verifies those of the keys before until they have ended.

    Args:
        keys: The keys, the newest first.
    """

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._key = keys[0]
        self._by_id = {key.key_id: key for key in keys}

    def use(self, keys: Sequence[SigningKey]) -> None:
        """Use the keys as they are now.

        A key that is new verifies at once, and signs from the next time on: until then every replica knows it.
        """
        known = self._by_id
        self._by_id = {key.key_id: key for key in keys}
        self._key = next((key for key in keys if key.key_id in known), keys[0])

    def sign(self, user_id: UUID, tenant_id: UUID, sign_in_id: UUID, roles: Sequence[str], now: datetime) -> str:
        """A new access token."""
        claims = {
            "sub": str(user_id),
            "tid": str(tenant_id),
            "sid": str(sign_in_id),
            "roles": list(roles),
            "iat": int(now.timestamp()),
            "exp": int((now + LIFE).timestamp()),
            "jti": new_id().hex,
        }
        return jwt.encode(claims, self._key.secret, ALGORITHM, headers={"kid": self._key.key_id})

    def verify(self, token: str) -> Claims:
        """What a token says.

        Raises:
            TokenExpired: It has ended.
            TokenInvalid: It is none of ours, or was changed.
        """
        if len(token) > LONGEST:
            raise _invalid()
        try:
            key = self._by_id[str(jwt.get_unverified_header(token).get("kid"))]
            claims = jwt.decode(
                token, key.secret, algorithms=[ALGORITHM], options={"require": _CLAIMS}, leeway=CLOCK_SKEW
            )
        except jwt.ExpiredSignatureError:
            raise TokenExpired("this access token has ended; refresh it, or sign in again: oiab login") from None
        except (jwt.InvalidTokenError, KeyError, ValueError, TypeError, RecursionError):
            raise _invalid() from None
        return _read(claims)


def _read(claims: dict[str, Any]) -> Claims:
    try:
        roles = tuple(str(role) for role in claims["roles"])
        expire = datetime.fromtimestamp(claims["exp"], UTC)
        if expire - datetime.fromtimestamp(claims["iat"], UTC) > LIFE:
            raise _invalid()  # we sign none that lives so long
        return Claims(UUID(claims["tid"]), UUID(claims["sub"]), UUID(claims["sid"]), roles, expire)
    except (ValueError, TypeError, AttributeError, OverflowError, OSError):
        raise _invalid() from None


def _invalid() -> TokenInvalid:
    return TokenInvalid("this token is none of this box; sign in again: oiab login")
