"""Runtime as a process: settings, migrations, store, bundle, door, server."""

import asyncio
from functools import partial
from pathlib import Path

import grpc
from ext_authz import external_auth_pb2_grpc
from orginabox.runtime.v1 import runtime_service_pb2_grpc

from services.kit.keyring import Keyring
from services.kit.metrics import telling
from services.kit.migrate import migrate
from services.kit.postgres import Database
from services.kit.server import run, serve
from services.runtime import operations
from services.runtime.bundle import Base
from services.runtime.clusters import trusted_certificates
from services.runtime.door import Door
from services.runtime.handler import AuthorizationHandler, RuntimeHandler
from services.runtime.installation import Installation
from services.runtime.settings import RuntimeSettings
from services.runtime.store import QUERIES, SCHEMA, Store

SERVICES = ("orginabox.runtime.v1.RuntimeService", "envoy.service.auth.v3.Authorization")
MIGRATIONS = Path(__file__).with_name("migrations")


def main() -> None:
    """Run until told to stop."""
    settings = RuntimeSettings()
    run("runtime", partial(serve_runtime, settings), settings.log_level)


async def serve_runtime(settings: RuntimeSettings, stop: asyncio.Event) -> None:
    """Put the parts together and serve."""
    box = installation(settings)
    await asyncio.to_thread(migrate, settings.database_url, SCHEMA, MIGRATIONS)
    async with Database(settings.database_url, SCHEMA, QUERIES) as database:
        store = Store(database)
        await operations.restore(box, store)
        with telling(settings.metrics_at("runtime")):
            await serve(settings.address("runtime"), SERVICES, partial(register, box, store), stop=stop)


def installation(settings: RuntimeSettings) -> Installation:
    """This installation, as the settings say."""
    return Installation(
        keyring=Keyring.open(settings.keyring_file()),
        base=Base.read(),
        folder=settings.home / "runtime",
        clusters_file=settings.home / "envoy" / "clusters.yaml",
        trusted_ca=trusted_certificates(),
        demo_socket=settings.demo_socket(),
    )


def register(box: Installation, store: Store, server: grpc.aio.Server) -> None:
    """Add the handlers to a server."""
    door = Door(box, store)
    runtime_service_pb2_grpc.add_RuntimeServiceServicer_to_server(RuntimeHandler(box, store, door), server)
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(AuthorizationHandler(door), server)


if __name__ == "__main__":
    main()
