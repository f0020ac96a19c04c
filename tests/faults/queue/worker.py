"""A worker as a process of its own: each job leaves one row in the table `effect`, or waits as long as it is told."""

import asyncio
import os
import signal
import sys

import psycopg

from services.kit.channel import connect
from services.kit.settings import MeshSettings
from services.kit.telemetry import configure
from services.worker.consumer import Consumer, Lease


async def work(address: str, database: str, name: str) -> None:
    """Work until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

    async def handle(lease: Lease) -> None:
        # In one piece: several processes write to one file.
        os.write(1, f"{name} {os.getpid()} {lease.job_id} {lease.attempt}\n".encode())
        await asyncio.sleep(float(lease.payload.decode()))
        await leave_effect(database, lease)

    async with connect(address, to="queue", identity=MeshSettings().identity("worker")) as channel:
        consumer = Consumer(channel, worker_id=name, kinds=["test"], concurrency=4, handle=handle, grace=1.0)
        await consumer.run(stop)


async def leave_effect(database: str, lease: Lease) -> None:
    """Write the effect of a job, once, and note that it ran."""
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
                await connection.execute(
                    "INSERT INTO effect (job_id, key) VALUES (%s, %s) ON CONFLICT DO NOTHING", (lease.job_id, lease.key)
                )
                return
        except psycopg.OperationalError:
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    configure("test-worker", "warning")
    asyncio.run(work(*sys.argv[1:]))
