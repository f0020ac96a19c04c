"""A role: the noun, the four that come with every tenant, and what is refused of it."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services.identity.permissions import ALL, FLAGS, MANAGE_BOX, Permissions
from services.kit.errors import DomainError, Kind

OWNER, ADMIN, MEMBER, VIEWER = "owner", "admin", "member", "viewer"


class RoleNotFound(DomainError):
    """The tenant has no such role."""

    kind = Kind.NOT_FOUND
    reason = "ROLE_NOT_FOUND"


class RoleExists(DomainError):
    """The tenant has a role with this name already."""

    kind = Kind.ALREADY_EXISTS
    reason = "ROLE_EXISTS"


class RoleBuiltIn(DomainError):
    """The role came with the tenant and stays as it is."""

    kind = Kind.FAILED_PRECONDITION
    reason = "ROLE_BUILT_IN"


class PermissionEscalation(DomainError):
    """Nobody grants what they lack, or touches who may do more."""

    kind = Kind.PERMISSION_DENIED
    reason = "PERMISSION_ESCALATION"


@dataclass(frozen=True)
class Role:
    """A role of a tenant."""

    role_id: UUID
    tenant_id: UUID
    name: str
    description: str
    permissions: Permissions
    built_in: bool = False
    create_time: datetime | None = None
    update_time: datetime | None = None

    def changeable(self) -> "Role":
        """The role, if it may be changed.

        Raises:
            RoleBuiltIn: It came with the tenant.
        """
        if self.built_in:
            raise RoleBuiltIn(f"the role {self.name} came with the box; make a role of your own", name=self.name)
        return self


@dataclass(frozen=True)
class BuiltIn:
    """A role that comes with every tenant."""

    name: str
    description: str
    permissions: Permissions = field(repr=False)


_ANY = frozenset({ALL})
_AGENTS = frozenset(flag for flag in FLAGS if flag.startswith("agents."))

BUILT_INS = (
    BuiltIn(OWNER, "May do everything in the tenant.", Permissions(FLAGS - {MANAGE_BOX}, _ANY, _ANY)),
    BuiltIn(
        ADMIN,
        "May do everything but change the tenant itself.",
        Permissions(FLAGS - {MANAGE_BOX, "admin.manage_tenant"}, _ANY, _ANY),
    ),
    BuiltIn(
        MEMBER,
        "Makes and uses agents, reads and writes their own memories, and reads those of the team.",
        Permissions(_AGENTS | {"memory.read_own", "memory.read_team", "memory.write", "memory.delete"}, _ANY, _ANY),
    ),
    BuiltIn(
        VIEWER,
        "Reads sessions and memories, and runs no agent.",
        Permissions(frozenset({"agents.read", "memory.read_own", "memory.read_team"})),
    ),
)


def refuse_lack(lacking: str, what: str) -> None:
    """Refuse what the caller may not do to others, because they lack something themselves.

    Raises:
        PermissionEscalation: Something is lacking.
    """
    if lacking:
        raise PermissionEscalation(f"{what} needs {lacking}, which you do not have yourself", permission=lacking)


def refuse_manage_box(permissions: Permissions) -> None:
    """Refuse a role that would make its holders operators of the box.

    Raises:
        PermissionEscalation: It would.
    """
    if permissions.may(MANAGE_BOX):
        raise PermissionEscalation(f"no role gives {MANAGE_BOX}; only the operator has it", permission=MANAGE_BOX)
