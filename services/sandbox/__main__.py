"""Runs Sandbox: `python -m services.sandbox`."""

import asyncio
from functools import partial

import grpc
from orginabox.runtime.v1 import runtime_service_pb2_grpc
from orginabox.sandbox.v1 import sandbox_service_pb2_grpc

from services.kit.channel import connect
from services.kit.metrics import telling
from services.kit.postgres import Database
from services.kit.server import run, serve
from services.kit.tenancy import as_system, as_tenant
from services.sandbox.bubblewrap import Bubblewrap
from services.sandbox.fleet import Fleet, Place
from services.sandbox.forgetting import Forgetting
from services.sandbox.handler import SandboxHandler
from services.sandbox.model_token import ModelTokens
from services.sandbox.sandbox import Sandbox
from services.sandbox.settings import SandboxSettings
from services.sandbox.store import QUERIES, Store

SERVICES = ("orginabox.sandbox.v1.SandboxService",)


async def serve_sandbox(settings: SandboxSettings, stop: asyncio.Event) -> None:
    """Put Sandbox together and serve it until told to stop."""
    identity = settings.identity("sandbox")
    async with (
        Database(settings.database_urls(), "sandbox", QUERIES) as database,
        connect(settings.address("runtime"), to="runtime", identity=identity) as to_runtime,
    ):
        store = Store(database)
        with as_system():
            async with store.transaction() as tx:
                await tx.forget_processes()
                await tx.forget_old_runs()
        fleet = Fleet(
            driver=Bubblewrap(settings.opencode, settings.sandbox_start_seconds),
            place=place(settings),
            issue_token=ModelTokens(runtime_service_pb2_grpc.RuntimeServiceStub(to_runtime)).issue,
            report=partial(_keep, store),
        )

        forgetting = Forgetting(store, fleet)

        def register(server: grpc.aio.Server) -> None:
            handler = SandboxHandler(store, fleet, settings.patience(), forgetting)
            sandbox_service_pb2_grpc.add_SandboxServiceServicer_to_server(handler, server)

        with as_system():  # each loop keeps the scope in which it begins
            background = [
                asyncio.create_task(fleet.sweep_for_ever()),
                asyncio.create_task(forgetting.run()),
                asyncio.create_task(_end_with(stop, fleet)),
            ]
        try:
            with telling(settings.metrics_at("sandbox")):
                await serve(settings.address("sandbox"), SERVICES, register, identity=identity, stop=stop)
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await fleet.stop_all()


async def _end_with(stop: asyncio.Event, fleet: Fleet) -> None:
    """End the sandboxes while streams are still read, so that turns end with a word and not with a cut."""
    await stop.wait()
    await fleet.stop_all()


def place(settings: SandboxSettings) -> Place:
    """Where the sandboxes have their files, and what each may use."""
    return Place(
        volumes=settings.volumes,
        runtime=settings.runtime,
        model_door=settings.model_door,
        limits=settings.limits(),
        idle_seconds=settings.sandbox_idle_seconds,
        keep_run_seconds=settings.run_keep_seconds,
    )


async def _keep(store: Store, sandbox: Sandbox) -> None:
    with as_tenant(sandbox.tenant_id):
        async with store.transaction() as tx:
            await tx.save_sandbox(sandbox)


def main() -> None:
    """Run Sandbox with the settings of the environment."""
    settings = SandboxSettings()
    run("sandbox", partial(serve_sandbox, settings), settings.log_level)


if __name__ == "__main__":
    main()
