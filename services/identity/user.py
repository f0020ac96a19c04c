"""A user: the noun, and what is refused of it."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from uuid import UUID

from services.kit.errors import DomainError, Kind


class UserNotFound(DomainError):
    """The tenant has no such user."""

    kind = Kind.NOT_FOUND
    reason = "USER_NOT_FOUND"


class UserExists(DomainError):
    """The tenant has a user with this handle already."""

    kind = Kind.ALREADY_EXISTS
    reason = "USER_EXISTS"


class UserInvalid(DomainError):
    """What is said of a user cannot be."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class LastOwner(DomainError):
    """The tenant would be left without an owner."""

    kind = Kind.FAILED_PRECONDITION
    reason = "LAST_OWNER"


class UserSuspended(DomainError):
    """The user or their tenant may not use the box for now."""

    kind = Kind.PERMISSION_DENIED
    reason = "USER_SUSPENDED"


_HANDLE = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,126}")
_LONGEST_EMAIL = 254
_LONGEST_NAME = 200


class UserStatus(Enum):
    """Whether a user may use the box."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"


@dataclass(frozen=True)
class User:
    """A person of a tenant.

    Attributes:
        identity_provider: By which identity provider they sign in. Empty for a local account.
        subject: Who they are there. Empty for a local account.
        password_hash: What their password is checked against. Empty when none is set.
        roles: The names of their roles.
    """

    user_id: UUID
    tenant_id: UUID
    handle: str
    email: str = ""
    display_name: str = ""
    status: UserStatus = UserStatus.ACTIVE
    identity_provider: str = ""
    subject: str = ""
    password_hash: str = field(default="", repr=False)
    roles: tuple[str, ...] = ()
    sign_in_time: datetime | None = None
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def name(self) -> str:
        """What the audit log calls them as a target."""
        return f"user:{self.user_id}"

    @property
    def local(self) -> bool:
        """Whether they sign in with a password, and not by an identity provider."""
        return not self.identity_provider

    def checked(self) -> "User":
        """The user, if what is said of them can be.

        Raises:
            UserInvalid: It cannot.
        """
        if not _HANDLE.fullmatch(self.handle):
            raise UserInvalid(
                "a handle has small letters, digits and ._@+- and begins with one of the first two", field="handle"
            )
        if self.email and (len(self.email) > _LONGEST_EMAIL or not re.fullmatch(r"[^@\s]+@[^@\s]+", self.email)):
            raise UserInvalid("this is no mail address", field="email")
        if len(self.display_name) > _LONGEST_NAME:
            raise UserInvalid(f"a name to show has at most {_LONGEST_NAME} characters", field="display_name")
        return self

    def allowed_in(self, *, tenant_active: bool) -> "User":
        """The user, if they may use the box.

        Raises:
            UserSuspended: They, or their tenant, may not.
        """
        if not tenant_active:
            raise UserSuspended("your organisation may not use this box for now; ask who runs it")
        if self.status is not UserStatus.ACTIVE:
            raise UserSuspended("your account may not use this box for now; ask an administrator")
        return self
