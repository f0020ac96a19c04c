"""Brings to the sandbox what users want of turns that run: what they said into them, and that they are to stop.

Both are on disk before their users hear that they were taken. What a crash, a cut or a sandbox that is away left behind
is found again, and the sandbox knows each message by its own id, so that saying it twice says it once.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from uuid import UUID

import grpc
from orginabox.sandbox.v1 import sandbox_service_pb2, sandbox_service_pb2_grpc

from services.api import inbox
from services.api.abort import abort_run
from services.api.outbox import Receiver
from services.api.session import SessionNotFound
from services.api.steer import Steer
from services.api.store import Store
from services.kit import telemetry
from services.kit.errors import ServiceUnavailable
from services.kit.status import reason_of
from services.kit.tenancy import as_tenant

POLL_SECONDS = 1.0
SOON_SECONDS = 0.2
"""How soon to try again while something is on its way: a run that is about to begin, a turn that is about to end."""
STEER_SECONDS = 10.0

_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


class Arrived(Enum):
    """Whether the agent has what was said."""

    YES = "yes"
    NOT_YET = "not yet"
    TOO_LATE = "too late"


class Courier:
    """Brings messages to the turns that run."""

    def __init__(self, store: Store, sandboxes: sandbox_service_pb2_grpc.SandboxServiceStub) -> None:
        self._store = store
        self._sandboxes = sandboxes
        # A turn whose sandbox does not answer must not delay the others.
        self._going: dict[UUID, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Bring for ever."""
        wanted, wait = self._store.sent[Receiver.SANDBOX], SOON_SECONDS
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await wanted.wait()
            wanted.clear()
            try:
                steers = await inbox.list_open_steers(self._store)
                aborting = await inbox.list_aborting(self._store)
            except ServiceUnavailable as error:
                telemetry.log().warning("courier waits", cause=str(error))
                continue
            self._go(steers, aborting)
            wait = SOON_SECONDS if steers else POLL_SECONDS

    def _go(self, steers: Sequence[Steer], aborting: Sequence[UUID]) -> None:
        """Set out to each turn that somebody wants something of, where nobody is under way to it.

        Most that should stop have been told already; stopping twice is stopping once.
        """
        said: dict[UUID, list[Steer]] = {turn_id: [] for turn_id in aborting}
        for steer in steers:
            said.setdefault(steer.turn_id, []).append(steer)
        for turn_id in said.keys() - self._going.keys():
            task = asyncio.create_task(self._visit(turn_id, said[turn_id], abort=turn_id in aborting))
            self._going[turn_id] = task
            task.add_done_callback(lambda _, turn_id=turn_id: self._going.pop(turn_id))  # type: ignore[misc]

    async def _visit(self, turn_id: UUID, steers: Sequence[Steer], *, abort: bool) -> None:
        try:
            if abort:
                await abort_run(self._sandboxes, turn_id)
            await self._steer_turn(steers)
        except (grpc.aio.AioRpcError, ServiceUnavailable) as error:
            telemetry.log().warning("courier waits", turn_id=str(turn_id), cause=str(error))

    async def _steer_turn(self, steers: Sequence[Steer]) -> None:
        """Bring what was said into one turn, in order. What comes too late becomes turns of its own, in order, too."""
        late = []
        for steer in steers:
            arrived = await self._deliver(steer)
            if arrived is Arrived.NOT_YET:
                break
            if arrived is Arrived.TOO_LATE:
                late.append(steer)
        if late:
            with suppress(SessionNotFound), as_tenant(late[0].tenant_id):
                await inbox.steers_were_late(self._store, late)

    async def _deliver(self, steer: Steer) -> Arrived:
        """Bring one message.

        The sandbox is asked even when the turn has ended: it may have the message from a call whose answer was lost.
        """
        request = sandbox_service_pb2.SteerTurnRequest(
            turn_id=str(steer.turn_id), request_id=str(steer.id), text=steer.text
        )
        try:
            with telemetry.span("steer turn", parent=steer.trace_parent):
                await self._sandboxes.SteerTurn(request, timeout=STEER_SECONDS)
        except grpc.aio.AioRpcError as error:
            telemetry.log().info("steer waits", turn_id=str(steer.turn_id), late=steer.late, reason=reason_of(error))
            return Arrived.TOO_LATE if steer.late and error.code() not in _AWAY else Arrived.NOT_YET
        with as_tenant(steer.tenant_id):
            await inbox.steer_delivered(self._store, steer)
        return Arrived.YES
