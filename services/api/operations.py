"""What clients may do: one verb, one function, one transaction."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.api import outbox
from services.api.session import ModelRef, Session, SessionBusy
from services.api.store import Store, Transaction
from services.api.turn import (
    Ending,
    Event,
    Lease,
    LeaseLost,
    SequenceGap,
    Turn,
    TurnEnded,
    TurnState,
)
from services.kit.caller import Caller
from services.kit.errors import RequestIdReused
from services.kit.ids import new_id
from services.kit.outbox import Who

Answer = Callable[[Turn, list[bytes]], bytes]
"""Makes the agent's message out of the events of a turn, both as the contract's bytes."""

EndingEvent = Callable[[UUID, int, Ending], Event]
"""Makes the terminal event with a number: the contract's bytes are not this module's business."""


async def create_session(
    store: Store, caller: Caller, title: str, model: ModelRef | None, request_id: UUID | None
) -> Session:
    """Make a session; asking twice with the same request id makes one."""
    async with store.transaction() as tx:
        session_id = new_id()
        if not await tx.insert_session(caller, session_id, title, model, request_id):
            return await _first_session(tx, caller, title, model, request_id)
        await record(tx, caller, "agent.session_create", f"session:{session_id}", session_id)
        return await tx.find_session(caller, session_id)


async def _first_session(
    tx: Transaction, caller: Caller, title: str, model: ModelRef | None, request_id: UUID | None
) -> Session:
    session = await tx.find_session_by_request(caller, request_id or UUID(int=0))
    # The title may have come from the first prompt since.
    if session.model != model or (title and session.title != title):
        raise RequestIdReused("this request id made another session; use a new one", requestId=request_id)
    return session


async def get_session(store: Store, caller: Caller, session_id: UUID) -> Session:
    """Read a session."""
    async with store.transaction() as tx:
        return await tx.find_session(caller, session_id)


async def list_sessions(
    store: Store, caller: Caller, before: tuple[datetime, UUID] | None, limit: int
) -> list[Session]:
    """List the caller's sessions."""
    async with store.transaction() as tx:
        return await tx.list_sessions(caller, before, limit)


async def delete_session(store: Store, caller: Caller, session_id: UUID) -> None:
    """Delete a session with all that was said in it."""
    async with store.transaction() as tx:
        session = await tx.lock_session(caller, session_id)
        if await tx.count_live_turns(session):
            raise SessionBusy(session_id)
        await tx.delete_session(caller, session_id)
        await tx.send(outbox.forget(session.tenant_id, session_id))
        await record(tx, caller, "agent.session_delete", f"session:{session_id}", session_id)


async def list_history(
    store: Store, caller: Caller, session_id: UUID, after: int | None, limit: int, answer_of: Answer
) -> list[tuple[Turn, bytes | None]]:
    """List the turns of a session, oldest first, with what the agent said in each that has ended.

    An answer is made from the log when it is first read, and kept.
    """
    async with store.transaction() as tx:
        session = await tx.find_session(caller, session_id)
        history = await tx.list_history(session, after, limit)
        return [(turn, answer or await _make_answer(tx, turn, answer_of)) for turn, answer in history]


async def _make_answer(tx: Transaction, turn: Turn, answer_of: Answer) -> bytes | None:
    if not turn.ended:
        return None
    answer = answer_of(turn, [data for _, data in await tx.log.read(turn.id, 0, turn.last_sequence)])
    await tx.log.save_answer(turn, answer)
    return answer


async def get_turn(store: Store, caller: Caller, turn_id: UUID) -> Turn:
    """Read a turn."""
    async with store.transaction() as tx:
        return await tx.find_turn(caller, turn_id)


async def list_turns(store: Store, caller: Caller, session_id: UUID, before: int | None, limit: int) -> list[Turn]:
    """List the turns of a session, newest first."""
    async with store.transaction() as tx:
        session = await tx.find_session(caller, session_id)
        return await tx.list_turns(session, before, limit)


async def abort_turn(store: Store, caller: Caller, turn_id: UUID, event_of: EndingEvent) -> tuple[Turn, list[Event]]:
    """Want a turn to stop. One that waits ends here; one that runs is stopped by its worker, whom the log tells.

    Returns:
        The turn, and the events that this added to its log.
    """
    async with store.transaction() as tx:
        turn = await tx.lock_turn(caller, turn_id)
        if turn.ended:
            return turn, []
        await record(tx, caller, "agent.abort", f"turn:{turn.id}", turn.session_id)
        if turn.state is TurnState.QUEUED:
            return await _end_here(tx, turn, Ending(TurnState.ABORTED), event_of)
        turn = replace(turn, abort_requested=True)
        await tx.save_turn(turn)
        return turn, []


async def record_reply(store: Store, caller: Caller, turn_id: UUID, permission_id: str, reply: str) -> Turn:
    """Put an answer to a permission on record, before it goes to the agent."""
    async with store.transaction() as tx:
        turn = await tx.lock_turn(caller, turn_id)
        if turn.ended:
            raise TurnEnded(turn_id)
        action = "tool.permission_deny" if reply == "reject" else "tool.permission_grant"
        await record(tx, caller, action, f"turn:{turn.id}", turn.session_id, permission_id=permission_id, reply=reply)
        return turn


async def record_denied_reply(store: Store, caller: Caller, turn_id: UUID, permission_id: str) -> None:
    """Put on record that an answer was not let through: it would have allowed what the caller may not use."""
    async with store.transaction() as tx:
        told = {"permission_id": permission_id, "reason": "PERMISSION_DENIED"}
        await record(tx, caller, "auth.denied", f"turn:{turn_id}", None, **told)


async def record_action(store: Store, caller: Caller, action: str, target: str) -> None:
    """Put on record what the caller is about to have another service do."""
    async with store.transaction() as tx:
        await record(tx, caller, action, target, None)


async def open_log(store: Store, ticket: UUID, lease: Lease) -> Turn:
    """Make the holder of a lease the writer of the log of the turn that has its place in line.

    From now on the turn runs, so its place cannot change hands any more. A turn that has ended stays as it is.
    """
    async with store.transaction() as tx:
        turn = await tx.inbox.lock_turn_of_ticket(ticket)
        if turn.ended:
            return turn
        turn = turn.open_by(lease, _now())
        await tx.save_turn(turn)
        return turn


async def read_for_work(store: Store, turn_id: UUID) -> Turn:
    """Read a turn for its worker, whoever's it is."""
    async with store.transaction() as tx:
        return await tx.lock_turn_for_work(turn_id)


async def append_events(store: Store, turn_id: UUID, lease_token: str, events: list[Event]) -> Turn:
    """Write events to the log; an ending among them ends the turn in the same commit.

    Raises:
        TurnEnded: It was ended meanwhile, and not by its worker: what still runs of it has to be stopped.
        LeaseLost: Another worker writes the log.
    """
    async with store.transaction() as tx:
        try:
            turn = await tx.append_events(turn_id, lease_token, events)
        except LeaseLost:
            if (await tx.lock_turn_for_work(turn_id)).ended:
                raise TurnEnded(turn_id) from None
            raise
        for used in (event.used for event in events if event.used):
            told = {"tool": used.tool, "outcome": used.outcome}
            await tx.record(_agent(turn), "tool.execute", f"turn:{turn.id}", turn.session_id, **told)
        if ending := events[-1].ending:
            turn = await _end(tx, turn, ending)
    return turn


async def renew_partitions(store: Store, months: int, retention: timedelta) -> tuple[int, int]:
    """Make the log's partitions of this and the coming months and drop the old ones; tell how many of each."""
    async with store.transaction() as tx:
        if not await tx.log.keep_house():
            return 0, 0
        made = [await tx.log.make_partition(month) for month in range(months + 1)]
        return sum(made), await tx.log.drop_partitions(retention)


async def compact_one(store: Store, answer_of: Answer) -> bool:
    """Compact the log of one turn that has ended; tell whether there was one."""
    async with store.transaction() as tx:
        if not await tx.log.keep_house() or not (turn_id := await tx.log.find_ended()):
            return False
        turn = await tx.lock_turn_for_work(turn_id)
        events = await tx.log.read(turn_id, 0, turn.last_sequence)
        # In a thread: a long turn takes a while, and the readers of others do not wait for it.
        answer = await asyncio.to_thread(answer_of, turn, [data for _, data in events])
        await tx.log.compact(turn, events, answer)
    return True


async def fail_turn(store: Store, failed: Turn, ending: Ending, event_of: EndingEvent) -> list[Event]:
    """End a turn that no worker will end any more, and return the events that this added to its log.

    A turn that has another job by now, since it changed places, is left alone.
    """
    async with store.transaction() as tx:
        turn = await tx.lock_turn_for_work(failed.id)
        if turn.ended or turn.job_id != failed.job_id:
            return []
        return (await _end_here(tx, turn, ending, event_of))[1]


async def refuse_turn(store: Store, turn_id: UUID, ending: Ending, event_of: EndingEvent) -> tuple[Turn, list[Event]]:
    """End a turn whose user may not have it run any more, whoever runs it.

    Returns:
        The turn, and the events that this added to its log.
    """
    async with store.transaction() as tx:
        turn = await tx.lock_turn_for_work(turn_id)
        return (turn, []) if turn.ended else await _end_here(tx, turn, ending, event_of)


def next_events(last_sequence: int, events: list[Event]) -> list[Event]:
    """The events that a log lacks, out of a batch that may begin with what it has.

    Raises:
        SequenceGap: The batch begins after where the log ends, or has a gap itself.
    """
    fresh = [event for event in events if event.sequence > last_sequence]
    for expected, event in enumerate(fresh, start=last_sequence + 1):
        if event.sequence != expected:
            raise SequenceGap(expected, event.sequence)
    return fresh


async def _end_here(tx: Transaction, turn: Turn, ending: Ending, event_of: EndingEvent) -> tuple[Turn, list[Event]]:
    event = event_of(turn.id, turn.last_sequence + 1, ending)
    turn = await tx.append_events(turn.id, turn.lease_token, [event])
    return await _end(tx, turn, ending), [event]


async def _end(tx: Transaction, turn: Turn, ending: Ending) -> Turn:
    turn = turn.end(ending, _now())
    await tx.save_turn(turn)
    told = {"state": turn.state.value, "reason": turn.failure_reason or ""}
    await tx.record(_agent(turn), "agent.complete", f"turn:{turn.id}", turn.session_id, **told)
    # What was said into it and has not arrived is a turn of its own from now on.
    tx.wake(outbox.Receiver.SANDBOX)
    return turn


def _agent(turn: Turn) -> Who:
    """The agent of a turn, which acts for its user."""
    return Who(turn.tenant_id, f"agent:{turn.session_id}", turn.user_id)


async def record(
    tx: Transaction, caller: Caller, action: str, target: str, session_id: UUID | None, **payload: str
) -> None:
    """Put on record what the caller does, in the transaction that does it."""
    await tx.record(Who.of(caller), action, target, session_id, **payload)


def _now() -> datetime:
    return datetime.now(UTC)
