"""One interceptor for every call: a trace and a log line, who calls, is the request valid, and refusals to statuses.

What else a server needs stands around its handlers as layers. A layer is an async context manager over a `Call`; what
it raises as a DomainError becomes the status of the call.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import protovalidate
from google.protobuf.message import Message
from google.rpc import status_pb2
from opentelemetry.trace import SpanKind
from orginabox.options.v1 import options_pb2

from services.kit import status, telemetry
from services.kit.errors import DomainError
from services.kit.policy import policy_of

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]
_VALIDATOR = protovalidate.Validator()


@dataclass(frozen=True)
class Call:
    """A call on its way to the handler."""

    method: str
    policy: options_pb2.MethodPolicy | None
    metadata: dict[str, str]
    context: Context


Layer = Callable[[Call], AbstractAsyncContextManager[None]]


class InvalidRequest(Exception):
    """The request breaks rules of the contract."""

    def __init__(self, violations: list[protovalidate.Violation]) -> None:
        super().__init__(violations[0].proto.message)
        self.violations = violations


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of a server.

    Args:
        layers: What stands around the handlers of this server beside the trace and the refusals, outermost first.
    """

    def __init__(self, layers: Sequence[Layer] = ()) -> None:
        self._layers = layers

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Find the handler of the call and wrap it."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith("/grpc."):
            return handler
        return self._wrap(handler, handler_call_details.method)

    def _wrap(self, handler: Any, method: str) -> "grpc.RpcMethodHandler[Any, Any]":
        inner = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def answer(request: Any, context: Context) -> Any:
            async with self._around(method, context):
                return await shielded(inner(_checked(request, handler.request_streaming), context))

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._around(method, context):
                async for message in inner(_checked(request, handler.request_streaming), context):
                    yield message

        shapes: dict[tuple[bool, bool], Any] = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }
        made: grpc.RpcMethodHandler[Any, Any] = shapes[handler.request_streaming, handler.response_streaming](
            stream if handler.response_streaming else answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=_or_bytes(handler.response_serializer),
        )
        return made

    @asynccontextmanager
    async def _around(self, method: str, context: Context) -> AsyncIterator[None]:
        metadata = {
            key: value if isinstance(value, str) else value.decode(errors="replace")
            for key, value in context.invocation_metadata() or ()
            if not key.endswith("-bin")
        }
        call = Call(method, policy_of(method), metadata, context)
        started = time.perf_counter()
        parent = metadata.get("traceparent", "")
        with telemetry.span(method.lstrip("/"), parent=parent, kind=SpanKind.SERVER):
            refused: status_pb2.Status | None = None
            cut = True
            try:
                async with AsyncExitStack() as stack:
                    for layer in self._layers:
                        await stack.enter_async_context(layer(call))
                    yield
                cut = False
            except Exception as error:  # noqa: BLE001 - whatever it is, none of it may reach the caller
                refused = _status_of(error, method)
                cut = False
            finally:
                code = _CODE_BY_NUMBER[refused.code] if refused else grpc.StatusCode.OK
                if cut:
                    code = grpc.StatusCode.CANCELLED
                telemetry.log().info(
                    "call ended", method=method, code=code.name, ms=round((time.perf_counter() - started) * 1000, 2)
                )
            if refused is not None:
                await status.abort(context, refused)


def _or_bytes(serializer: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Serializes what a handler answers. What it has in the contract's bytes goes out as it is."""

    def serialize(message: Any) -> bytes:
        return message if type(message) is bytes else serializer(message)

    return serialize


def _checked(request: Any, streaming: bool) -> Any:
    if streaming:
        return _check_each(request)
    _check(request)
    return request


async def _check_each(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        _check(request)
        yield request


def _check(request: Message) -> None:
    if violations := _VALIDATOR.collect_violations(request):
        raise InvalidRequest(violations)


def _status_of(error: Exception, method: str) -> status_pb2.Status:
    match error:
        case DomainError():
            if error.__cause__ is not None:
                telemetry.log().warning("call refused", method=method, reason=error.reason, cause=repr(error.__cause__))
            return status.refusal_to_status(error)
        case InvalidRequest():
            return status.violations_to_status(error.violations)
        case grpc.aio.AioRpcError():
            telemetry.log().warning("a service refused", method=method, code=error.code().name, details=error.details())
            return status.remote_to_status(error)
        case _:
            telemetry.log().error("call failed", method=method, exc_info=error)
            return status.fault_to_status()


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Run work to its end even when the caller goes away, so that no transaction is cut in its middle.

    The caller's cancellation is raised after the work has ended.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # whoever asked has gone: nobody else will look at it
        raise


_CODE_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
