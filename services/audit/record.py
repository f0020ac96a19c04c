"""A record: one thing that somebody did, kept. What a record may hold, and what a list may ask for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

from services.kit.errors import DomainError, Kind

MAX_TEXT = 4_096
_ACTION = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
_ACTOR = re.compile(r"system|anonymous|(?:user|agent|service):.+", re.DOTALL)

ERASE = "data.audit_erase"
"""The action of erasing what is about a user; its target is `user:<id>`."""
EXPIRE = "data.audit_expire"
"""The action of removing what is too old; its target is `<category>:<seconds since 1970>`."""
OWN_ACTIONS = frozenset({ERASE, EXPIRE})
"""What only the log itself records: by these a missing body is no damage."""

_YEAR = timedelta(days=365)
RETENTION = {"tool": _YEAR, "agent": _YEAR, "file": _YEAR}
"""How long the body of a record is kept, by its category; of any other, two years."""
LONGEST = 2 * _YEAR


class RecordInvalid(DomainError):
    """A record cannot be kept as it is. Whoever sent it has a fault."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


@dataclass(frozen=True)
class Record:
    """One thing that somebody did. The log gives the sequence and the hash; 0 and empty mean that it has not yet."""

    tenant_id: UUID
    record_id: UUID
    actor: str
    action: str
    create_time: datetime
    user_id: UUID | None = None
    target: str = ""
    session_id: str = ""
    channel: str = ""
    ip_address: str = ""
    user_agent: str = ""
    duration: timedelta | None = None
    payload: Mapping[str, Any] | None = None
    sequence: int = 0
    erased: bool = False
    hash: bytes = b""

    def checked(self) -> Self:
        """The record, if it names who did what.

        Raises:
            RecordInvalid: It does not.
        """
        for name, value, rule in (("actor", self.actor, _ACTOR), ("action", self.action, _ACTION)):
            if not rule.fullmatch(value):
                raise RecordInvalid(
                    f"the {name} of record {self.record_id} is not one that the log knows", field=f"records.{name}"
                )
        if self.action in OWN_ACTIONS:
            raise RecordInvalid(f"{self.action} is recorded by the log alone", field="records.action")
        return self


@dataclass(frozen=True)
class Filter:
    """Which records to list."""

    tenant_id: UUID
    action: str = ""
    user_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def exact(self) -> str | None:
        """The one action, or None when it is not about one."""
        return self.action if self.action and not self.action.endswith("*") else None

    @property
    def prefix(self) -> str | None:
        """With what the actions begin, or None when that is not asked."""
        return self.action.removesuffix("*") if self.action.endswith("*") else None


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)
