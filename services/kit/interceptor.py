"""One interceptor for every call: a trace, who calls and may they, is the request valid, in which tenant does it act.

They come in this order, and what is refused on the way becomes a status. What the contract says of a method decides
(services/kit/gate.py); what it says of a field keeps secrets out of logs and answers.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import grpc
import protovalidate
from google.protobuf.message import Message
from google.rpc import status_pb2
from opentelemetry.trace import SpanKind

from services.kit import mesh, status, telemetry, tenancy
from services.kit.caller import current
from services.kit.errors import DomainError, PermissionDenied
from services.kit.gate import Call, Gate
from services.kit.policy import Access, Rule, rule_of
from services.kit.redact import clear_input_only, redacted
from services.kit.watch import watched

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]
_VALIDATOR = protovalidate.Validator()


class InvalidRequest(Exception):
    """The request breaks rules of the contract."""

    def __init__(self, violations: list[protovalidate.Violation]) -> None:
        super().__init__(violations[0].proto.message)
        self.violations = violations


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of a server.

    Args:
        gate: Lets calls in.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

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

        rule = rule_of(method)

        async def answer(request: Any, context: Context) -> Any:
            async with self._around(method, rule, context):
                checked = _checked(request, handler.request_streaming)
                _tell(method, request)
                with tenancy.within(_scope(rule, request)):
                    return _without_secrets(await shielded(inner(checked, context)))

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._around(method, rule, context) as call:
                checked = _checked(request, handler.request_streaming)
                with tenancy.within(_scope(rule, request)):
                    async for message in self._watched(call, inner(checked, context)):
                        yield _without_secrets(message)

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

    def _watched(self, call: Call, messages: AsyncIterator[T]) -> AsyncIterator[T]:
        """A stream, which ends when its user may not have it any more."""
        somebody = current()
        if somebody is None or call.rule.access is not Access.USER:
            return messages
        return watched(messages, partial(self._gate.still, call, somebody))

    @asynccontextmanager
    async def _around(self, method: str, rule: Rule, context: Context) -> AsyncIterator[Call]:
        metadata = {
            key: value if isinstance(value, str) else value.decode(errors="replace")
            for key, value in context.invocation_metadata() or ()
            if not key.endswith("-bin")
        }
        call = Call(rule, method, metadata, mesh.peer_of(context), context)
        started = time.perf_counter()
        parent = metadata.get("traceparent", "")
        with telemetry.span(method.lstrip("/"), parent=parent, kind=SpanKind.SERVER):
            refused: status_pb2.Status | None = None
            cut = True
            try:
                async with self._gate.admitted(call):
                    yield call
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


def _tell(method: str, request: Any) -> None:
    """Log what is asked for, where somebody looks that closely."""
    if isinstance(request, Message) and telemetry.log().is_enabled_for(logging.DEBUG):
        telemetry.log().debug("call began", method=method, request=redacted(request))


def _without_secrets(answer: Any) -> Any:
    """An answer without what is for input only. One in the contract's bytes is a log's own, and holds none."""
    if isinstance(answer, Message):
        clear_input_only(answer)
    return answer


def _scope(rule: Rule, request: Any) -> tenancy.Scope:
    """In which tenant a call acts: a user in theirs, a service in the one that its request names.

    Raises:
        PermissionDenied: A service acts for a user, and in another tenant than theirs.
    """
    somebody = current()
    if rule.access is Access.INTERNAL and rule.names_tenant:
        named = UUID(request.tenant_id)
        if somebody is not None and somebody.tenant_id != named:
            raise PermissionDenied("a user acts in their own tenant", permission="")
        return named
    return somebody.tenant_id if somebody is not None else tenancy.SYSTEM


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
