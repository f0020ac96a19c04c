"""The worker's end of the queue's `Work` stream: takes leased jobs, runs them as tasks, settles them, for ever.

What the queue promises makes this simple. A job comes again until its settlement is on disk, so nothing is sent twice:
after a cut stream everything is forgotten, and whatever was not settled comes by itself.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import grpc
from google.protobuf.duration_pb2 import Duration
from orginabox.queue.v1 import queue_service_pb2, queue_service_pb2_grpc

from services.kit.telemetry import log, span, traces_are_kept

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.5
SILENCE_SECONDS = 15.0
"""The queue sends a heartbeat every 5 seconds. When nothing comes for this long the stream is given up."""
GRACE_SECONDS = 10.0
GOODBYE_SECONDS = 1.0
MOST_PARKED = 5000
"""How many jobs of one worker can wait without a place. More of them keep theirs."""
CLEAN_UP_SECONDS = 3.0
"""How long jobs that were told to stop may take for it, before their stream is closed all the same."""


class JobFailed(Exception):
    """The attempt failed. The job comes again, after the queue's own back-off or the given delay.

    Any other exception of a handler counts as this one.
    """

    permanent = False

    def __init__(self, message: str, retry_delay: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_delay = retry_delay


class PermanentFailure(JobFailed):
    """Another attempt is useless: the job goes to the dead letters."""

    permanent = True


@dataclass(eq=False, slots=True)
class Lease:
    """A job in the hands of this worker.

    Attributes:
        token: The fence token: whoever is written to by this job can tell an old lease from the new one by it.
        attempt: Counts the leases of the job, this one included.
        cancelled: Whether somebody cancelled the job. The handler's task is cancelled then; it is also cancelled, with
            this False, when the lease is lost: then the job goes on elsewhere and its work must not be undone.
        places: What `park` and `unpark` speak to.
    """

    job_id: str
    token: str
    tenant_id: str
    kind: str
    key: str
    payload: bytes
    attempt: int
    max_attempts: int
    idempotency_key: str
    trace_parent: str
    cancelled: bool = False
    places: "_Places | None" = field(default=None, repr=False)

    def park(self) -> None:
        """The job waits for somebody and does nothing: another may run beside it. Twice is the same as once."""
        if self.places:
            self.places.park(self.token)

    def unpark(self) -> None:
        """The job goes on at once. If its place was taken, the next job that ends is not followed by another."""
        if self.places:
            self.places.unpark(self.token)


@dataclass(eq=False)
class _Places:
    """The places of one stream: one for each job that works, none for one that is parked.

    A parked job gives its place away and does not wait for another when it goes on: what it waited for has come. So as
    many jobs more than there are places work for a while as came back, and no new one until they are through.
    """

    grant: Callable[[int], None]
    parked: set[str] = field(default_factory=set)
    owed: int = 0

    def park(self, token: str) -> None:
        """A job gives its place away."""
        if token not in self.parked and len(self.parked) < MOST_PARKED:
            self.parked.add(token)
            self._free()

    def unpark(self, token: str) -> None:
        """A job takes a place that it had given away."""
        if token in self.parked:
            self.parked.remove(token)
            self.owed += 1

    def leave(self, token: str) -> None:
        """A job has ended."""
        if token in self.parked:
            self.parked.remove(token)
        else:
            self._free()

    def _free(self) -> None:
        if self.owed:
            self.owed -= 1
        else:
            self.grant(1)


Handle = Callable[[Lease], Awaitable[None]]


@dataclass(eq=False)
class _Stream:
    """One connection: what is still to be said on it, and the jobs that came over it.

    Attributes:
        words: What has to be said in its order, and first.
        completed: The tokens of jobs that are done.
        failed: The jobs that are not.
        credit: How many more jobs the worker can take.
        ending: Nothing comes after what is to be said now.
        told: Set while there is something to say.
        loop: Runs the jobs. To ask for it is a call of the system, so it is asked for once.
    """

    words: deque[queue_service_pb2.WorkRequest] = field(default_factory=deque)
    completed: list[str] = field(default_factory=list)
    failed: list[queue_service_pb2.JobFailure] = field(default_factory=list)
    credit: int = 0
    ending: bool = False
    told: asyncio.Event = field(default_factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    running: dict[str, tuple[Lease, asyncio.Task[None]]] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)
    welcomed: bool = False
    draining: bool = False
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    places: _Places = field(init=False)

    def __post_init__(self) -> None:
        self.places = _Places(self.grant)

    def say(self, request: queue_service_pb2.WorkRequest) -> None:
        self.words.append(request)
        self.told.set()

    def grant(self, credit: int) -> None:
        if not self.draining:
            self.credit += credit
            self.told.set()

    def end(self) -> None:
        """Say what is to be said, and close."""
        self.ending = True
        self.told.set()

    def note(self) -> None:
        """Remember whether everything that came is done and settled."""
        if self.running or self.unsettled:
            self.quiet.clear()
        else:
            self.quiet.set()

    async def requests(self) -> AsyncIterator[queue_service_pb2.WorkRequest]:
        """What the worker says, until the end of the stream: what waits is said in as few words as will do."""
        ending = False
        while not ending:
            await self.told.wait()
            self.told.clear()
            ending = self.ending
            for request in self._waiting():
                yield request

    def _waiting(self) -> Iterator[queue_service_pb2.WorkRequest]:
        """All settlements in one, and all credit in one that comes after it."""
        while self.words:
            yield self.words.popleft()
        if self.completed or self.failed:
            settle = queue_service_pb2.Settlements(completed=self.completed, failed=self.failed)
            self.completed, self.failed = [], []
            yield queue_service_pb2.WorkRequest(settle=settle)
        if self.credit and not self.draining:
            grant = queue_service_pb2.CreditGrant(credit=self.credit)
            self.credit = 0
            yield queue_service_pb2.WorkRequest(grant=grant)


class Consumer:
    """Takes jobs from the queue and has them handled.

    Args:
        channel: To the queue.
        worker_id: The name of this worker, for people and logs.
        kinds: The kinds of jobs that it takes.
        concurrency: How many jobs run at once. The queue never gives more.
        handle: Does a job. It returns when the job is done, and raises when it failed: `PermanentFailure` when trying
            again is useless. It is cancelled when its lease has ended.
        grace: Seconds that running jobs have to end when the worker is told to stop.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        worker_id: str,
        kinds: Sequence[str],
        concurrency: int,
        handle: Handle,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._stub = queue_service_pb2_grpc.QueueServiceStub(channel)
        self._hello = queue_service_pb2.WorkerHello(worker_id=worker_id, kinds=kinds)
        self._concurrency = concurrency
        self._handle = handle
        self._grace = grace
        self._draining = False
        self._traced = traces_are_kept()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop. Then take nothing new, let what runs end within the grace, and close the stream."""
        stopping = asyncio.create_task(stop.wait())
        pause = FIRST_PAUSE_SECONDS
        try:
            while not stop.is_set():
                stream = _Stream()
                await self._work(stream, stopping)
                pause = FIRST_PAUSE_SECONDS if stream.welcomed else min(pause * 2, LONGEST_PAUSE_SECONDS)
                await asyncio.wait([stopping], timeout=pause * (0.5 + random.random()))  # noqa: S311 - spreads load
        finally:
            stopping.cancel()

    async def _work(self, stream: _Stream, stopping: asyncio.Task[bool]) -> None:
        """Work over one stream until it breaks or the worker has to stop."""
        stream.say(queue_service_pb2.WorkRequest(hello=self._hello))
        stream.grant(self._concurrency)
        hearing = asyncio.create_task(self._hear(stream))
        try:
            await asyncio.wait([hearing, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done():
                await self._drain(stream, hearing)
        finally:
            await self._abandon(stream)
            stream.end()  # jobs that are given back so are not blamed for it
            await asyncio.wait([hearing], timeout=GOODBYE_SECONDS)
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    async def _hear(self, stream: _Stream) -> None:
        """Take in what the queue says until the stream ends."""
        call = self._stub.Work(stream.requests())
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    response = await call.read()
                if response is grpc.aio.EOF or not isinstance(response, queue_service_pb2.WorkResponse):
                    log().info("work stream ended", code=(await call.code()).name, details=await call.details())
                    return
                self._take(stream, response)
        except grpc.aio.AioRpcError as error:
            log().info("work stream broke", code=error.code().name, details=error.details())
        except TimeoutError:
            log().warning("work stream fell silent")
        finally:
            call.cancel()

    def _take(self, stream: _Stream, response: queue_service_pb2.WorkResponse) -> None:
        match response.WhichOneof("message"):
            case "welcome":
                stream.welcomed = True
                log().info("work stream open", session_id=response.welcome.worker_session_id)
            case "leases":
                for lease in _leases(response.leases, stream.places):
                    self._start(stream, lease)
                stream.note()
            case "settled":
                stream.unsettled.difference_update(response.settled.lease_tokens)
                stream.note()
            case "lease_ended":
                self._stop(stream, response.lease_ended)
            case _:
                pass  # a heartbeat, or a word that only newer workers know

    def _start(self, stream: _Stream, lease: Lease) -> None:
        if self._draining and lease.attempt < lease.max_attempts:
            # It crossed the decision to stop; another worker can have it at once.
            self._fail(stream, lease, JobFailed("the worker was about to stop", timedelta()))
            return
        task = stream.loop.create_task(self._run(lease))
        stream.running[lease.token] = (lease, task)
        task.add_done_callback(partial(self._ended, stream, lease))

    def _stop(self, stream: _Stream, ended: queue_service_pb2.LeaseEnded) -> None:
        stream.unsettled.discard(ended.lease_token)
        stream.note()
        if ended.lease_token in stream.running:
            lease, task = stream.running[ended.lease_token]
            lease.cancelled = ended.cancelled
            task.cancel()

    async def _run(self, lease: Lease) -> None:
        if not lease.trace_parent and not self._traced:
            await self._handle(lease)  # a span that nobody will see costs more than all else that is done for a job
            return
        with span(f"job {lease.kind}", parent=lease.trace_parent, job_id=lease.job_id):
            await self._handle(lease)

    def _ended(self, stream: _Stream, lease: Lease, task: asyncio.Task[None]) -> None:
        """Settle a job whose task has ended, and take another one."""
        stream.running.pop(lease.token, None)
        if not task.cancelled():
            self._settle_by(stream, lease, task.exception())
        elif lease.cancelled:
            # The queue lets the next job of the key run when it hears that this one has stopped.
            self._fail(stream, lease, PermanentFailure("cancelled"))
        stream.note()
        stream.places.leave(lease.token)

    def _settle_by(self, stream: _Stream, lease: Lease, error: BaseException | None) -> None:
        if error is None:
            stream.completed.append(lease.token)
            self._settled(stream, lease)
        else:
            log().warning("job failed", kind=lease.kind, job_id=lease.job_id, attempt=lease.attempt, exc_info=error)
            self._fail(stream, lease, error)

    def _fail(self, stream: _Stream, lease: Lease, error: BaseException) -> None:
        failure = queue_service_pb2.JobFailure(
            lease_token=lease.token,
            error=str(error) or type(error).__name__,
            permanent=bool(getattr(error, "permanent", False)),
        )
        delay = getattr(error, "retry_delay", None)
        if isinstance(delay, timedelta):
            failure.retry_delay.CopyFrom(_duration(delay))
        stream.failed.append(failure)
        self._settled(stream, lease)

    def _settled(self, stream: _Stream, lease: Lease) -> None:
        """A settlement is on its way. The job is on the worker's mind until the queue says that it is on disk."""
        stream.unsettled.add(lease.token)
        stream.told.set()

    async def _drain(self, stream: _Stream, hearing: asyncio.Task[None]) -> None:
        """Take nothing more, and let what runs end, but not for ever."""
        self._draining = stream.draining = True
        stream.say(queue_service_pb2.WorkRequest(drain=queue_service_pb2.WorkerDrain()))
        stream.note()
        quiet = asyncio.create_task(stream.quiet.wait())
        await asyncio.wait([hearing, quiet], timeout=self._grace, return_when=asyncio.FIRST_COMPLETED)
        quiet.cancel()
        if stream.running:
            log().warning("stopping with jobs running", jobs=len(stream.running))

    async def _abandon(self, stream: _Stream) -> None:
        """Stop the jobs of a stream that is gone: their leases went with it, and they come again."""
        tasks = [task for _, task in stream.running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            _, stubborn = await asyncio.wait(tasks, timeout=CLEAN_UP_SECONDS)
            if stubborn:
                log().error("jobs do not stop", count=len(stubborn))


def _leases(leases: queue_service_pb2.JobLeases, places: _Places) -> Iterator[Lease]:
    columns = (
        leases.job_ids,
        leases.lease_tokens,
        leases.tenant_ids,
        leases.kinds,
        leases.keys,
        leases.payloads,
        leases.attempts,
        leases.max_attempts,
        leases.idempotency_keys,
        leases.trace_parents,
    )
    for job_id, token, tenant_id, kind, key, payload, attempt, most, idempotency_key, trace_parent in zip(
        *columns, strict=True
    ):
        yield Lease(
            job_id, token, tenant_id, kind, key, payload, attempt, most, idempotency_key, trace_parent, places=places
        )


def _duration(delay: timedelta) -> Duration:
    found = Duration()
    found.FromTimedelta(delay)
    return found
