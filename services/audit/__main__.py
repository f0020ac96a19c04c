"""Audit as a process: settings, migrations, store, notary, server."""

import asyncio
from dataclasses import dataclass
from functools import partial

import grpc
from orginabox.audit.v1 import audit_service_pb2_grpc

from services.audit.checkpoint import SigningKey
from services.audit.handler import AuditHandler
from services.audit.housekeeping import expire_for_ever, verify_for_ever
from services.audit.notary import Notary
from services.audit.places import places_of
from services.audit.settings import AuditSettings
from services.audit.store import QUERIES, SCHEMA, Store
from services.audit.streaming import Streamer, receiver_of
from services.audit.verification import Verifier
from services.kit.metrics import telling
from services.kit.postgres import Database
from services.kit.server import run, serve

SERVICES = ("orginabox.audit.v1.AuditService",)


@dataclass(frozen=True)
class Room:
    """The parts of Audit that belong together."""

    store: Store
    notary: Notary
    verifier: Verifier


def main() -> None:
    """Run until told to stop."""
    settings = AuditSettings()
    run("audit", partial(serve_audit, settings), settings.log_level)


async def serve_audit(settings: AuditSettings, stop: asyncio.Event) -> None:
    """Put the parts together and serve."""
    identity = settings.identity("audit")
    async with Database(settings.database_urls(), SCHEMA, QUERIES, system_size=8) as database:
        room = furnish(settings, Store(database))
        background = [
            asyncio.create_task(room.notary.run()),
            asyncio.create_task(expire_for_ever(room.store.of_all())),
            asyncio.create_task(verify_for_ever(room.verifier, settings.audit_verify_seconds)),
        ]
        if settings.audit_stream:
            receiver = receiver_of(settings.audit_stream, settings.audit_webhook_secret, settings.audit_stream_ca)
            background.append(asyncio.create_task(Streamer(room.store.of_all(), receiver).run()))
        with telling(settings.metrics_at("audit")):
            await serve(settings.address("audit"), SERVICES, partial(register, room), identity=identity, stop=stop)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)


def furnish(settings: AuditSettings, store: Store) -> Room:
    """The parts, as the settings say."""
    key = SigningKey.open(settings.key_file())
    places = places_of(
        file=settings.checkpoint_file(),
        s3=settings.audit_checkpoint_s3,
        s3_endpoint=settings.audit_checkpoint_s3_endpoint,
        webhook=settings.audit_checkpoint_webhook,
        secret=settings.audit_webhook_secret,
        key=key,
    )
    notary = Notary(store.of_all(), key, places)
    return Room(store, notary, Verifier(store.of_all(), notary, settings.audit_folder() / "verified"))


def register(room: Room, server: grpc.aio.Server) -> None:
    """Add the handler to a server."""
    handler = AuditHandler(room.store, room.notary, room.verifier)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(handler, server)


if __name__ == "__main__":
    main()
