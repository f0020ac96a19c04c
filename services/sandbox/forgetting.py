"""Deletes what agents keep of sessions that were deleted, as soon as their sandboxes run, until it is gone."""

import asyncio
from contextlib import suppress
from uuid import UUID

from services.kit import telemetry
from services.kit.errors import DomainError
from services.sandbox.fleet import Fleet
from services.sandbox.live import Live
from services.sandbox.opencode import OpencodeError
from services.sandbox.sandbox import Forgotten
from services.sandbox.store import Store

SWEEP_SECONDS = 15.0


class Forgetting:
    """Forgets sessions. What is to be forgotten is on disk, so that no restart keeps it.

    Args:
        store: Where it is noted.
        fleet: The sandboxes that run.
    """

    def __init__(self, store: Store, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet
        self._wanted = asyncio.Event()

    async def forget(self, tenant_id: UUID, session_id: UUID) -> None:
        """Note that a session is to be forgotten, and set out to do so."""
        for live in self._fleet.running():
            # What is being made just now is noted first, or it would stay.
            if making := live.sessions.get(session_id):
                await asyncio.wait([making])
        async with self._store.transaction() as tx:
            await tx.forget_agent_session(tenant_id, session_id)
        self._fleet.forget_runs_of(session_id)
        self._wanted.set()

    async def run(self) -> None:
        """Delete for ever."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), SWEEP_SECONDS)
            self._wanted.clear()
            try:
                await self.sweep()
            except Exception as error:  # noqa: BLE001 - the next round may go well, and what is noted stays noted
                telemetry.log().warning("sessions not forgotten yet", cause=repr(error))

    async def sweep(self) -> None:
        """Delete what can be deleted now."""
        running = {live.sandbox.id: live for live in self._fleet.running()}
        if not running:
            return
        async with self._store.transaction() as tx:
            waiting = await tx.list_forgotten(list(running))
        for forgotten in waiting:
            try:
                await self._delete(running[forgotten.sandbox_id], forgotten)
            except (OpencodeError, DomainError) as error:
                name = str(forgotten.session_id)
                telemetry.log().info("session not forgotten yet", session_id=name, cause=str(error))

    async def _delete(self, live: Live, forgotten: Forgotten) -> None:
        await live.agent.delete_session(forgotten.agent_session)
        live.sessions.pop(forgotten.session_id, None)
        async with self._store.transaction() as tx:
            await tx.delete_agent_session(forgotten)
