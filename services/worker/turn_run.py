"""Runs one turn: from the queue's lease to the terminal event on disk, over the death of anything on the way.

The run itself lives in the Sandbox service, which numbers its events; the log lives in Api. This module is the pipe
between the two and keeps nothing of its own. Whatever breaks, it opens the log again, learns where it ends, and joins
the run there: no event is lost and none is written twice. Only when the run itself is gone does it write an ending.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.errors.v1 import error_reason_pb2
from orginabox.sandbox.v1 import sandbox_service_pb2, sandbox_service_pb2_grpc
from orginabox.turn.v1 import turn_event_pb2, turn_log_service_pb2, turn_log_service_pb2_grpc

from services.kit import telemetry
from services.kit.status import PREFIX, reason_of, refusal_of
from services.worker.metrics import CLAIM_TIME, CUTS, measured

CLAIM_SECONDS = 120.0
"""How long a sandbox may take to come up."""
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""How long to wait before trying again, after each failure in a row."""
MOST_FAILURES = 60
"""After so many failures in a row, about two minutes, the job goes back to the queue, which tries it again later."""

_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL}

Opened = turn_log_service_pb2.OpenTurnResponse
Events = Sequence[turn_event_pb2.TurnEvent]


def _nothing() -> None:
    """There is no place to give back."""


@dataclass(frozen=True)
class Lease:
    """The right to run one turn.

    Attributes:
        turn_id: The turn.
        attempt: Which attempt of its job this is.
        token: The fence token.
        park: Called when the turn waits for its user: another can have its place meanwhile.
        unpark: Called when it goes on.
    """

    turn_id: str
    attempt: int
    token: str
    park: Callable[[], None] = _nothing
    unpark: Callable[[], None] = _nothing


class RunRefused(Exception):
    """The sandbox will not run the turn: it ends with this refusal."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class TurnRun:
    """Runs turns.

    Args:
        log: The log of turns, in Api.
        sandboxes: Where turns run.
    """

    def __init__(
        self,
        log: turn_log_service_pb2_grpc.TurnLogServiceStub,
        sandboxes: sandbox_service_pb2_grpc.SandboxServiceStub,
    ) -> None:
        self._log = log
        self._sandboxes = sandboxes

    async def run(self, lease: Lease) -> None:
        """Run a turn to its end. Returns when the terminal event is on disk, or another worker has the turn."""
        with measured() as turn:
            measured_lease = replace(lease, park=turn.parking(lease.park), unpark=turn.unparking(lease.unpark))
            turn.how = await self._run(measured_lease)

    async def _run(self, lease: Lease) -> str:
        """Run a turn to its end, and tell how it left this worker."""
        failures = 0
        kept = _Kept()
        turn = lease
        while True:
            reached = -1
            try:
                opened = await self._open(lease)
                reached = opened.last_sequence
                # The job stands for a place in line; the log says which turn has it.
                turn = replace(lease, turn_id=opened.turn_id or lease.turn_id)
                if opened.ended or await self._pipe(turn, opened, kept):
                    return "done"
                failures = 0
            except grpc.aio.AioRpcError as error:
                reason = reason_of(error)
                if reason in {"LEASE_LOST", "TURN_NOT_FOUND", "TURN_ENDED"}:
                    telemetry.log().info("turn is not ours any more", turn_id=lease.turn_id, reason=reason)
                    if reason == "TURN_ENDED":
                        await self._stop(turn)  # whoever ended it may have come before there was a run to stop
                    return "elsewhere"
                if failures > MOST_FAILURES or (error.code() not in _PASSING and reason != "SEQUENCE_GAP"):
                    raise
                telemetry.log().warning(
                    "turn cut", turn_id=lease.turn_id, reached=reached, code=error.code().name, details=error.details()
                )
                CUTS.labels(error.code().name).inc()
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1

    async def _open(self, lease: Lease) -> Opened:
        return await self._log.OpenTurn(
            turn_log_service_pb2.OpenTurnRequest(turn_id=lease.turn_id, attempt=lease.attempt, lease_token=lease.token)
        )

    async def _pipe(self, lease: Lease, opened: Opened, kept: "_Kept") -> bool:
        """Carry the run's events into the log from where it ends; tell whether the turn has ended."""
        kept.begin_after(opened.last_sequence)
        pipe = _Pipe(self._log, self._sandboxes, lease, kept)
        try:
            with telemetry.span("sandbox claim", turn_id=lease.turn_id), CLAIM_TIME.time():
                sandbox_id = await self._claim(opened)
            return await pipe.carry(self._join(lease, opened, sandbox_id, kept.last), opened.abort_requested)
        except RunRefused as refused:
            await self._stop(lease)
            failed = _failed(lease.turn_id, kept.last + 1, refused)
            return await pipe.carry(_once([failed]), abort_requested=False)

    async def _stop(self, lease: Lease) -> None:
        """Stop the run, if there is one: what happens in it after the end would be on no record."""
        try:
            await self._sandboxes.AbortTurn(sandbox_service_pb2.AbortTurnRequest(turn_id=lease.turn_id))
        except grpc.aio.AioRpcError as error:
            telemetry.log().info("no run to stop", turn_id=lease.turn_id, reason=reason_of(error))

    async def _claim(self, opened: Opened) -> str:
        request = sandbox_service_pb2.ClaimSandboxRequest(tenant_id=opened.tenant_id, user_id=opened.user_id)
        for wait in RETRY_SECONDS:
            try:
                return (await self._sandboxes.ClaimSandbox(request, timeout=CLAIM_SECONDS)).sandbox.sandbox_id
            except grpc.aio.AioRpcError as error:
                refused = _refusal(error)
                if refused is None:
                    raise
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise refused from None
                last = refused
            await asyncio.sleep(wait)
        raise last

    async def _join(self, lease: Lease, opened: Opened, sandbox_id: str, after: int) -> AsyncIterator[Events]:
        request = sandbox_service_pb2.RunTurnRequest(
            tenant_id=opened.tenant_id,
            sandbox_id=sandbox_id,
            session_id=opened.session_id,
            turn_id=lease.turn_id,
            text=opened.text,
            model=opened.model if opened.HasField("model") else None,
            after_sequence=after,
            tools=opened.tools,
        )
        try:
            async for answer in self._sandboxes.RunTurn(request):
                if answer.waits_for_user:
                    lease.park()
                else:
                    lease.unpark()
                if answer.events:
                    yield answer.events
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise
            if refused := _refusal(error):
                raise refused from None
            raise


class _Kept:
    """The events that the log was given and that are not known to be on disk.

    Readers may have seen them, so they must not get lost with the sandbox that said them: they are given again.
    """

    def __init__(self) -> None:
        self.events: deque[turn_event_pb2.TurnEvent] = deque()
        self.last = 0

    def begin_after(self, sequence: int) -> None:
        """The log ends there: what follows it is kept, unless another worker has written since."""
        self.on_disk(sequence)
        if not self.events or self.events[0].sequence != sequence + 1:
            self.events.clear()
            self.last = sequence

    def add(self, events: Events) -> None:
        """The log is given these."""
        fresh = [event for event in events if event.sequence > self.last]
        self.events.extend(fresh)
        self.last = max(self.last, events[-1].sequence)

    def on_disk(self, sequence: int) -> None:
        """The log has everything up to that number."""
        while self.events and self.events[0].sequence <= sequence:
            self.events.popleft()


class _Pipe:
    """Carries events into one log, and tells the sandbox when the user wants the turn to stop."""

    def __init__(
        self,
        log: turn_log_service_pb2_grpc.TurnLogServiceStub,
        sandboxes: sandbox_service_pb2_grpc.SandboxServiceStub,
        lease: Lease,
        kept: _Kept,
    ) -> None:
        self._log = log
        self._sandboxes = sandboxes
        self._lease = lease
        self._kept = kept
        self._aborting: asyncio.Task[None] | None = None

    async def carry(self, run: AsyncIterator[Events], abort_requested: bool) -> bool:
        """Carry events until the run ends or one of the streams breaks; tell whether a terminal event is on disk."""
        append = self._log.AppendTurnEvents()
        feeding = asyncio.create_task(self._feed(run, append))
        reached = 0
        try:
            if abort_requested:
                self._abort()
            async for durable in append:
                reached = durable.durable_sequence
                self._kept.on_disk(reached)
                if durable.abort_requested:
                    self._abort()
            # Api has written all that it was given. What ended the run, an event or a refusal, is the task's to tell.
            terminal = await feeding
            return 0 < terminal <= reached
        finally:
            append.cancel()
            feeding.cancel()
            await asyncio.wait([feeding])

    async def _feed(
        self,
        run: AsyncIterator[Events],
        append: grpc.aio.StreamStreamCall[
            turn_log_service_pb2.AppendTurnEventsRequest, turn_log_service_pb2.AppendTurnEventsResponse
        ],
    ) -> int:
        """Write events as they come; return the number of the terminal one, or 0 when the run's stream ended early."""
        try:
            async for events in _after(list(self._kept.events), run):
                self._kept.add(events)
                await append.write(
                    turn_log_service_pb2.AppendTurnEventsRequest(
                        turn_id=self._lease.turn_id, lease_token=self._lease.token, events=events
                    )
                )
                if is_terminal(events[-1]):
                    return events[-1].sequence
            return 0
        finally:
            with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
                await append.done_writing()

    def _abort(self) -> None:
        if self._aborting is None:
            self._aborting = asyncio.create_task(self._stop_run())

    async def _stop_run(self) -> None:
        request = sandbox_service_pb2.AbortTurnRequest(turn_id=self._lease.turn_id)
        for wait in RETRY_SECONDS:
            try:
                await self._sandboxes.AbortTurn(request)
            except grpc.aio.AioRpcError as error:
                telemetry.log().info("abort waits for the run", turn_id=self._lease.turn_id, reason=reason_of(error))
            else:
                return
            await asyncio.sleep(wait)


def is_terminal(event: turn_event_pb2.TurnEvent) -> bool:
    """Whether nothing can follow an event."""
    return event.WhichOneof("event") in {"completed", "failed", "aborted"}


async def _once(events: Events) -> AsyncIterator[Events]:
    yield events


async def _after(first: Events, rest: AsyncIterator[Events]) -> AsyncIterator[Events]:
    if first:
        yield first
    if not first or not is_terminal(first[-1]):
        async for events in rest:
            yield events


def _refusal(error: grpc.aio.AioRpcError) -> RunRefused | None:
    """What the sandbox refused, or None when the call failed on its way."""
    status = refusal_of(error)
    reason = reason_of(error)
    if status is None or reason in {"SERVICE_UNAVAILABLE", "DEADLINE_EXCEEDED"}:
        return None
    return RunRefused(reason, status.message)


def _failed(turn_id: str, sequence: int, refused: RunRefused) -> turn_event_pb2.TurnEvent:
    now = Timestamp()
    now.FromDatetime(datetime.now(UTC))
    return turn_event_pb2.TurnEvent(
        sequence=sequence,
        turn_id=turn_id,
        create_time=now,
        failed=turn_event_pb2.TurnFailed(
            reason=error_reason_pb2.ErrorReason.Value(PREFIX + refused.reason), message=refused.message
        ),
    )
