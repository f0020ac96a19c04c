"""The inbox in PostgreSQL: what waits, in which order, and what was said into running turns."""

from pathlib import Path
from uuid import UUID

from services.api.rows import session_of, turn_of
from services.api.session import Session, SessionNotFound
from services.api.steer import Steer
from services.api.turn import Turn, TurnNotFound
from services.kit.postgres import Row, Transaction
from services.kit.queries import load_queries

INBOX_QUERIES = load_queries(Path(__file__).with_name("inbox_queries.sql"))


class Inbox:
    """The inbox within one transaction."""

    def __init__(self, sql: Transaction) -> None:
        self._sql = sql

    async def page(self, session: Session, after: int | None, limit: int) -> list[Turn]:
        """The turns of a session that run or wait, in the order in which they run."""
        rows = await self._sql.many(
            "list_inbox", session=session.id, tenant=session.tenant_id, after=after, limit=limit
        )
        return [turn_of(row) for row in rows]

    async def lock_running(self, session: Session) -> Turn | None:
        """The turn that runs, held until the transaction ends."""
        row = await self._sql.one("lock_running_turn", session=session.id, tenant=session.tenant_id)
        return turn_of(row) if row else None

    async def hold_session(self, session_id: UUID) -> Session:
        """A session whoever's it is, held so that its places do not change hands."""
        row = await self._sql.one("hold_session", id=session_id)
        if row is None:
            raise SessionNotFound(session_id)
        return session_of(row)

    async def lock_turn_of_ticket(self, ticket: UUID) -> Turn:
        """The turn that has a place, held with its session until the transaction ends.

        The session comes first: whoever waited for the turn alone could find that its place has changed hands.
        """
        row = await self._sql.one("find_session_of_ticket", ticket=ticket)
        if row and await self._sql.one("hold_session", id=row["session_id"]):
            row = await self._sql.one("lock_turn_of_ticket", ticket=ticket)
            if row:
                return turn_of(row)
        raise TurnNotFound(ticket)

    async def move_to_front(self, turn: Turn) -> None:
        """Let a turn run before all that wait. The session must be held."""
        await self._sql.run("move_to_front", id=turn.id, session=turn.session_id, tenant=turn.tenant_id)

    async def reword(self, turn: Turn, text: str) -> Turn:
        """Let a turn say something else."""
        row = await self._sql.one("reword_turn", id=turn.id, tenant=turn.tenant_id, text=text)
        if row is None:
            raise TurnNotFound(turn.id)
        return turn_of(row)

    async def save_job(self, session_id: UUID, tenant_id: UUID, ticket: UUID, job_id: UUID) -> None:
        """Keep the id of a place's job. A session that is gone has no places."""
        await self._sql.one("hold_session", id=session_id)
        await self._sql.run("save_job", ticket=ticket, tenant=tenant_id, job=job_id)

    async def stop_turn_of_job(self, tenant_id: UUID, job_id: UUID) -> bool:
        """Want the turn that a job runs to stop; tell whether it runs one."""
        return await self._sql.one("stop_turn_of_job", tenant=tenant_id, job=job_id) is not None

    async def list_aborting(self) -> list[UUID]:
        """The turns that run and are to stop."""
        return [row["turn_id"] for row in await self._sql.many("list_aborting_turns")]

    async def insert_steer(self, steer: Steer) -> None:
        """Keep what was said into a turn."""
        await self._sql.run(
            "insert_steer",
            id=steer.id,
            tenant=steer.tenant_id,
            turn=steer.turn_id,
            session=steer.session_id,
            request=steer.request_id,
            text=steer.text,
            trace_parent=steer.trace_parent,
        )

    async def find_steer_by_request(self, session: Session, request_id: UUID) -> Steer | None:
        """What an earlier request said into a turn, if one did."""
        row = await self._sql.one(
            "find_steer_by_request", session=session.id, tenant=session.tenant_id, request=request_id
        )
        return _steer(row) if row else None

    async def count_open_steers(self, turn: Turn) -> int:
        """How much of what was said into a turn is on its way."""
        row = await self._sql.one("count_open_steers", turn=turn.id, tenant=turn.tenant_id)
        return int(row["open"]) if row else 0

    async def list_open_steers(self) -> list[Steer]:
        """What has yet to be delivered, in the order in which it was said."""
        return [_steer(row, late=row["late"]) for row in await self._sql.many("list_open_steers")]

    async def save_delivery(self, steer: Steer) -> None:
        """The agent has it."""
        await self._sql.run("save_delivery", id=steer.id)

    async def save_outcome(self, steer: Steer, turn: Turn) -> None:
        """It is a turn of its own."""
        await self._sql.run("save_outcome", id=steer.id, turn=turn.id)

    async def lock_open(self, steer: Steer) -> bool:
        """Whether it has yet to be delivered; if so, it is held until the transaction ends."""
        return await self._sql.one("lock_open_steer", id=steer.id) is not None


def _steer(row: Row, *, late: bool = False) -> Steer:
    return Steer(
        id=row["steer_id"],
        tenant_id=row["tenant_id"],
        turn_id=row["turn_id"],
        session_id=row["session_id"],
        request_id=row["request_id"],
        text=row["text"],
        trace_parent=row["trace_parent"],
        became_turn_id=row["became_turn_id"],
        late=late,
    )
