"""procrastinate: `procrastinate_peer.py URL install | bulk N | callers N SECONDS | pace N | work N CONCURRENCY`."""

import asyncio
import logging
import sys

import procrastinate

from tests.bench.peers.common import Handled, put_in, stop_event


async def main(url: str, what: str, *arguments: str) -> None:
    """Do what the driver asks for."""
    logging.disable()  # that this module is the main one does not matter here
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=4, max_size=40))
    handled = Handled(int(arguments[0]) if what == "work" else 0)

    async def handle(sent: int) -> None:
        handled.one(sent)

    task = app.task(name="noop")(handle)
    async with app.open_async():
        match what:
            case "install":
                await app.schema_manager.apply_schema_async()
            case "work":
                working = asyncio.ensure_future(
                    app.run_worker_async(concurrency=int(arguments[1]), install_signal_handlers=False)
                )
                await stop_event().wait()
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            case _:
                await put_in(
                    what,
                    lambda sent: task.defer_async(sent=sent),
                    lambda jobs: task.batch_defer_async(*({"sent": 0} for _ in range(jobs))),
                    list(arguments),
                )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
