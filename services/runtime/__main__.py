"""Runtime as a process: settings, migrations, store, bundle, door, server."""

import asyncio
from functools import partial

import grpc
from ext_authz import external_auth_pb2_grpc
from orginabox.audit.v1 import audit_service_pb2_grpc
from orginabox.runtime.v1 import keyring_service_pb2_grpc, runtime_service_pb2_grpc

from services.kit.channel import connect
from services.kit.courier import AuditCourier
from services.kit.denials import DenialRecorder
from services.kit.gate import Gate
from services.kit.keyring.admin import KeyringAdmin
from services.kit.keyring.handler import KeyringHandler
from services.kit.keyring.keyring import Keyring
from services.kit.keyring.opening import open_keyring
from services.kit.metrics import telling
from services.kit.postgres import Database
from services.kit.server import run, serve
from services.kit.tenancy import as_system
from services.kit.user_token import hand_over
from services.runtime import operations
from services.runtime.bundle import Base
from services.runtime.clusters import trusted_certificates
from services.runtime.door import Door
from services.runtime.handler import AuthorizationHandler, RuntimeHandler
from services.runtime.installation import Installation
from services.runtime.settings import RuntimeSettings
from services.runtime.store import QUERIES, SCHEMA, SECRETS, Store

SERVICES = (
    "orginabox.runtime.v1.RuntimeService",
    "orginabox.runtime.v1.KeyringService",
    "envoy.service.auth.v3.Authorization",
)


def main() -> None:
    """Run until told to stop."""
    settings = RuntimeSettings()
    run("runtime", partial(serve_runtime, settings), settings.log_level)


async def serve_runtime(settings: RuntimeSettings, stop: asyncio.Event) -> None:
    """Put the parts together and serve."""
    identity = settings.identity("runtime")
    async with (
        Database(settings.database_urls(), SCHEMA, QUERIES) as database,
        connect(settings.address("audit"), to="audit", identity=identity) as to_audit,
    ):
        keyring = await open_keyring(SCHEMA, database, settings, SECRETS)
        box, store = installation(settings, keyring), Store(database)
        admin = KeyringAdmin(keyring, database, SECRETS, recorded=store.recorded)
        await operations.restore(box, store)
        courier = AuditCourier(database.transaction, audit_service_pb2_grpc.AuditServiceStub(to_audit), store.recorded)
        denials = DenialRecorder(database.transaction, store.recorded)
        with as_system():
            background = [asyncio.create_task(courier.run()), asyncio.create_task(denials.run())]
        gate = Gate(hand_over=hand_over, recorder=denials)
        with telling(settings.metrics_at("runtime")):
            register_all = partial(register, box, store, admin)
            await serve(settings.address("runtime"), SERVICES, register_all, identity=identity, gate=gate, stop=stop)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await denials.flush(everything=True)


def installation(settings: RuntimeSettings, keyring: Keyring) -> Installation:
    """This installation, as the settings say."""
    return Installation(
        keyring=keyring,
        base=Base.read(),
        folder=settings.home / "runtime",
        clusters_file=settings.home / "envoy" / "clusters.yaml",
        trusted_ca=trusted_certificates(),
        demo_socket=settings.demo_socket(),
    )


def register(box: Installation, store: Store, admin: KeyringAdmin, server: grpc.aio.Server) -> None:
    """Add the handlers to a server."""
    door = Door(box, store)
    runtime_service_pb2_grpc.add_RuntimeServiceServicer_to_server(RuntimeHandler(box, store, door), server)
    keyring_service_pb2_grpc.add_KeyringServiceServicer_to_server(KeyringHandler(admin, door.forget), server)
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(AuthorizationHandler(door), server)


if __name__ == "__main__":
    main()
