"""Runs Worker: `python -m services.worker`."""

import asyncio
from functools import partial

import grpc
from orginabox.sandbox.v1 import sandbox_service_pb2_grpc
from orginabox.turn.v1 import turn_log_service_pb2_grpc

from services.kit.channel import connect
from services.kit.memory import collect_seldom
from services.kit.server import run, serve
from services.worker.consumer import Consumer
from services.worker.consumer import Lease as JobLease
from services.worker.settings import WorkerSettings
from services.worker.turn_run import Lease, TurnRun


async def serve_worker(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """Take turns from the queue until told to stop. The server beside it answers for the worker's health only."""
    async with (
        connect(settings.address("queue")) as to_queue,
        connect(settings.address("api")) as to_api,
        connect(settings.address("sandbox")) as to_sandbox,
    ):
        turns = TurnRun(
            turn_log_service_pb2_grpc.TurnLogServiceStub(to_api),
            sandbox_service_pb2_grpc.SandboxServiceStub(to_sandbox),
        )

        async def handle(job: JobLease) -> None:
            await turns.run(Lease(job.payload.decode(), job.attempt, job.token, job.park, job.unpark))

        consumer = Consumer(
            to_queue,
            worker_id=settings.worker_id,
            kinds=["agent-turn"],
            concurrency=settings.worker_concurrency,
            handle=handle,
            # A turn outlives its worker, so there is nothing to wait for: the next worker joins it.
            grace=0.5,
        )
        await asyncio.gather(
            consumer.run(stop),
            serve(settings.address("worker"), (), _nothing, stop=stop),
        )


def _nothing(_: grpc.aio.Server) -> None:
    """A worker has no methods."""


def main() -> None:
    """Run Worker with the settings of the environment."""
    settings = WorkerSettings()
    collect_seldom()
    run("worker", partial(serve_worker, settings), settings.log_level)


if __name__ == "__main__":
    main()
