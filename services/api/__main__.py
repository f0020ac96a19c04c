"""Runs Api: `python -m services.api`."""

import asyncio
from datetime import timedelta
from functools import partial
from uuid import UUID

import grpc
from orginabox.api.v1 import (
    audit_service_pb2_grpc,
    health_service_pb2_grpc,
    job_service_pb2_grpc,
    keyring_service_pb2_grpc,
    provider_service_pb2_grpc,
    session_service_pb2_grpc,
    turn_service_pb2_grpc,
)
from orginabox.audit.v1 import audit_service_pb2_grpc as audit_grpc
from orginabox.queue.v1 import queue_service_pb2_grpc as queue_grpc
from orginabox.runtime.v1 import keyring_service_pb2_grpc as room_grpc
from orginabox.runtime.v1 import runtime_service_pb2_grpc as runtime_grpc
from orginabox.sandbox.v1 import sandbox_service_pb2_grpc as sandbox_grpc
from orginabox.turn.v1 import turn_log_service_pb2_grpc

from services.api import mapping
from services.api.audit_handler import AuditHandler
from services.api.courier import Courier
from services.api.dispatcher import Dispatcher
from services.api.feed import Feeds
from services.api.health_handler import HealthHandler
from services.api.job_handler import JobHandler
from services.api.keyring_handler import KeyringHandler, RemoteKeyring
from services.api.log_keeper import LogKeeper
from services.api.neighbours import Neighbours
from services.api.principal import Principal, ToolCeiling, allowed, suspended
from services.api.provider_handler import ProviderHandler
from services.api.reaper import Reaper
from services.api.session_handler import SessionHandler
from services.api.settings import ApiSettings
from services.api.store import QUERIES, Store
from services.api.turn_handler import TurnHandler
from services.api.turn_log_handler import TurnLogHandler
from services.api.ward import Ward
from services.identity import room
from services.identity.principals import Principals
from services.identity.settings import IdentitySettings
from services.identity.user import UserSuspended
from services.identity.web.server import served as web_served
from services.kit.channel import connect
from services.kit.courier import AuditCourier
from services.kit.denials import DenialRecorder
from services.kit.gate import Gate
from services.kit.metrics import telling
from services.kit.postgres import Database
from services.kit.server import run, serve
from services.kit.tenancy import as_system
from services.kit.user_token import hand_over

SERVICES = (
    "orginabox.api.v1.SessionService",
    "orginabox.api.v1.TurnService",
    "orginabox.api.v1.ProviderService",
    "orginabox.api.v1.AuditService",
    "orginabox.api.v1.HealthService",
    "orginabox.api.v1.JobService",
    "orginabox.api.v1.KeyringService",
    "orginabox.turn.v1.TurnLogService",
    *room.SERVICES,
)


async def serve_api(settings: ApiSettings, stop: asyncio.Event, people: IdentitySettings | None = None) -> None:
    """Put Api together, with identity in its process, and serve it until told to stop."""
    identity, people = settings.identity("api"), people or IdentitySettings.of(settings)
    async with (
        Database(settings.database_urls(), "api", QUERIES, size=16) as database,
        connect(settings.address("queue"), to="queue", identity=identity) as to_queue,
        connect(settings.address("sandbox"), to="sandbox", identity=identity) as to_sandbox,
        connect(settings.address("runtime"), to="runtime", identity=identity) as to_runtime,
        connect(settings.address("audit"), to="audit", identity=identity) as to_audit,
        room.opened(people, settings.key(), audit_grpc.AuditServiceStub(to_audit)) as identities,
    ):
        neighbours = Neighbours(settings.database_url)
        store, feeds = Store(database), Feeds(neighbours)
        queue, audits = queue_grpc.QueueServiceStub(to_queue), audit_grpc.AuditServiceStub(to_audit)
        sandboxes = sandbox_grpc.SandboxServiceStub(to_sandbox)
        find = partial(find_principal, identities.principals)
        ward = Ward(store, feeds, sandboxes, find)

        def register(server: grpc.aio.Server) -> None:
            session_service_pb2_grpc.add_SessionServiceServicer_to_server(SessionHandler(store, sandboxes), server)
            turn_service_pb2_grpc.add_TurnServiceServicer_to_server(TurnHandler(store, feeds, sandboxes, find), server)
            provider_service_pb2_grpc.add_ProviderServiceServicer_to_server(
                ProviderHandler(runtime_grpc.RuntimeServiceStub(to_runtime)), server
            )
            audit_service_pb2_grpc.add_AuditServiceServicer_to_server(AuditHandler(store, audits), server)
            health_service_pb2_grpc.add_HealthServiceServicer_to_server(HealthHandler(store), server)
            job_service_pb2_grpc.add_JobServiceServicer_to_server(JobHandler(store, queue), server)
            keyrings = KeyringHandler([RemoteKeyring(room_grpc.KeyringServiceStub(to_runtime)), identities.keyrings])
            keyring_service_pb2_grpc.add_KeyringServiceServicer_to_server(keyrings, server)
            turn_log = TurnLogHandler(store, feeds, find, ward)
            turn_log_service_pb2_grpc.add_TurnLogServiceServicer_to_server(turn_log, server)
            identities.register(server)

        with as_system():  # each loop keeps the scope in which it begins
            background = [
                asyncio.create_task(Dispatcher(store, queue, sandboxes).run()),
                asyncio.create_task(AuditCourier(database.transaction, audits, store.recorded).run()),
                asyncio.create_task(Reaper(store, feeds, queue, sandboxes).run()),
                asyncio.create_task(ward.run()),
                asyncio.create_task(Courier(store, sandboxes).run()),
                asyncio.create_task(neighbours.run(feeds.hear)),
                asyncio.create_task(LogKeeper(store, timedelta(settings.log_retention_days), mapping.answer_of).run()),
            ]
            denials = DenialRecorder(database.transaction, store.recorded)
            background.append(asyncio.create_task(denials.run()))
        gate = Gate(identities.identify, hand_over, denials, identities.authenticator.again)
        pages = web_served(identities.pages(), settings.web_at("api"), identity)
        with telling(settings.metrics_at("api")):
            async with pages:
                await serve(settings.address("api"), SERVICES, register, identity=identity, gate=gate, stop=stop)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await denials.flush(everything=True)


async def find_principal(principals: Principals, tenant_id: UUID, user_id: UUID) -> Principal:
    """How a user stands now, in the words of Api."""
    standing = await principals.standing(tenant_id, user_id)
    if standing is None:
        return suspended("your account is not known any more; ask an administrator")
    try:
        standing.refuse()
    except UserSuspended as refused:
        return suspended(str(refused))
    permissions = standing.permissions
    tools = ToolCeiling(permissions.tools_allowed, permissions.tools_denied)
    return allowed(tools, may_run=permissions.may("agents.run"))


def main() -> None:
    """Run Api with the settings of the environment."""
    settings = ApiSettings()
    run("api", partial(serve_api, settings), settings.log_level)


if __name__ == "__main__":
    main()
