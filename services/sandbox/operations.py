"""The verbs of the room: claim and stop sandboxes, run, steer and stop turns, answer permissions."""

import asyncio
from uuid import UUID

from services.kit.errors import ServiceUnavailable
from services.sandbox.agent_sessions import agent_session, prepare_session
from services.sandbox.ceiling import Ceiling
from services.sandbox.driving import TurnDriver
from services.sandbox.event import Failed, Reply, Started
from services.sandbox.fleet import Fleet
from services.sandbox.imposing import impose
from services.sandbox.live import Live
from services.sandbox.opencode import OpencodeError
from services.sandbox.patience import Patience
from services.sandbox.run import Run, RunLost, SessionBusy, Turn, TurnEnded
from services.sandbox.sandbox import RuntimeNotApplied, Sandbox
from services.sandbox.steering import Voice
from services.sandbox.store import Store

_UNKNOWN_MODEL = Failed("MODEL_NOT_FOUND", "The applied runtime does not know this model. Choose one of its models.")


async def claim_sandbox(
    store: Store, fleet: Fleet, tenant_id: UUID, user_id: UUID, session_id: UUID | None = None
) -> Sandbox:
    """The user's sandbox, running. The agent is told in the background of a session that will soon have a turn."""
    async with store.transaction() as tx:
        sandbox = await tx.find_or_create_sandbox(tenant_id, user_id)
    live = await fleet.ensure(sandbox)
    if session_id:
        prepare_session(store, live, session_id)
    return live.sandbox


async def get_sandbox(store: Store, tenant_id: UUID, sandbox_id: UUID) -> Sandbox:
    """One sandbox."""
    async with store.transaction() as tx:
        return await tx.get_sandbox(tenant_id, sandbox_id)


async def list_sandboxes(store: Store, tenant_id: UUID, after: UUID | None, limit: int) -> list[Sandbox]:
    """The sandboxes of a tenant after one of them, oldest first."""
    async with store.transaction() as tx:
        return await tx.list_sandboxes(tenant_id, after, limit)


async def stop_sandbox(store: Store, fleet: Fleet, tenant_id: UUID, sandbox_id: UUID) -> Sandbox:
    """The sandbox, stopped."""
    sandbox = await get_sandbox(store, tenant_id, sandbox_id)
    await fleet.stop(sandbox.id)
    return await get_sandbox(store, tenant_id, sandbox_id)


async def run_turn(store: Store, fleet: Fleet, patience: Patience, turn: Turn, after: int) -> Run:
    """The run of a turn: the one there is, or a new one when nothing of it was seen before."""
    run = fleet.runs.get(turn.id)
    if run is None:
        if after > 0:
            raise RunLost("the run of this turn is not known any more", turnId=turn.id)
        run = fleet.runs[turn.id] = Run(turn)
        # Whoever asked may go away; the run begins all the same, and who asks next joins it.
        begin = asyncio.create_task(_begin(store, fleet, patience, run), name=f"begin-{turn.id}")
        await asyncio.shield(begin)
    if run.turn.tenant_id != turn.tenant_id:
        raise RunLost("the run of this turn is not known", turnId=turn.id)
    return run


async def abort_turn(fleet: Fleet, turn_id: UUID) -> None:
    """Stop a run. One that has ended stays as it is."""
    run = _run(fleet, turn_id)
    run.abort_requested = True
    if driver := _driver(fleet, run):
        await driver.abort()


async def steer_turn(fleet: Fleet, turn_id: UUID, request_id: UUID, text: str) -> None:
    """Say something into a run, once. What was taken belongs to the turn, even if the answer to this call was lost."""
    run = _run(fleet, turn_id)
    await run.begun()
    if request_id in run.steered:
        return
    driver = _driver(fleet, run)
    if driver is None:
        raise TurnEnded("the turn has ended", turnId=turn_id)
    await driver.steer(request_id, text)


async def reply_permission(
    fleet: Fleet, turn_id: UUID, permission_id: str, reply: Reply, message: str, ceiling: Ceiling
) -> None:
    """Answer a permission that a run waits for. Who asks again because the answer was lost gets the same.

    What the user may not use by now, or could not when the turn began, no answer allows.
    """
    run = _run(fleet, turn_id)
    if run.replies.get(permission_id) is reply:
        return
    driver = _driver(fleet, run)
    if driver is None:
        raise run.no_such_permission(permission_id)
    try:
        await driver.reply(permission_id, reply, message, ceiling)
    except OpencodeError as error:
        # It may have died this moment; then the turn ends, and a next try is told so.
        raise ServiceUnavailable(
            "the agent does not answer just now; try again in a moment", service="sandbox"
        ) from error


def _run(fleet: Fleet, turn_id: UUID) -> Run:
    if run := fleet.runs.get(turn_id):
        return run
    raise RunLost("the run of this turn is not known", turnId=turn_id)


def _driver(fleet: Fleet, run: Run) -> TurnDriver | None:
    live = fleet.live(run.turn.sandbox_id)
    return live.driver_of(run) if live else None


async def _begin(store: Store, fleet: Fleet, patience: Patience, run: Run) -> None:
    """Begin a run. A refusal reaches everybody who reads it, and leaves no trace."""
    try:
        sandbox = await get_sandbox(store, run.turn.tenant_id, run.turn.sandbox_id)
        live = await fleet.ensure(sandbox)
        _require_quiet(live, run.turn)
        await _drive(store, fleet, live, patience, run)
    except Exception as error:
        fleet.runs.pop(run.turn.id, None)
        run.refuse(error)
        raise


def _require_quiet(live: Live, turn: Turn) -> None:
    if any(active.run.turn.session_id == turn.session_id for active in live.active.values()):
        raise SessionBusy("another turn of this session runs", sessionId=turn.session_id)


async def _drive(store: Store, fleet: Fleet, live: Live, patience: Patience, run: Run) -> None:
    turn = run.turn
    model = turn.model or live.bundle.default_model
    if model is None:
        raise RuntimeNotApplied("the applied runtime has no model; add a provider and apply: oiab provider add")
    known = live.bundle.has(model)
    session = await agent_session(store, live, turn.session_id) if known else ""
    agent_name = live.bundle.agent_for(model)
    switches = await impose(live, session, agent_name, turn.ceiling) if known else {}
    # The last thing that can go wrong: from here on the turn has run, and ends with an event of its own.
    await _note_beginning(store, fleet, turn)
    run.append(Started(model.provider_id, model.model_id))
    if not known:
        run.append(_UNKNOWN_MODEL)
        return
    voice = Voice(live.agent, session, model, agent_name, switches)
    live.start(run, TurnDriver(run, voice, live.hub, patience))


async def _note_beginning(store: Store, fleet: Fleet, turn: Turn) -> None:
    """Note on disk that a turn runs, which it does once."""
    try:
        async with store.transaction() as tx:
            first = await tx.begin_run(turn)
    except ServiceUnavailable:
        # The commit may be on disk all the same. That the turn did not run, this process knows.
        fleet.unsure.add(turn.id)
        raise
    if not first and turn.id not in fleet.unsure:
        raise RunLost("this turn ran before, and its run is not known any more", turnId=turn.id)
    fleet.unsure.discard(turn.id)
