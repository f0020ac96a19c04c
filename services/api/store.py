"""Sessions, turns and the event log in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from services.api.inbox_store import INBOX_QUERIES, Inbox
from services.api.log_store import LOG_QUERIES, Log
from services.api.outbox import Outgoing, Receiver
from services.api.rows import session_of as _session
from services.api.rows import turn_of as _turn
from services.api.session import BusyPolicy, ModelRef, Session, SessionNotFound
from services.api.turn import Event, Turn, TurnNotFound
from services.kit import outbox as audit
from services.kit.caller import Caller
from services.kit.outbox import Who
from services.kit.postgres import Database, Row
from services.kit.postgres import Transaction as SqlTransaction
from services.kit.queries import load_queries

QUERIES = load_queries(Path(__file__).with_name("queries.sql")) | INBOX_QUERIES | LOG_QUERIES | audit.QUERIES


@dataclass(frozen=True)
class NewTurn:
    """A turn to insert."""

    id: UUID
    session: Session
    text: str
    model: ModelRef | None
    request_id: UUID | None


class Transaction:
    """One transaction of the store."""

    def __init__(self, sql: SqlTransaction) -> None:
        self._sql = sql
        self.inbox = Inbox(sql)
        self.log = Log(sql)
        self.sent: set[Receiver] = set()
        self.recorded = False

    async def insert_session(
        self, caller: Caller, session_id: UUID, title: str, model: ModelRef | None, request_id: UUID | None
    ) -> bool:
        """Insert a session; tell whether it is new, which it is not when the request was made before."""
        inserted = await self._sql.run(
            "insert_session",
            id=session_id,
            tenant=caller.tenant_id,
            user=caller.user_id,
            title=title,
            provider=model and model.provider_id,
            model=model and model.model_id,
            request=request_id,
        )
        return inserted == 1

    async def find_session_by_request(self, caller: Caller, request_id: UUID) -> Session:
        """The session that an earlier request made."""
        row = await self._sql.one(
            "find_session_by_request", tenant=caller.tenant_id, user=caller.user_id, request=request_id
        )
        if row is None:
            raise SessionNotFound(request_id)
        return _session(row)

    async def find_session(self, caller: Caller, session_id: UUID) -> Session:
        """A session of the caller."""
        return await self._session_by("find_session", caller, session_id)

    async def lock_session(self, caller: Caller, session_id: UUID) -> Session:
        """A session of the caller, held until the transaction ends."""
        return await self._session_by("lock_session", caller, session_id)

    async def list_sessions(self, caller: Caller, before: tuple[datetime, UUID] | None, limit: int) -> list[Session]:
        """The caller's sessions after a place in the list, the one last used first."""
        time, session_id = before or (None, None)
        rows = await self._sql.many(
            "list_sessions",
            tenant=caller.tenant_id,
            user=caller.user_id,
            before_time=time,
            before_id=session_id,
            limit=limit,
        )
        return [_session(row) for row in rows]

    async def update_session(self, session: Session, title: str, policy: BusyPolicy | None) -> None:
        """Give a session another title, unless it is empty, and another policy, if there is one."""
        await self._sql.run(
            "update_session",
            id=session.id,
            tenant=session.tenant_id,
            user=session.user_id,
            title=title,
            busy_policy=policy and policy.value,
        )

    async def touch_session(self, session: Session, title: str) -> None:
        """Move a session to the front, and give it a title if it has none."""
        await self._sql.run("touch_session", id=session.id, tenant=session.tenant_id, title=title)

    async def delete_session(self, caller: Caller, session_id: UUID) -> None:
        """Remove a session with its turns and their logs."""
        await self._sql.run("delete_session", id=session_id, tenant=caller.tenant_id, user=caller.user_id)

    async def count_live_turns(self, session: Session) -> int:
        """How many turns of a session wait or run."""
        row = await self._sql.one("count_live_turns", session=session.id, tenant=session.tenant_id)
        return int(row["live"]) if row else 0

    async def insert_turn(self, new: NewTurn) -> Turn:
        """Insert a turn. The session must be held, so that turns get their order one at a time."""
        row = await self._sql.one(
            "insert_turn",
            id=new.id,
            tenant=new.session.tenant_id,
            user=new.session.user_id,
            session=new.session.id,
            request=new.request_id,
            text=new.text,
            provider=new.model and new.model.provider_id,
            model=new.model and new.model.model_id,
        )
        if row is None:
            raise TurnNotFound(new.id)
        return _turn(row)

    async def find_turn_by_request(self, session: Session, request_id: UUID) -> Turn | None:
        """The turn that an earlier request made, if one did."""
        row = await self._sql.one(
            "find_turn_by_request", session=session.id, tenant=session.tenant_id, request=request_id
        )
        return _turn(row) if row else None

    async def count_turns_before(self, turn: Turn) -> int:
        """How many turns of the session wait or run before this one."""
        row = await self._sql.one(
            "count_turns_before", session=turn.session_id, tenant=turn.tenant_id, ordinal=turn.ordinal
        )
        return int(row["live"]) if row else 0

    async def find_turn(self, caller: Caller, turn_id: UUID) -> Turn:
        """A turn of the caller."""
        return await self._turn_by("find_turn", turn_id, tenant=caller.tenant_id, user=caller.user_id)

    async def lock_turn(self, caller: Caller, turn_id: UUID) -> Turn:
        """A turn of the caller, held until the transaction ends."""
        return await self._turn_by("lock_turn", turn_id, tenant=caller.tenant_id, user=caller.user_id)

    async def lock_turn_for_work(self, turn_id: UUID) -> Turn:
        """A turn for the worker that has its job, held until the transaction ends."""
        return await self._turn_by("lock_turn_for_work", turn_id)

    async def save_turn(self, turn: Turn) -> None:
        """Write what can change of a turn."""
        await self._sql.run(
            "save_turn",
            id=turn.id,
            tenant=turn.tenant_id,
            state=turn.state.value,
            attempt=turn.attempt,
            token=turn.lease_token,
            start=turn.start_time,
            end=turn.end_time,
            reason=turn.failure_reason,
            message=turn.failure_message,
            abort=turn.abort_requested,
        )

    async def append_events(self, turn_id: UUID, lease_token: str | None, events: Sequence[Event]) -> Turn:
        """Append events to the log, and return the turn as it was just before an ending among them takes effect.

        Raises:
            LeaseLost: The log does not end where the events begin, the turn has ended, or the lease is another's.
        """
        return _turn(await self.log.append(turn_id, lease_token, events))

    async def list_turns(self, session: Session, before: int | None, limit: int) -> list[Turn]:
        """The turns of a session, newest first."""
        rows = await self._sql.many(
            "list_turns", session=session.id, tenant=session.tenant_id, before=before, limit=limit
        )
        return [_turn(row) for row in rows]

    async def list_history(self, session: Session, after: int | None, limit: int) -> list[tuple[Turn, bytes | None]]:
        """The turns of a session with their answers, oldest first."""
        rows = await self._sql.many(
            "list_history", session=session.id, tenant=session.tenant_id, after=after, limit=limit
        )
        return [(_turn(row), row["answer"] and bytes(row["answer"])) for row in rows]

    async def list_live_turns(self) -> list[Turn]:
        """Turns that have lived for a while and whose job is known."""
        return [_turn(row) for row in await self._sql.many("list_live_turns")]

    async def list_running_turns(self) -> list[Turn]:
        """Turns that run."""
        return [_turn(row) for row in await self._sql.many("list_running_turns")]

    async def send(self, outgoing: Outgoing) -> None:
        """Put a message into the outbox; it is on its way as soon as the transaction has committed."""
        await self._sql.run(
            "insert_outbox",
            tenant=outgoing.tenant_id,
            receiver=outgoing.receiver.value,
            message=Jsonb(outgoing.message),
        )
        self.wake(outgoing.receiver)

    async def record(self, who: Who, action: str, target: str, session_id: UUID | None = None, **payload: str) -> None:
        """Put on record what this transaction does."""
        await audit.record(self._sql, action, target, session_id=session_id, who=who, payload=payload)
        self.recorded = True

    def wake(self, receiver: Receiver) -> None:
        """Let whoever brings messages to a receiver look as soon as the transaction has committed."""
        self.sent.add(receiver)

    async def read_outbox(self, receiver: str) -> list[Row]:
        """Messages that wait for a receiver, oldest first."""
        return await self._sql.many("read_outbox", receiver=receiver)

    async def set_aside(self, outbox_id: int) -> None:
        """Keep a message that its receiver refuses, and send it no more."""
        await self._sql.run("set_aside_outbox", id=outbox_id)

    async def delete_outbox(self, ids: Sequence[int]) -> None:
        """Remove messages that were confirmed."""
        await self._sql.run("delete_outbox", ids=list(ids))

    async def _session_by(self, query: str, caller: Caller, session_id: UUID) -> Session:
        row = await self._sql.one(query, id=session_id, tenant=caller.tenant_id, user=caller.user_id)
        if row is None:
            raise SessionNotFound(session_id)
        return _session(row)

    async def _turn_by(self, query: str, turn_id: UUID, **params: Any) -> Turn:
        row = await self._sql.one(query, id=turn_id, **params)
        if row is None:
            raise TurnNotFound(turn_id)
        return _turn(row)


class Store:
    """The store of Api.

    Attributes:
        sent: Set whenever a message for a receiver has been committed to the outbox.
        recorded: Set whenever an audit record has been committed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.sent = {receiver: asyncio.Event() for receiver in Receiver}
        self.recorded = asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction."""
        async with self._database.transaction() as sql:
            transaction = Transaction(sql)
            yield transaction
        for receiver in transaction.sent:
            self.sent[receiver].set()
        if transaction.recorded:
            self.recorded.set()

    async def ready(self) -> None:
        """Return when the database answers, else raise ServiceUnavailable."""
        await self._database.ready()
