"""pgqueuer on asyncpg: `pgqueuer_peer.py URL install | bulk N | callers N SECONDS | pace N | work N BATCH`."""

import asyncio
import sys

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, Job, PgQueuer, Queries

from tests.bench.peers.common import Handled, put_in, stop_event


async def work(url: str, jobs: int, batch: int) -> None:
    """Work until told to stop."""
    handled = Handled(jobs)
    connection = await asyncpg.connect(url)
    worker = PgQueuer(AsyncpgDriver(connection))

    async def handle(job: Job) -> None:
        handled.one(int(job.payload or b"0"))

    worker.entrypoint("noop")(handle)
    working = asyncio.ensure_future(worker.run(batch_size=batch))
    await stop_event().wait()
    working.cancel()


async def main(url: str, what: str, *arguments: str) -> None:
    """Do what the driver asks for."""
    match what:
        case "install":
            await Queries(AsyncpgDriver(await asyncpg.connect(url))).install()
        case "work":
            await work(url, int(arguments[0]), int(arguments[1]))
        case _:
            async with asyncpg.create_pool(url, min_size=4, max_size=32) as pool:
                queries = Queries(AsyncpgPoolDriver(pool))
                await put_in(
                    what,
                    lambda sent: queries.enqueue("noop", str(sent).encode()),
                    lambda jobs: queries.enqueue(["noop"] * jobs, [b"0"] * jobs, [0] * jobs),
                    list(arguments),
                )


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
