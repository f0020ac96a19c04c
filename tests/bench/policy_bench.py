"""What stands around a handler, in microseconds a call: policy, identity, tenant, validation, log, span.

The handler does nothing and no wire is between: the interceptor is called as gRPC calls it. What each step costs is
found by leaving it out.
"""

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast
from unittest import mock
from uuid import UUID

import grpc
import structlog
from orginabox.api.v1 import session_service_pb2 as pb
from orginabox.api.v1 import session_service_pb2_grpc

from services.kit import mesh, telemetry
from services.kit.caller import Caller
from services.kit.gate import EDGE, Call, Gate
from services.kit.ids import new_id
from services.kit.interceptor import CallInterceptor, Context
from services.kit.policy import permissions
from tests.bench.report import Table, percentile

CALLS = 5_000
METHOD = "/orginabox.api.v1.SessionService/GetSession"
METADATA = (("authorization", "Bearer x"), ("x-forwarded-for", "127.0.0.1"), ("user-agent", "bench"))
SOMEBODY = Caller(UUID(int=1), UUID(int=2), permissions())


class Handler(session_service_pb2_grpc.SessionServiceServicer):
    """Does nothing."""

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        return pb.GetSessionResponse()


class Nowhere:
    """The context of a call without a wire."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """What came with it."""
        return METADATA


async def run() -> list[Table]:
    """Measure."""
    telemetry.configure("bench", "info", stream=open("/dev/null", "w"))  # noqa: SIM115, PTH123, ASYNC230 - kept open
    table = Table(
        "What stands around a handler",
        "Microseconds that the interceptor adds to a call of a handler that does nothing, in one process without a "
        f"wire, {CALLS:,} calls: policy by the contract, a known caller, tenant, validation, span and log line.",
        ("", "p50 us", "p99 us"),
    )
    request, context = pb.GetSessionRequest(session_id=str(new_id())), cast("Context", Nowhere())
    handler = Handler()  # type: ignore[abstract]
    bare = await _timed(lambda: handler.GetSession(request, context))
    wrapped = await _wrapped(handler)
    with mock.patch.object(mesh, "peer_of", lambda _: EDGE):  # noqa: PT008 - a mock costs more than what is measured
        whole = await _timed(lambda: wrapped(request, context))
    table.rows += [_row("handler alone", bare), _row("with everything around it", whole)]
    table.rows.append(("added", f"{_median(whole) - _median(bare):.0f}", ""))
    structlog.reset_defaults()
    return [table]


async def _wrapped(handler: Handler) -> Callable[[Any, Any], Awaitable[Any]]:
    """The handler as the server calls it."""

    async def identify(_: Call) -> Caller:
        return SOMEBODY

    method: Any = grpc.unary_unary_rpc_method_handler(handler.GetSession)

    async def found(_: Any) -> Any:
        return method

    details: Any = type("Details", (), {"method": METHOD})()
    answer: Any = await CallInterceptor(Gate(identify)).intercept_service(found, details)
    return cast("Callable[[Any, Any], Awaitable[Any]]", answer.unary_unary)


async def _timed(call: Callable[[], Awaitable[Any]]) -> list[float]:
    """How long each call took, in microseconds."""
    found = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await call()
        found.append((time.perf_counter() - began) * 1e6)
    return found


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _row(name: str, values: list[float]) -> tuple[str, str, str]:
    return name, f"{_median(values):.0f}", f"{percentile(values, 99):.0f}"
