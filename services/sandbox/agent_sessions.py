"""The agent's sessions: one for each of ours, made once, and deleted with it.

The agent has its own name for each. It may be made ahead of the first turn, so that the turn does not wait for it.
"""

import asyncio
from uuid import UUID

from services.kit import telemetry
from services.sandbox.live import Live
from services.sandbox.opencode import OpencodeError
from services.sandbox.sandbox import SandboxStartFailed
from services.sandbox.store import Store


async def agent_session(store: Store, live: Live, session_id: UUID) -> str:
    """The agent's name of our session. Whoever asks while it is made waits for the same one.

    Raises:
        SandboxStartFailed: The agent does not answer.
    """
    return await asyncio.shield(_asked_once(store, live, session_id))


def prepare_session(store: Store, live: Live, session_id: UUID) -> None:
    """Have the agent's session made in the background. If that fails, the first turn tries again."""
    _asked_once(store, live, session_id)


def _asked_once(store: Store, live: Live, session_id: UUID) -> asyncio.Task[str]:
    if task := live.sessions.get(session_id):
        return task
    task = asyncio.create_task(_find_or_make(store, live, session_id), name=f"agent-session-{session_id}")
    live.sessions[session_id] = task

    def forget_failure(done: asyncio.Task[str]) -> None:
        if done.cancelled() or done.exception():
            live.sessions.pop(session_id, None)
            telemetry.log().info("agent session not made", session_id=str(session_id), cause=repr(done))

    task.add_done_callback(forget_failure)
    return task


async def _find_or_make(store: Store, live: Live, session_id: UUID) -> str:
    """A new one when the agent does not know the one we do: its volume may have been replaced."""
    sandbox = live.sandbox
    async with store.transaction() as tx:
        name = await tx.find_agent_session(sandbox.tenant_id, session_id, sandbox.id)
    try:
        if name is not None and await live.agent.has_session(name):
            return name
        name = await live.agent.create_session(f"Session {session_id}")
    except OpencodeError as error:
        raise SandboxStartFailed("the agent does not answer", sandboxId=sandbox.id) from error
    async with store.transaction() as tx:
        await tx.save_agent_session(sandbox.tenant_id, session_id, sandbox.id, name)
    return name
