"""The outbox of audit records: no action without its record, and no record of what was rolled back.

A room writes a record in the transaction of the change that it tells of:

    async with store.transaction() as tx:
        await tx.delete(provider)
        await record(tx, "admin.provider_delete", f"provider:{provider.provider_id}")

Who did it is the caller of the call, or `system` where there is none. A courier (services/kit/courier.py) brings what
was committed to Audit, at least once; a record has its id from here on, so that the log keeps it once.

The room's migrations have the table of `outbox_table.sql`, its store the queries of `QUERIES`. What a record aims at
(`target`) stays in the log for ever and is an id of ours; whatever is about a person goes into the payload, which can
be erased.
"""

import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from services.kit.caller import Caller, caller
from services.kit.errors import PermissionDenied
from services.kit.ids import DEFAULT_TENANT, new_id
from services.kit.keepable import keepable
from services.kit.queries import load_queries

QUERIES = load_queries(Path(__file__).with_name("outbox.sql"))
"""The queries of the outbox. A room adds them to its own."""

SYSTEM = "system"
ANONYMOUS = "anonymous"
MAX_PAYLOAD = 65_536


class Runs(Protocol):
    """A transaction that runs named queries."""

    def run(self, name: str, **params: object) -> Awaitable[int]:
        """Run a named query."""


@dataclass(frozen=True)
class Who:
    """Who did something, and by which way it came."""

    tenant_id: UUID = DEFAULT_TENANT
    actor: str = SYSTEM
    user_id: UUID | None = None
    channel: str = ""
    ip_address: str = ""
    user_agent: str = ""

    @classmethod
    def current(cls, tenant_id: UUID | None = None) -> "Who":
        """The caller of the current call, else the system, in the tenant that is said or the first one."""
        try:
            return cls.of(caller(), tenant_id)
        except PermissionDenied:
            return cls(tenant_id or DEFAULT_TENANT)

    @classmethod
    def of(cls, found: Caller, tenant_id: UUID | None = None) -> "Who":
        """A caller, in their tenant or the one that is said."""
        return cls(
            tenant_id or found.tenant_id,
            found.actor,
            found.user_id,
            found.channel,
            found.ip_address,
            found.user_agent,
        )


async def record(
    tx: Runs,
    action: str,
    target: str = "",
    *,
    session_id: UUID | str | None = None,
    tenant_id: UUID | None = None,
    who: Who | None = None,
    payload: Mapping[str, Any] | None = None,
) -> None:
    """Put on record what is done in this transaction.

    Args:
        tx: The transaction, with the queries of this module among its own.
        action: What is done, dotted, such as `admin.provider_delete`.
        target: What it is done to, such as `provider:acme`: an id of ours, never a person's words.
        session_id: The session in which it is done.
        tenant_id: The tenant in which it is done. None means the caller's.
        who: Who does it. None means the caller, else the system.
        payload: What else is known, without secrets. It can be erased.
    """
    by = who or Who.current(tenant_id)
    message = {
        "record_id": str(new_id()),
        "user_id": str(by.user_id or ""),
        "actor": by.actor,
        "action": action,
        "target": target,
        "session_id": str(session_id or ""),
        "channel": by.channel,
        "ip_address": by.ip_address,
        "user_agent": by.user_agent,
        "payload": dict(payload or {}),
        "create_time": datetime.now(UTC).isoformat(),
    }
    await tx.run("insert_audit_record", tenant_id=tenant_id or by.tenant_id, record=_document(message))


def _document(message: dict[str, Any]) -> str:
    text = json.dumps(keepable(message))
    if len(text) > MAX_PAYLOAD:
        message["payload"] = {"left_out": f"{len(text)} bytes, which is more than a record holds"}
        text = json.dumps(keepable(message))
    return text
