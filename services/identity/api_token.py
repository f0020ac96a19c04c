"""An API token: `oiab_pat_<id>_<secret>`, its scopes, and what is refused of it."""

import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from services.identity.permissions import ALL, FLAGS
from services.identity.sign_in import digest_of
from services.kit.errors import DomainError, Kind

PREFIX = "oiab_pat_"
DEFAULT_LIFE = timedelta(days=90)
LONGEST_LIFE = timedelta(days=366)
_FORM = re.compile(r"oiab_pat_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")


class ApiTokenNotFound(DomainError):
    """The caller has no such API token."""

    kind = Kind.NOT_FOUND
    reason = "API_TOKEN_NOT_FOUND"


class ApiTokenInvalid(DomainError):
    """What is said of an API token cannot be."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


@dataclass(frozen=True)
class ApiToken:
    """An API token as it is stored."""

    api_token_id: UUID
    tenant_id: UUID
    user_id: UUID
    name: str
    scopes: frozenset[str]
    prefix: str
    digest: bytes = field(repr=False)
    expire_time: datetime
    create_time: datetime | None = None
    last_use_time: datetime | None = None

    def matches(self, token: str) -> bool:
        """Whether this is the token, in a time that does not tell how much of it is right."""
        return hmac.compare_digest(self.digest, digest_of(token))


def flags_of(scopes: frozenset[str]) -> frozenset[str]:
    """The permissions that scopes name."""
    return FLAGS if ALL in scopes else scopes & FLAGS


def new_secret(api_token_id: UUID) -> str:
    """The whole text of a new token."""
    return f"{PREFIX}{api_token_id.hex}_{secrets.token_urlsafe(32)}"


def prefix_of(token: str) -> str:
    """So much of a token that its user knows it again, and nobody can use it."""
    return token[: len(PREFIX) + 12]


def id_in(token: str) -> UUID | None:
    """The id that a token says it has, or None when it is no API token."""
    found = _FORM.fullmatch(token)
    return UUID(hex=found[1]) if found else None


def expiry(asked: datetime | None, now: datetime) -> datetime:
    """When a new token ends.

    Raises:
        ApiTokenInvalid: It is asked to end too late, or to have ended already.
    """
    if asked is None:
        return now + DEFAULT_LIFE
    if not now < asked <= now + LONGEST_LIFE:
        raise ApiTokenInvalid("an API token ends within 366 days from now", field="expire_time")
    return asked
