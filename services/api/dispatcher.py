"""Sends the outbox on its way: jobs to Queue, deleted sessions to Sandbox, each until it is confirmed.

What was just committed is sent at once; what a crash or a silent receiver left behind is found every second. All
receivers know each message by its own id, so that sending twice is harmless.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID

import grpc
from orginabox.queue.v1 import queue_service_pb2, queue_service_pb2_grpc
from orginabox.sandbox.v1 import sandbox_service_pb2, sandbox_service_pb2_grpc

from services.api import inbox
from services.api.outbox import Outgoing, Receiver
from services.api.store import Store
from services.kit import telemetry
from services.kit.errors import ServiceUnavailable
from services.kit.tenancy import as_tenant

POLL_SECONDS = 1.0
TURN_ATTEMPTS = 20
"""How often a turn's job may be handed out: every restart of a worker or the queue takes one."""


class Dispatcher:
    """Sends the outbox on its way."""

    def __init__(
        self,
        store: Store,
        queue: queue_service_pb2_grpc.QueueServiceStub,
        sandboxes: sandbox_service_pb2_grpc.SandboxServiceStub,
    ) -> None:
        self._store = store
        self._queue = queue
        self._sandboxes = sandboxes

    async def run(self) -> None:
        """Send for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._drain_for_ever(Receiver.QUEUE, self._enqueue))
            tasks.create_task(self._drain_for_ever(Receiver.AGENT, self._forget))

    async def _drain_for_ever(self, receiver: Receiver, send: Callable[[list[Outgoing]], Awaitable[None]]) -> None:
        wanted = self._store.sent[receiver]
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await wanted.wait()
            wanted.clear()
            try:
                while waiting := await self._read(receiver):
                    await send(waiting)
            except (grpc.aio.AioRpcError, ServiceUnavailable) as error:
                telemetry.log().warning("outbox waits", receiver=receiver.value, cause=str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, what waits is tried again in a second
                telemetry.log().error("outbox failed", receiver=receiver.value, exc_info=error)

    async def _read(self, receiver: Receiver) -> list[Outgoing]:
        async with self._store.transaction() as tx:
            rows = await tx.read_outbox(receiver.value)
        return [Outgoing(row["tenant_id"], receiver, row["message"], row["outbox_id"]) for row in rows]

    async def _enqueue(self, waiting: list[Outgoing]) -> None:
        """Enqueue turns: those of one session in order, those of many sessions at once."""
        sessions: dict[str, list[Outgoing]] = {}
        for message in waiting:
            sessions.setdefault(message.message["session_id"], []).append(message)
        results = await asyncio.gather(*map(self._enqueue_session, sessions.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _enqueue_session(self, messages: list[Outgoing]) -> None:
        for message in messages:
            with telemetry.span("enqueue turn", parent=message.message["trace_parent"]):
                await self._enqueue_turn(message)

    async def _enqueue_turn(self, message: Outgoing) -> None:
        turn_id = message.message["turn_id"]
        answer = await self._queue.EnqueueJob(
            queue_service_pb2.EnqueueJobRequest(
                tenant_id=str(message.tenant_id),
                kind="agent-turn",
                key=f"session:{message.message['session_id']}",
                payload=turn_id.encode(),
                idempotency_key=f"turn:{turn_id}",
                max_attempts=TURN_ATTEMPTS,
                trace_parent=message.message["trace_parent"],
            )
        )
        with as_tenant(message.tenant_id):
            await inbox.save_job(
                self._store,
                message.tenant_id,
                UUID(message.message["session_id"]),
                UUID(turn_id),
                UUID(answer.job.job_id),
                message.number,
            )

    async def _forget(self, waiting: list[Outgoing]) -> None:
        for message in waiting:
            await self._sandboxes.ForgetSession(
                sandbox_service_pb2.ForgetSessionRequest(
                    tenant_id=str(message.tenant_id), session_id=message.message["session_id"]
                )
            )
            async with self._store.transaction() as tx:
                await tx.delete_outbox([message.number])
