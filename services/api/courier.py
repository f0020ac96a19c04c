"""Brings to the sandbox what users want of turns that run: what they said into them, and that they are to stop.

Both are on disk before their users hear that they were taken. What a crash, a cut or a sandbox that is away left behind
is found again, and the sandbox knows each message by its own id, so that saying it twice says it once.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from itertools import groupby
from operator import attrgetter

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

    async def run(self) -> None:
        """Bring for ever."""
        wanted, wait = self._store.sent[Receiver.SANDBOX], 0.0
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(wanted.wait(), wait)
            wanted.clear()
            wait = POLL_SECONDS
            try:
                if await self.steer():
                    wait = SOON_SECONDS
                await self.abort()
            except (grpc.aio.AioRpcError, ServiceUnavailable) as error:
                telemetry.log().warning("courier waits", cause=str(error))

    async def steer(self) -> int:
        """Bring what was said into turns, to each turn in order; tell how much there was."""
        steers = await inbox.list_open_steers(self._store)
        turns = [list(group) for _, group in groupby(sorted(steers, key=attrgetter("turn_id")), attrgetter("turn_id"))]
        results = await asyncio.gather(*map(self._steer_turn, turns), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return len(steers)

    async def abort(self) -> None:
        """Stop the runs whose users want them to stop; most have been told already, and stopping twice is once."""
        await asyncio.gather(
            *(abort_run(self._sandboxes, turn_id) for turn_id in await inbox.list_aborting(self._store))
        )

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
            with suppress(SessionNotFound):
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
        await inbox.steer_delivered(self._store, steer)
        return Arrived.YES
