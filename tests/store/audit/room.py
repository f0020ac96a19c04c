"""Audit on a real database without a wire: what the tests of its seals share."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg

from services.audit import operations
from services.audit.__main__ import Room, furnish
from services.audit.damage import Report
from services.audit.record import Record
from services.audit.settings import AuditSettings
from services.audit.store import QUERIES, SCHEMA, Store
from services.kit.postgres import Database
from services.kit.tenancy import SYSTEM
from tests.postgres import as_service

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ALICE, BOB = UUID(int=1), UUID(int=2)
ONE, TWO = UUID(int=11), UUID(int=12)


@dataclass
class Rig:
    """Audit, its home, and a connection of somebody who owns the database and may do anything to it."""

    room: Room
    home: Path
    url: str
    attacker: psycopg.Connection

    async def append(self, *records: Record) -> None:
        """Append records."""
        await operations.append_records(self.room.store, records)

    async def fill(self, count: int = 10, tenants: Sequence[UUID] = (ONE, TWO)) -> None:
        """Append some to each tenant, with a checkpoint in the middle and one at the end, all published."""
        for half in range(2):
            for tenant in tenants:
                await self.append(*(a_record(tenant, half * count + number) for number in range(count // 2)))
            await self.checkpoint()

    async def checkpoint(self) -> None:
        """Make a checkpoint and publish it."""
        await self.room.notary.make()
        for place in self.room.notary.places:
            while await self.room.notary.publish(place):
                pass

    async def verify(self, tenant: UUID | None = None, *, full: bool = True) -> Report:
        """Verify."""
        return await self.room.verifier.verify(tenant, lambda _: None, full=full)

    async def found(self, *, full: bool = True) -> set[str]:
        """The names of the damage."""
        return {damage.kind.name for damage in (await self.verify(full=full)).damages}

    def tamper(self, *statements: str) -> None:
        """Do something to the database that no service may do."""
        for table in ("record", "body", "head", "checkpoint", "checkpoint_head"):
            self.attacker.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
        for statement in statements:
            assert self.attacker.execute(statement.encode()).rowcount != 0, statement
        for table in ("record", "body", "head", "checkpoint", "checkpoint_head"):
            self.attacker.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER".encode())


def a_record(tenant: UUID = ONE, number: int = 0, user: UUID = ALICE, action: str = "agent.prompt") -> Record:
    """A record with something in every field."""
    return Record(
        tenant_id=tenant,
        record_id=uuid4(),
        actor=f"user:{user}",
        action=action,
        create_time=NOON + timedelta(seconds=number),
        user_id=user if number % 2 == 0 else BOB,
        target=f"turn:{number}",
        session_id=f"s{number}",
        channel="rest",
        ip_address="10.0.0.1",
        user_agent="curl/8",
        duration=timedelta(milliseconds=number) if number % 3 else None,
        payload={"number": number, "text": "grüße"},
    )


@asynccontextmanager
async def rig_on(url: str, home: Path) -> AsyncIterator[Rig]:
    """Audit on a database, with a home."""
    superuser = "-c search_path=audit,public"
    with psycopg.connect(url, options=superuser, autocommit=True) as attacker:
        # The owner took these from itself; whoever owns the server takes them back.
        attacker.execute("GRANT ALL ON ALL TABLES IN SCHEMA audit TO CURRENT_USER")
        async with Database(as_service(url, SCHEMA), SCHEMA, QUERIES) as database:
            yield Rig(furnish(AuditSettings(home=home), Store(database, SYSTEM)), home, url, attacker)
