"""Users and groups as a program keeps them that brings them by SCIM: the nouns, and what is refused of them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.kit.errors import DomainError, Kind

PAGE = 100
LONGEST_PAGE = 200


class ScimTokenInvalid(DomainError):
    """The token is no SCIM token of this box."""

    kind = Kind.UNAUTHENTICATED
    reason = "TOKEN_INVALID"


class GroupNotFound(DomainError):
    """The tenant has no such group."""

    kind = Kind.NOT_FOUND
    reason = "INVALID_ARGUMENT"


class GroupExists(DomainError):
    """The tenant has a group of this name already."""

    kind = Kind.ALREADY_EXISTS
    reason = "INVALID_ARGUMENT"


@dataclass(frozen=True)
class ScimMember:
    """A member of a group, or a group of a user, by id and name."""

    id: UUID
    name: str = ""


@dataclass(frozen=True)
class ScimUser:
    """A user as the program says."""

    user_id: UUID
    handle: str
    email: str = ""
    display_name: str = ""
    active: bool = True
    external_id: str = ""
    groups: tuple[ScimMember, ...] = ()
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True)
class ScimGroup:
    """A group as the program says."""

    group_id: UUID
    name: str
    external_id: str = ""
    members: tuple[ScimMember, ...] = ()
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True)
class ScimQuery:
    """Which users or groups are asked for.

    Attributes:
        name: The handle of a user, or the name of a group. None: of any.
        skip: How many to leave out first.
        size: How many to give at most.
    """

    id: UUID | None = None
    name: str | None = None
    external_id: str | None = None
    email: str | None = None
    skip: int = 0
    size: int = PAGE
