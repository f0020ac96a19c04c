"""Events that readers may have seen outlive their sandbox, even when the disk had not taken them yet."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from orginabox.errors.v1 import error_reason_pb2
from orginabox.sandbox.v1 import sandbox_pb2, sandbox_service_pb2
from orginabox.turn.v1 import turn_event_pb2, turn_log_service_pb2

from services.kit.errors import DomainError, Kind
from services.kit.status import refusal_to_status
from services.worker.turn_run import Lease, TurnRun

EVENTS = [
    turn_event_pb2.TurnEvent(sequence=n, turn_id="t", text_delta=turn_event_pb2.TextDelta(part_id="p", text=f"{n} "))
    for n in (1, 2, 3)
]


def refused(code: grpc.StatusCode, *metadata: tuple[str, bytes]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata))


class RunLost(DomainError):
    """As the Sandbox service says it."""

    kind = Kind.FAILED_PRECONDITION
    reason = "RUN_LOST"


def run_lost() -> grpc.aio.AioRpcError:
    status = refusal_to_status(RunLost("the run is not known any more"))
    return refused(grpc.StatusCode.FAILED_PRECONDITION, ("grpc-status-details-bin", status.SerializeToString()))


class Sandboxes:
    """Says some events once, and then knows nothing of them any more."""

    def __init__(self) -> None:
        self.joined: list[int] = []

    async def ClaimSandbox(self, request: Any, **_: Any) -> sandbox_service_pb2.ClaimSandboxResponse:
        return sandbox_service_pb2.ClaimSandboxResponse(sandbox=sandbox_pb2.Sandbox(sandbox_id="s"))

    async def AbortTurn(self, request: Any, **_: Any) -> sandbox_service_pb2.AbortTurnResponse:
        raise run_lost()

    async def RunTurn(
        self, request: sandbox_service_pb2.RunTurnRequest
    ) -> AsyncIterator[sandbox_service_pb2.RunTurnResponse]:
        self.joined.append(request.after_sequence)
        if len(self.joined) > 1:
            raise run_lost()
        yield sandbox_service_pb2.RunTurnResponse(events=EVENTS)
        await asyncio.Event().wait()


class Log:
    """A log that shows its readers what it is given, and whose disk is away at first."""

    def __init__(self) -> None:
        self.seen: list[turn_event_pb2.TurnEvent] = []
        self.disk: list[turn_event_pb2.TurnEvent] = []
        self.streams = 0

    async def OpenTurn(self, request: Any) -> turn_log_service_pb2.OpenTurnResponse:
        return turn_log_service_pb2.OpenTurnResponse(last_sequence=len(self.disk))

    def AppendTurnEvents(self) -> "Stream":
        self.streams += 1
        return Stream(self, breaks=self.streams == 1)


class Stream:
    """One stream into the log."""

    def __init__(self, log: Log, *, breaks: bool) -> None:
        self._log = log
        self._breaks = breaks
        self._given = asyncio.Event()
        self._closed = asyncio.Event()

    async def write(self, request: turn_log_service_pb2.AppendTurnEventsRequest) -> None:
        self._log.seen += request.events
        if not self._breaks:
            self._log.disk += request.events
        self._given.set()

    async def done_writing(self) -> None:
        self._closed.set()

    def cancel(self) -> None:
        self._closed.set()

    async def __aiter__(self) -> AsyncIterator[turn_log_service_pb2.AppendTurnEventsResponse]:
        if self._breaks:
            await self._given.wait()
            raise refused(grpc.StatusCode.UNAVAILABLE)
        await self._closed.wait()
        yield turn_log_service_pb2.AppendTurnEventsResponse(durable_sequence=len(self._log.disk))


async def test_what_was_shown_is_written_before_the_end_is() -> None:
    log, sandboxes = Log(), Sandboxes()
    made: Any = TurnRun
    async with asyncio.timeout(10):
        await made(log, sandboxes).run(Lease("t", 1, "token"))
    assert log.disk[:3] == log.seen[:3] == EVENTS
    assert [event.sequence for event in log.disk] == [1, 2, 3, 4]
    assert log.disk[3].failed.reason == error_reason_pb2.ERROR_REASON_RUN_LOST
    assert sandboxes.joined == [0, 3]
