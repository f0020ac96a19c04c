"""Ends the turns whose job has died, so that no reader waits for ever."""

import asyncio
from contextlib import suppress

import grpc
from orginabox.queue.v1 import job_pb2, queue_service_pb2, queue_service_pb2_grpc
from orginabox.sandbox.v1 import sandbox_service_pb2_grpc

from services.api import mapping, operations
from services.api.abort import abort_run
from services.api.feed import Feeds
from services.api.store import Store
from services.api.turn import Ending, Turn, TurnNotFound, TurnState
from services.kit import telemetry
from services.kit.errors import ServiceUnavailable
from services.kit.status import reason_of
from services.kit.tenancy import as_tenant

SWEEP_SECONDS = 5.0

_CANCELLED = Ending(TurnState.ABORTED)
_GONE = Ending(
    TurnState.FAILED,
    "ATTEMPTS_EXHAUSTED",
    "every attempt to run this turn failed; the session is fine, so say it again, and see `oiab logs worker` for why",
)


class Reaper:
    """Looks after the turns that live for longer than a moment."""

    def __init__(
        self,
        store: Store,
        feeds: Feeds,
        queue: queue_service_pb2_grpc.QueueServiceStub,
        sandboxes: sandbox_service_pb2_grpc.SandboxServiceStub,
    ) -> None:
        self._store = store
        self._feeds = feeds
        self._queue = queue
        self._sandboxes = sandboxes

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self.sweep()
            except (grpc.aio.AioRpcError, ServiceUnavailable) as error:
                telemetry.log().warning("sweep waits", cause=str(error))
            except Exception as error:  # noqa: BLE001 - one bad turn must not leave all others without an end
                telemetry.log().error("sweep failed", exc_info=error)

    async def sweep(self) -> None:
        """End every turn whose job is dead, cancelled or gone."""
        async with self._store.transaction() as tx:
            turns = await tx.list_live_turns()
        for turn in turns:
            if ending := await self._ending(turn):
                await self._end(turn, ending)

    async def _end(self, turn: Turn, ending: Ending) -> None:
        telemetry.log().warning("turn given up", turn_id=str(turn.id), job_id=str(turn.job_id))
        if turn.state is TurnState.RUNNING:
            await abort_run(self._sandboxes, turn.id)  # no worker hears of it any more
        with suppress(TurnNotFound), as_tenant(turn.tenant_id):  # its session was deleted meanwhile
            if events := await operations.fail_turn(self._store, turn, ending, mapping.ending_event):
                self._feeds.publish(turn.id, events)

    async def _ending(self, turn: Turn) -> Ending | None:
        """How a turn ends whose job is over, or None while the job lives."""
        request = queue_service_pb2.GetJobRequest(tenant_id=str(turn.tenant_id), job_id=str(turn.job_id))
        try:
            job = (await self._queue.GetJob(request)).job
        except grpc.aio.AioRpcError as error:
            if reason_of(error) == "JOB_NOT_FOUND":
                return _GONE
            raise
        if job.state == job_pb2.JOB_STATE_CANCELLED:
            return _CANCELLED
        return _GONE if job.state in {job_pb2.JOB_STATE_DEAD, job_pb2.JOB_STATE_COMPLETED} else None
