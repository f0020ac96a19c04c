"""A worker that is stopped in the middle of a job, with a wrong clock, and settles it when another has it.

As a program it is that worker: it takes a job, says so, waits for a word, and then settles by the lease it had.
"""

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import grpc
from orginabox.queue.v1 import job_pb2, queue_service_pb2_grpc

from services.worker.consumer import Consumer, Lease
from tests.chaos.account import Account
from tests.chaos.calls import PATIENCE_SECONDS, QueueAt, until_answered
from tests.chaos.clock import wrong_clock
from tests.contract.queue.rig import JobLease, Worker, asked, read
from tests.e2e.mesh import ROOT

PASSING = (grpc.aio.AioRpcError, asyncio.InvalidStateError, AssertionError, TimeoutError)
"""What a stream does that is cut while a word is said on it."""
LEAST_SKEW_SECONDS = 60.0


@dataclass(eq=False)
class Heir:
    """The worker that gets the job next, and has it until it is told to finish."""

    taken: asyncio.Event = field(default_factory=asyncio.Event)
    finish: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, _: Lease) -> None:
        """Have the job."""
        self.taken.set()
        await self.finish.wait()

    @asynccontextmanager
    async def at_work(self, channel: grpc.aio.Channel, kind: str) -> AsyncIterator[None]:
        """Take the job as soon as it is to be had."""
        stop = asyncio.Event()
        consumer = Consumer(channel, worker_id="heir", kinds=[kind], concurrency=1, handle=self.handle, grace=1.0)
        working = asyncio.create_task(consumer.run(stop))
        try:
            yield
        finally:
            stop.set()
            await working


@dataclass
class Stale:
    """Lets a worker with a wrong clock become stale, and judges what comes of it.

    Attributes:
        queue_at: Where the job is put in and taken next.
        worker_at: Where the worker that becomes stale reaches the same queue.
        cut: Cuts its connection.
    """

    account: Account
    queue_at: QueueAt
    worker_at: QueueAt
    cut: Callable[[], object]

    async def run(self, minutes: int, *, at_once: bool) -> None:
        """Do it once. The queue hears at once that the worker is gone, or has to find out."""
        kind = f"chaos-stale-{uuid.uuid4().hex[:8]}"
        async with (
            self.queue_at.connect("api") as channel,
            self.queue_at.connect("worker") as to_work,
            self._worker(kind, minutes) as worker,
        ):
            stub = queue_service_pb2_grpc.QueueServiceStub(channel)
            request = asked(kind=kind, max_attempts=100)
            job_id = (await until_answered(self.account.ledger, stub.EnqueueJob, request)).job.job_id
            clock, leased = (await _line(worker)).split()
            if leased != job_id or abs(float(clock) - time.time()) < LEAST_SKEW_SECONDS:
                self.account.ledger.violated(f"a worker with a wrong clock took {leased} at {clock}, not {job_id}")
            worker.send_signal(SIGSTOP)
            if at_once:
                self.cut()
            heir = Heir()
            async with heir.at_work(to_work, kind):
                try:
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        await heir.taken.wait()
                finally:
                    worker.send_signal(SIGCONT)
                self.account.stale(job_id, await self._settle(worker))
                heir.finish.set()
                await self._ends(stub, job_id)

    async def _settle(self, worker: asyncio.subprocess.Process) -> str:
        assert worker.stdin
        worker.stdin.write(b"settle\n")
        return await _line(worker)

    async def _ends(self, stub: queue_service_pb2_grpc.QueueServiceStub, job_id: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        state = "nothing"
        while time.monotonic() < end:
            with suppress(*PASSING):
                state = job_pb2.JobState.Name((await read(stub, job_id)).state)
                if state == "JOB_STATE_COMPLETED":
                    return
            await asyncio.sleep(0.1)
        self.account.ledger.violated(f"I3: job {job_id} is {state} after a stale worker and its heir")

    @asynccontextmanager
    async def _worker(self, kind: str, minutes: int) -> AsyncIterator[asyncio.subprocess.Process]:
        worker = await asyncio.create_subprocess_exec(
            *("env", *(f"{name}={value}" for name, value in wrong_clock(minutes).items())),
            *("setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "tests.chaos.stale"),
            *(str(self.worker_at.home), self.worker_at.address, kind),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield worker
        finally:
            with suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()


async def _line(worker: asyncio.subprocess.Process) -> str:
    assert worker.stdout
    async with asyncio.timeout(PATIENCE_SECONDS):
        return (await worker.stdout.readline()).decode().strip()


async def main(home: str, address: str, kind: str) -> None:
    """Be the worker: take a job, wait for a word, settle it, and say what the queue says."""
    async with QueueAt(Path(home), address).connect("worker") as channel:
        stub = queue_service_pb2_grpc.QueueServiceStub(channel)
        worker, lease = await _taken(stub, kind)
        print(f"{time.time():.0f} {lease.job_id}", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        while True:
            with suppress(*PASSING):
                await worker.complete(lease)
                print((await worker.hear()).WhichOneof("message"), flush=True)
                return
            await asyncio.sleep(0.1)
            with suppress(*PASSING):
                worker = await Worker.hello(stub, credit=0, kinds=(kind,))


async def _taken(stub: queue_service_pb2_grpc.QueueServiceStub, kind: str) -> tuple[Worker, JobLease]:
    while True:
        with suppress(*PASSING):
            worker = await Worker.hello(stub, kinds=(kind,))
            return worker, await worker.lease(PATIENCE_SECONDS)
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
