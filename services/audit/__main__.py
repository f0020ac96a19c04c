"""Audit as a process: settings, migrations, store, server."""

import asyncio
from functools import partial
from pathlib import Path

import grpc
from orginabox.audit.v1 import audit_service_pb2_grpc

from services.audit.handler import AuditHandler
from services.audit.store import QUERIES, SCHEMA, Store
from services.kit.metrics import telling
from services.kit.migrate import migrate
from services.kit.postgres import Database
from services.kit.server import run, serve
from services.kit.settings import MeshSettings

SERVICES = ("orginabox.audit.v1.AuditService",)
MIGRATIONS = Path(__file__).with_name("migrations")


def main() -> None:
    """Run until told to stop."""
    settings = MeshSettings()
    run("audit", partial(serve_audit, settings), settings.log_level)


async def serve_audit(settings: MeshSettings, stop: asyncio.Event) -> None:
    """Put the parts together and serve."""
    await asyncio.to_thread(migrate, settings.database_url, SCHEMA, MIGRATIONS)
    async with Database(settings.database_url, SCHEMA, QUERIES) as database:
        with telling(settings.metrics_at("audit")):
            await serve(settings.address("audit"), SERVICES, partial(register, Store(database)), stop=stop)


def register(store: Store, server: grpc.aio.Server) -> None:
    """Add the handler to a server."""
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(AuditHandler(store), server)


if __name__ == "__main__":
    main()
