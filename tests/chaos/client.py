"""A client that calls api and queue as fast as it can, to be killed in the middle of a call."""

import asyncio
import os
import sys

import httpx
from orginabox.queue.v1 import queue_service_pb2_grpc

from services.kit.settings import MeshSettings
from tests.chaos.calls import QueueAt
from tests.chaos.jobs import ORPHAN
from tests.contract.queue.rig import asked


async def main(name: str, session_id: str) -> None:
    """Call until killed. Whether an answer comes is of no matter here."""
    headers = {"authorization": f"Bearer {os.environ['CHAOS_KEY']}"}
    async with (
        QueueAt(MeshSettings().home, os.environ["CHAOS_QUEUE"]).connect("api") as channel,
        httpx.AsyncClient(base_url=os.environ["CHAOS_URL"], headers=headers, trust_env=False, timeout=30) as http,
    ):
        stub = queue_service_pb2_grpc.QueueServiceStub(channel)

        async def enqueue(place: int) -> None:
            for n in range(10_000):
                await stub.EnqueueJob(asked(kind=ORPHAN, key=f"{name}-{place}", idempotency_key=f"{name}-{place}-{n}"))

        async def rename() -> None:
            for n in range(10_000):
                await http.patch(f"/v1/sessions/{session_id}", json={"title": f"{name} {n}"})

        print("calling", flush=True)
        await asyncio.gather(rename(), *(enqueue(place) for place in range(8)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
