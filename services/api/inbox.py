"""The inbox: what users say while a turn runs, and what they do with what waits. A verb, a function, a transaction.

Whoever gives or takes places in line holds the session first, then a turn; nobody does it the other way round.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from services.api import outbox
from services.api.operations import record
from services.api.session import BusyPolicy, ModelRef, NothingToChange, Session, title_from
from services.api.steer import Steer
from services.api.store import NewTurn, Store, Transaction
from services.api.turn import INBOX_LIMIT, InboxFull, Turn
from services.kit.caller import Caller
from services.kit.errors import RequestIdReused
from services.kit.ids import new_id


@dataclass(frozen=True)
class Said:
    """Something that a user says to the agent.

    Attributes:
        model: The model to run on. None means the session's.
        policy: What it does when a turn runs. None means what the session says.
    """

    text: str
    model: ModelRef | None = None
    request_id: UUID | None = None
    policy: BusyPolicy | None = None
    trace_parent: str = ""


@dataclass(frozen=True)
class Prompted:
    """A prompt that is on disk: its turn and its place in line, and the turn that it interrupts."""

    turn: Turn
    position: int
    interrupted: Turn | None = None


async def update_session(
    store: Store, caller: Caller, session_id: UUID, title: str, policy: BusyPolicy | None
) -> Session:
    """Give a session another title, another policy, or both."""
    if not title and policy is None:
        raise NothingToChange
    async with store.transaction() as tx:
        session = await tx.lock_session(caller, session_id)
        await tx.update_session(session, title, policy)
        changed = {"title": title, "busy_policy": policy.value if policy else ""}
        told = {name: value for name, value in changed.items() if value}
        await record(tx, caller, "agent.session_update", f"session:{session_id}", session_id, **told)
        return await tx.find_session(caller, session_id)


async def prompt(store: Store, caller: Caller, session_id: UUID, said: Said) -> Prompted:
    """Take a prompt: turn, job and audit record in one commit. A repeated request id answers with the first turn."""
    async with store.transaction() as tx:
        session = await tx.lock_session(caller, session_id)
        if first := await _said_before(tx, caller, session, said):
            return first
        policy = said.policy or session.busy_policy
        taken = await _take(tx, caller, session, said, policy)
        await tx.touch_session(session, title_from(said.text))
        await record(tx, caller, "agent.prompt", f"turn:{taken.turn.id}", session_id, busy_policy=policy.value)
    return taken


async def _said_before(tx: Transaction, caller: Caller, session: Session, said: Said) -> Prompted | None:
    if said.request_id is None:
        return None
    if steer := await tx.inbox.find_steer_by_request(session, said.request_id):
        turn, same = await tx.find_turn(caller, steer.became_turn_id or steer.turn_id), steer.text == said.text
    elif found := await tx.find_turn_by_request(session, said.request_id):
        turn, same = found, found.model == (said.model or session.model) and (found.reworded or found.text == said.text)
    else:
        return None
    if not same:
        raise RequestIdReused("this request id said something else; use a new one", requestId=said.request_id)
    return Prompted(turn, await tx.count_turns_before(turn))


async def _take(tx: Transaction, caller: Caller, session: Session, said: Said, policy: BusyPolicy) -> Prompted:
    running = await tx.inbox.lock_running(session)
    if policy is BusyPolicy.STEER and running and not running.abort_requested:
        return await _steer(tx, running, said)
    taken = await _queue(tx, session, said)
    return await _interrupt(tx, caller, taken, running) if policy is BusyPolicy.INTERRUPT else taken


async def _queue(tx: Transaction, session: Session, said: Said) -> Prompted:
    position = await tx.count_live_turns(session)
    if position >= INBOX_LIMIT:
        raise InboxFull(session.id)
    turn = await tx.insert_turn(NewTurn(new_id(), session, said.text, said.model or session.model, said.request_id))
    await tx.send(outbox.turn_job(turn, said.trace_parent))
    return Prompted(turn, position)


async def _interrupt(tx: Transaction, caller: Caller, taken: Prompted, running: Turn | None) -> Prompted:
    """Let a prompt run before all that wait, and want the turn that runs to stop."""
    await tx.inbox.move_to_front(taken.turn)
    if running:
        await record(tx, caller, "agent.abort", f"turn:{running.id}", running.session_id)
        await tx.save_turn(replace(running, abort_requested=True))
    turn = await tx.find_turn(caller, taken.turn.id)
    return Prompted(turn, await tx.count_turns_before(turn), running)


async def _steer(tx: Transaction, running: Turn, said: Said) -> Prompted:
    """Keep what is said into the turn that runs; the courier brings it there."""
    if await tx.inbox.count_open_steers(running) >= INBOX_LIMIT:
        raise InboxFull(running.session_id)
    steer = Steer(
        new_id(), running.tenant_id, running.id, running.session_id, said.request_id, said.text, said.trace_parent
    )
    await tx.inbox.insert_steer(steer)
    tx.wake(outbox.Receiver.SANDBOX)
    return Prompted(running, 0)


async def list_inbox(store: Store, caller: Caller, session_id: UUID, after: int | None, limit: int) -> list[Turn]:
    """List the turns of a session that run or wait, in the order in which they run."""
    async with store.transaction() as tx:
        return await tx.inbox.page(await tx.find_session(caller, session_id), after, limit)


async def reword_turn(store: Store, caller: Caller, turn_id: UUID, text: str) -> Turn:
    """Say what a waiting turn says in other words. Whether it still waits, the lock of its row decides."""
    async with store.transaction() as tx:
        turn = await tx.lock_turn(caller, turn_id)
        turn.check_waits()
        await record(tx, caller, "agent.prompt_update", f"turn:{turn.id}", turn.session_id)
        return await tx.inbox.reword(turn, text)


async def save_job(store: Store, tenant_id: UUID, session_id: UUID, ticket: UUID, job_id: UUID, message: int) -> None:
    """Keep the job of a place in line, and forget the message that asked for it."""
    async with store.transaction() as tx:
        await tx.inbox.save_job(session_id, tenant_id, ticket, job_id)
        await tx.delete_outbox([message])


async def cancel_job(store: Store, caller: Caller, job_id: UUID) -> None:
    """Want the turn that a job runs to stop before the next one begins. Queue cancels the job, and records that."""
    async with store.transaction() as tx:
        if await tx.inbox.stop_turn_of_job(caller.tenant_id, job_id):
            await record(tx, caller, "agent.abort", f"job:{job_id}", None)
            tx.wake(outbox.Receiver.SANDBOX)


async def list_open_steers(store: Store) -> list[Steer]:
    """List what was said into turns and has yet to be delivered."""
    async with store.transaction() as tx:
        return await tx.inbox.list_open_steers()


async def list_aborting(store: Store) -> list[UUID]:
    """List the turns that run and are to stop."""
    async with store.transaction() as tx:
        return await tx.inbox.list_aborting()


async def steer_delivered(store: Store, steer: Steer) -> None:
    """The agent has what was said."""
    async with store.transaction() as tx:
        await tx.inbox.save_delivery(steer)


async def steers_were_late(store: Store, steers: Sequence[Steer]) -> None:
    """A turn ended before the agent had what was said into it: each is a turn of its own now, before all that wait."""
    async with store.transaction() as tx:
        session = await tx.inbox.hold_session(steers[0].session_id)
        # The last first: each goes before all, so the first said is the first to run.
        for steer in reversed(steers):
            if await tx.inbox.lock_open(steer):
                turn = await tx.insert_turn(NewTurn(new_id(), session, steer.text, session.model, steer.request_id))
                await tx.send(outbox.turn_job(turn, steer.trace_parent))
                await tx.inbox.move_to_front(turn)
                await tx.inbox.save_outcome(steer, turn)
