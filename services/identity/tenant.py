"""A tenant: the noun, and what is refused of it."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from uuid import UUID

from services.kit.errors import DomainError, Kind


class TenantExists(DomainError):
    """A tenant has this slug already."""

    kind = Kind.ALREADY_EXISTS
    reason = "TENANT_EXISTS"


class TenantInvalid(DomainError):
    """What is said of a tenant cannot be."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class TenantNotProvisioned(DomainError):
    """No tenant takes this user in."""

    kind = Kind.PERMISSION_DENIED
    reason = "TENANT_NOT_PROVISIONED"


class TenantStatus(Enum):
    """Whether the people of a tenant may use the box."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


@dataclass(frozen=True)
class GroupRole:
    """A group of the identity provider, and the name of the role that its members have."""

    group: str
    role: str


@dataclass(frozen=True)
class Tenant:
    """An organisation on the box.

    Attributes:
        default_role: The name of the role of a new user who is given no other. Empty for none.
        group_roles: Which groups have which role.
    """

    tenant_id: UUID
    slug: str
    name: str
    status: TenantStatus = TenantStatus.ACTIVE
    default_role: str = ""
    group_roles: tuple[GroupRole, ...] = ()
    create_time: datetime | None = None

    @property
    def active(self) -> bool:
        """Whether its people may use the box."""
        return self.status is TenantStatus.ACTIVE
