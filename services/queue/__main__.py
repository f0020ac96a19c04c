"""The Queue service as a process."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import grpc
from orginabox.audit.v1 import audit_service_pb2_grpc
from orginabox.queue.v1 import queue_service_pb2_grpc
from pydantic import Field

from services.kit.channel import connect
from services.kit.courier import AuditCourier
from services.kit.metrics import telling
from services.kit.server import run, serve
from services.kit.settings import MeshSettings
from services.kit.tenancy import DatabaseUrls, as_system
from services.queue.bell import Bell
from services.queue.dispatcher import Dispatcher
from services.queue.enqueuer import Enqueuer
from services.queue.handler import SERVICE, QueueHandler
from services.queue.housekeeping import Housekeeping
from services.queue.pace import Pace
from services.queue.store import Store

LAST_COMMIT_SECONDS = 3.0


class QueueSettings(MeshSettings):
    """What the Queue service is told."""

    queue_instance: str = Field(
        default="",
        description="Names this Queue process among its replicas, and stays the same when it starts again, so that it "
        "knows the leases of its earlier life. Default: the host and the address it listens on.",
    )

    def instance(self) -> str:
        """The name of this Queue process."""
        return self.queue_instance or f"{socket.gethostname()} {self.address('queue')}"


@asynccontextmanager
async def running_queue(
    urls: DatabaseUrls, instance: str, audits: audit_service_pb2_grpc.AuditServiceStub | None = None
) -> AsyncIterator[QueueHandler]:
    """The queue with its loops, without a server around it. Without Audit its records wait."""
    async with Store(urls) as store:
        bell = Bell()
        pace = Pace()
        enqueuer = Enqueuer(store, bell, pace)
        dispatcher = Dispatcher(store, bell, pace, instance)
        housekeeping = Housekeeping(store, bell, pace, enqueuer, dispatcher, instance)
        with as_system():  # each loop keeps the scope in which it begins
            await housekeeping.begin()
            couriers = [AuditCourier(store.outbox, audits, store.recorded)] if audits else []
            loops = asyncio.gather(
                enqueuer.run(), dispatcher.run(), housekeeping.run(), *(courier.run() for courier in couriers)
            )
        handler = QueueHandler(store, bell, pace, enqueuer, dispatcher)
        try:
            yield handler
        finally:
            await handler.stop(LAST_COMMIT_SECONDS)
            loops.cancel()
            await asyncio.gather(loops, return_exceptions=True)


async def serve_queue(settings: QueueSettings, stop: asyncio.Event) -> None:
    """Run the queue until told to stop."""
    identity = settings.identity("queue")
    async with (
        connect(settings.address("audit"), to="audit", identity=identity) as to_audit,
        running_queue(
            settings.database_urls(), settings.instance(), audit_service_pb2_grpc.AuditServiceStub(to_audit)
        ) as handler,
    ):

        def register(server: grpc.aio.Server) -> None:
            queue_service_pb2_grpc.add_QueueServiceServicer_to_server(handler, server)

        closing = asyncio.create_task(_close_streams(handler, stop))
        with telling(settings.metrics_at("queue")):
            await serve(settings.address("queue"), [SERVICE], register, identity=identity, stop=stop)
        await closing


async def _close_streams(handler: QueueHandler, stop: asyncio.Event) -> None:
    """End the streams when the process has to stop: by themselves they would last for ever."""
    await stop.wait()
    await handler.stop(LAST_COMMIT_SECONDS)


def main() -> None:
    """Run the service."""
    settings = QueueSettings()
    run("queue", partial(serve_queue, settings), settings.log_level)


if __name__ == "__main__":
    main()
