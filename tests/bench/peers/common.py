"""What every peer does the same: it is told what to do by its arguments, and says what it found, line by line."""

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable

BULK = 1000

Enqueue = Callable[[int], Awaitable[object]]
"""Puts one job in; the number is its payload: 0, or the nanosecond in which it was sent."""
EnqueueMany = Callable[[int], Awaitable[object]]
"""Puts so many jobs in at once."""


def say(*words: object) -> None:
    """A line for the driver."""
    print(*words, flush=True)


class Handled:
    """What the handler of a worker counts: its first job, its last job, and how late each paced job came."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._seen = 0

    def one(self, sent: int) -> None:
        """A job is handled."""
        if not self._seen:
            say("FIRST", time.time_ns())
        self._seen += 1
        if sent:
            say("LATE", time.time_ns() - sent)
        if self._seen == self._jobs:
            say("LAST", time.time_ns())


async def bulk(enqueue: EnqueueMany, jobs: int) -> None:
    """Put jobs in by the thousand."""
    started = time.perf_counter()
    for _ in range(0, jobs, BULK):
        await enqueue(min(BULK, jobs))
    say("RATE", jobs / (time.perf_counter() - started))


async def callers(enqueue: Enqueue, count: int, seconds: float) -> None:
    """Put jobs in one by one, with so many callers at once."""
    done = 0
    end = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await enqueue(0)
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(count)))
    say("RATE", done / (time.perf_counter() - started))


async def pace(enqueue: Enqueue, jobs: int, per_second: float = 50.0) -> None:
    """Put jobs in at a steady pace. The clock starts when the call is made."""
    calls = []
    for _ in range(jobs):
        calls.append(asyncio.ensure_future(enqueue(time.time_ns())))
        await asyncio.sleep(1 / per_second)
    await asyncio.gather(*calls)
    say("RATE", per_second)


async def put_in(what: str, enqueue: Enqueue, enqueue_many: EnqueueMany, arguments: list[str]) -> None:
    """Do what the driver asks of somebody who puts jobs in."""
    match what:
        case "bulk":
            await bulk(enqueue_many, int(arguments[0]))
        case "callers":
            await callers(enqueue, int(arguments[0]), float(arguments[1]))
        case "pace":
            await pace(enqueue, int(arguments[0]))
        case _:
            sys.exit(f"{what} is nothing that can be done")


def stop_event() -> asyncio.Event:
    """Set when the driver has seen enough."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop
