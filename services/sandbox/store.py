"""Sandboxes, agent sessions and runs in PostgreSQL."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from services.kit.ids import new_id
from services.kit.postgres import Database, Row
from services.kit.postgres import Transaction as SqlTransaction
from services.kit.queries import load_queries
from services.sandbox.run import Turn
from services.sandbox.sandbox import Forgotten, Sandbox, SandboxNotFound, SandboxState

QUERIES = load_queries(Path(__file__).with_name("queries.sql"))


class Transaction:
    """One transaction of the store."""

    def __init__(self, sql: SqlTransaction) -> None:
        self._sql = sql

    async def find_or_create_sandbox(self, tenant_id: UUID, user_id: UUID) -> Sandbox:
        """The user's sandbox; made, stopped, when there is none."""
        await self._sql.run("insert_sandbox", id=new_id(), tenant=tenant_id, user=user_id)
        row = await self._sql.one("find_sandbox_of_user", tenant=tenant_id, user=user_id)
        if row is None:
            raise SandboxNotFound("the sandbox is gone", userId=user_id)
        return _sandbox(row)

    async def get_sandbox(self, tenant_id: UUID, sandbox_id: UUID) -> Sandbox:
        """One sandbox of the tenant."""
        row = await self._sql.one("get_sandbox", tenant=tenant_id, id=sandbox_id)
        if row is None:
            raise SandboxNotFound("no sandbox has this id", sandboxId=sandbox_id)
        return _sandbox(row)

    async def list_sandboxes(self, tenant_id: UUID, after: UUID | None, limit: int) -> list[Sandbox]:
        """The sandboxes of the tenant after one of them, oldest first."""
        rows = await self._sql.many("list_sandboxes", tenant=tenant_id, after=after, limit=limit)
        return [_sandbox(row) for row in rows]

    async def save_sandbox(self, sandbox: Sandbox) -> None:
        """Keep where a sandbox stands."""
        await self._sql.run(
            "save_sandbox",
            tenant=sandbox.tenant_id,
            id=sandbox.id,
            state=sandbox.state.value,
            revision=sandbox.runtime_revision,
            start=sandbox.start_time,
        )

    async def forget_processes(self) -> None:
        """Every sandbox is stopped: a service that starts has none that runs."""
        await self._sql.run("stop_sandboxes")

    async def forget_old_runs(self) -> None:
        """Forget runs that nobody will ask for any more."""
        await self._sql.run("delete_old_runs")

    async def begin_run(self, turn: Turn) -> bool:
        """Note that a turn runs; tell whether it is the first time, for a turn runs once."""
        inserted = await self._sql.run(
            "insert_run", tenant=turn.tenant_id, turn=turn.id, sandbox=turn.sandbox_id, session=turn.session_id
        )
        return inserted == 1

    async def find_agent_session(self, tenant_id: UUID, session_id: UUID, sandbox_id: UUID) -> str | None:
        """The agent's name for a session in a sandbox."""
        row = await self._sql.one("find_agent_session", tenant=tenant_id, session=session_id, sandbox=sandbox_id)
        return str(row["agent_session"]) if row else None

    async def save_agent_session(self, tenant_id: UUID, session_id: UUID, sandbox_id: UUID, agent_session: str) -> None:
        """Keep the agent's name for a session in a sandbox."""
        await self._sql.run(
            "save_agent_session", tenant=tenant_id, session=session_id, sandbox=sandbox_id, agent_session=agent_session
        )

    async def forget_agent_session(self, tenant_id: UUID, session_id: UUID) -> None:
        """Note that what agents keep of a session is to be deleted."""
        await self._sql.run("forget_agent_session", tenant=tenant_id, session=session_id)

    async def list_forgotten(self, sandboxes: Sequence[UUID]) -> list[Forgotten]:
        """What is to be deleted in some sandboxes."""
        rows = await self._sql.many("list_forgotten", sandboxes=list(sandboxes))
        return [Forgotten(row["sandbox_id"], row["session_id"], row["agent_session"]) for row in rows]

    async def delete_agent_session(self, forgotten: Forgotten) -> None:
        """Nothing is left of it."""
        await self._sql.run("delete_agent_session", session=forgotten.session_id, sandbox=forgotten.sandbox_id)


class Store:
    """The store of the Sandbox service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction."""
        async with self._database.transaction() as sql:
            yield Transaction(sql)


def _sandbox(row: Row) -> Sandbox:
    return Sandbox(
        id=row["sandbox_id"],
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        state=SandboxState(row["state"]),
        create_time=row["create_time"],
        runtime_revision=row["runtime_revision"],
        start_time=row["start_time"],
    )
