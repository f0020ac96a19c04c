"""What somebody may do: the rules of union, ceiling, and of who may grant what. No I/O."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, Self

ALL = "*"

GROUPS: Mapping[str, tuple[str, ...]] = {
    "agents": ("read", "create", "run", "configure", "delete"),
    "memory": ("read_own", "read_team", "read_org", "write", "delete", "share"),
    "admin": (
        "manage_users",
        "manage_roles",
        "manage_templates",
        "manage_providers",
        "view_audit_log",
        "manage_tenant",
        "manage_jobs",
        "manage_keyring",
        "manage_box",
    ),
}
MANAGE_BOX = "admin.manage_box"
"""No role gives it: only the operator of the box has it."""

FLAGS = frozenset(f"{group}.{name}" for group, names in GROUPS.items() for name in names)
"""The names of all permissions, as the contract's methods name them."""

TEMPLATES = "agents.use_templates"
TOOLS = "tools.allowed"
MONTHLY = "cost.monthly_limit_usd"
PER_REQUEST = "cost.per_request_limit_usd"


@dataclass(frozen=True)
class Names:
    """A set of names: those listed, or all but those listed."""

    listed: frozenset[str] = frozenset()
    all_but: bool = False

    @classmethod
    def read(cls, allowed: Iterable[str], denied: Iterable[str] = ()) -> Self:
        """What is allowed and not denied, where `*` names everything."""
        granted, refused = frozenset(allowed), frozenset(denied)
        if ALL in refused:
            return cls()
        return cls(refused, all_but=True) if ALL in granted else cls(granted - refused)

    def __contains__(self, name: str) -> bool:
        return (name in self.listed) is not self.all_but

    def __sub__(self, other: "Names") -> "Names":
        """Those that are not in the other set."""
        return self & Names(other.listed, all_but=not other.all_but)

    def __and__(self, other: "Names") -> "Names":
        """Those that are in both."""
        match self.all_but, other.all_but:
            case True, True:
                return Names(self.listed | other.listed, all_but=True)
            case True, False:
                return Names(other.listed - self.listed)
            case False, True:
                return Names(self.listed - other.listed)
            case _:
                return Names(self.listed & other.listed)

    def __le__(self, other: "Names") -> bool:
        return not (self - other)

    def __bool__(self) -> bool:
        return self.all_but or bool(self.listed)


@dataclass(frozen=True)
class Permissions:
    """What a role gives, or what somebody may do in the end.

    Attributes:
        flags: The names of the permissions, such as `admin.manage_users`.
        templates: The templates that may be used. `*` means all.
        tools_allowed: The tools that are allowed. `*` means all.
        tools_denied: The tools that are denied, whatever is allowed. `*` means all.
        monthly_limit_usd: What model calls of a month may cost. None sets no limit.
        per_request_limit_usd: What one turn may cost. None sets no limit.
    """

    flags: frozenset[str] = frozenset()
    templates: frozenset[str] = frozenset()
    tools_allowed: frozenset[str] = frozenset()
    tools_denied: frozenset[str] = frozenset()
    monthly_limit_usd: float | None = None
    per_request_limit_usd: float | None = None

    @classmethod
    def union(cls, each: Iterable[Self]) -> Self:
        """What somebody may do who holds all of these: deny wins over allow, and the strictest limit wins."""
        return reduce(cls._with, each, cls())

    def _with(self, other: Self) -> Self:
        return type(self)(
            self.flags | other.flags,
            self.templates | other.templates,
            self.tools_allowed | other.tools_allowed,
            self.tools_denied | other.tools_denied,
            _strictest(self.monthly_limit_usd, other.monthly_limit_usd),
            _strictest(self.per_request_limit_usd, other.per_request_limit_usd),
        )

    def under(self, ceiling: Self) -> Self:
        """What an agent may do that acts for its user: what both may, and never more than either."""
        tools = self.tools & ceiling.tools
        templates = Names.read(self.templates) & Names.read(ceiling.templates)
        return type(self)(
            self.flags & ceiling.flags,
            frozenset({ALL}) if templates.all_but else templates.listed,
            frozenset({ALL}) if tools.all_but else tools.listed,
            tools.listed if tools.all_but else frozenset(),
            _strictest(self.monthly_limit_usd, ceiling.monthly_limit_usd),
            _strictest(self.per_request_limit_usd, ceiling.per_request_limit_usd),
        )

    def limited_to(self, flags: frozenset[str]) -> Self:
        """The same with no other flags than these, as an API token limits its user."""
        return type(self)(
            self.flags & flags,
            self.templates,
            self.tools_allowed,
            self.tools_denied,
            self.monthly_limit_usd,
            self.per_request_limit_usd,
        )

    @cached_property
    def tools(self) -> Names:
        """The tools that may be used in the end."""
        return Names.read(self.tools_allowed, self.tools_denied)

    def may(self, flag: str) -> bool:
        """Whether a permission is among these."""
        return flag in self.flags

    def lacks(self, wanted: Self) -> str:
        """What of the wanted is not within this, by the name of the first such permission. Empty: it is all within."""
        return self.lacks_of_change(self.nothing(), wanted)

    def lacks_of_change(self, before: Self, after: Self) -> str:
        """What a change gives that is not within this, by the name of the first such permission. Empty: nothing."""
        if missing := after.flags - before.flags - self.flags:
            return min(missing)
        if not Names.read(after.templates) - Names.read(before.templates) <= Names.read(self.templates):
            return TEMPLATES
        if not after.tools - before.tools <= self.tools:
            return TOOLS
        if _looser(after.monthly_limit_usd, before.monthly_limit_usd, self.monthly_limit_usd):
            return MONTHLY
        if _looser(after.per_request_limit_usd, before.per_request_limit_usd, self.per_request_limit_usd):
            return PER_REQUEST
        return ""

    @classmethod
    def nothing(cls) -> Self:
        """What somebody may do who may not even cost anything: less than everything else."""
        return cls(monthly_limit_usd=0.0, per_request_limit_usd=0.0)

    def to_document(self) -> dict[str, Any]:
        """In the form of the original's roles, as it is stored."""
        grouped: dict[str, Any] = {
            group: {name: True for name in names if f"{group}.{name}" in self.flags} for group, names in GROUPS.items()
        }
        grouped["agents"]["use_templates"] = sorted(self.templates)
        grouped["tools"] = {"allowed": sorted(self.tools_allowed), "denied": sorted(self.tools_denied)}
        limits = {"monthly_limit_usd": self.monthly_limit_usd, "per_request_limit_usd": self.per_request_limit_usd}
        grouped["cost"] = {name: limit for name, limit in limits.items() if limit is not None}
        return grouped

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what was stored. What this release does not know is left out: an unknown permission is none."""
        tools, cost = document.get("tools") or {}, document.get("cost") or {}
        return cls(
            frozenset(
                f"{group}.{name}"
                for group, names in GROUPS.items()
                for name in names
                if (document.get(group) or {}).get(name) is True
            ),
            frozenset((document.get("agents") or {}).get("use_templates") or ()),
            frozenset(tools.get("allowed") or ()),
            frozenset(tools.get("denied") or ()),
            cost.get("monthly_limit_usd"),
            cost.get("per_request_limit_usd"),
        )


def _strictest(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _looser(after: float | None, before: float | None, own: float | None) -> bool:
    """Whether a change sets a limit looser than it was and than one's own."""
    new = math.inf if after is None else after
    return new > (math.inf if before is None else before) and new > (math.inf if own is None else own)


EVERYTHING = Permissions(FLAGS, frozenset({ALL}), frozenset({ALL}))
"""What the operator of the box may do."""
