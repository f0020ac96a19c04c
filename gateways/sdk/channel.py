"""A channel that the generated stubs take, over grpc.aio.

The stubs are written for grpclib: they ask their channel for a stream, send messages into it and read messages from
it. `Channel` answers with the same shape and leaves the work to grpc.aio.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import grpc
from betterproto2 import Message
from grpclib.const import Cardinality
from grpclib.metadata import Deadline
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateways.sdk.errors import api_error

Metadata = Mapping[str, str | bytes] | Iterator[tuple[str, str | bytes]]
Bearer = Callable[[], Awaitable[str]]
"""Tells the token of the next call. Empty: it goes without one."""

DEADLINE_SECONDS = 30.0
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_TRACE = TraceContextTextMapPropagator()
_RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            # Every call of the contract may be repeated: what creates something carries a request id.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


class Channel:
    """A channel to the box, for any generated stub.

    Args:
        target: Where the box is: `http://127.0.0.1:8787`, `https://box.example`, `host:port` or `unix:///path` (the
            last two without TLS).
        api_key: The key that opens it, or an API token. It is sent as a bearer token with every call.
        bearer: Asked for the token of each call instead, such as a `SharedSignIn`.
        timeout: Seconds that a call with a single answer may take when it names no `timeout` or `deadline` of its own.
            Streams have none: they end with their work.
        root_certificates: PEM certificates to trust for `https` instead of the system's.
        user_agent: What the program calls itself.
        metadata: What to send along with every call.

    Example:
        ```python
        channel = Channel("http://127.0.0.1:8787", api_key=key)
        health = HealthServiceStub(channel)
        await health.get_health(timeout=2, metadata={"x-request-source": "probe"})
        await channel.close()
        ```
    """

    def __init__(
        self,
        target: str,
        *,
        api_key: str = "",
        bearer: Bearer | None = None,
        timeout: float = DEADLINE_SECONDS,
        root_certificates: bytes | None = None,
        user_agent: str = "orginabox-sdk",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        address, secure = parse_target(target)
        options = _options(address, user_agent)
        if secure:
            trust = grpc.ssl_channel_credentials(root_certificates)
            self._channel = grpc.aio.secure_channel(address, trust, options=options)
        else:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        key = {"authorization": f"Bearer {api_key}"} if api_key and bearer is None else {}
        self._bearer = bearer
        self._headers = [*key.items(), *(metadata or {}).items()]
        self._timeout = timeout

    def request(
        self,
        route: str,
        cardinality: Cardinality,
        _request_type: type[Message],
        response_type: type[Message],
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        metadata: Metadata | None = None,
    ) -> "Call":
        """Begin a call, as the generated stubs do."""
        shape = (cardinality.client_streaming, cardinality.server_streaming)
        make: Any = {
            (False, False): self._channel.unary_unary,
            (False, True): self._channel.unary_stream,
            (True, False): self._channel.stream_unary,
            (True, True): self._channel.stream_stream,
        }[shape]
        method = make(route, request_serializer=bytes, response_deserializer=response_type.parse)
        seconds = self._seconds(timeout, deadline, streams=cardinality.server_streaming)
        return Call(method, cardinality, {"timeout": seconds, "metadata": self._metadata(metadata)}, self._bearer)

    async def close(self) -> None:
        """Close the channel; calls that run are cancelled."""
        await self._channel.close()

    def _seconds(self, timeout: float | None, deadline: Deadline | None, *, streams: bool) -> float | None:
        given = [timeout] if timeout is not None else []
        if deadline is not None:
            given.append(deadline.time_remaining())
        return min(given, default=None if streams else self._timeout)

    def _metadata(self, given: Metadata | None) -> list[tuple[str, str | bytes]]:
        pairs = given.items() if isinstance(given, Mapping) else given or ()
        trace: dict[str, str] = {}
        _TRACE.inject(trace)
        return [*self._headers, *trace.items(), *((key.lower(), value) for key, value in pairs)]


class Call:
    """One call that runs: what grpclib calls a stream."""

    def __init__(
        self, method: Any, cardinality: Cardinality, arguments: Mapping[str, Any], bearer: Bearer | None = None
    ) -> None:
        self._method = method
        self._cardinality = cardinality
        self._arguments = arguments
        self._bearer = bearer
        self._call: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._call is not None and not self._call.done():
            self._call.cancel()

    async def send_request(self) -> None:
        """Open a call whose requests stream."""
        self._call = self._method(**await self._signed())

    async def send_message(self, message: Message, *, end: bool = False) -> None:  # noqa: ARG002 - a shape of grpclib
        """Send the request, or one more of them."""
        if not self._cardinality.client_streaming:
            self._call = self._method(with_request_id(message), **await self._signed())
            return
        try:
            with _refusals():
                await self._call.write(message)
        except asyncio.InvalidStateError:
            await self._ended_early()

    async def end(self) -> None:
        """Say that no request follows."""
        if not self._call.done():
            await self._call.done_writing()

    async def recv_message(self) -> Any:
        """The answer, or the next of them, or None after the last."""
        with _refusals():
            if not self._cardinality.server_streaming:
                return await self._call
            message = await self._call.read()
            return None if message is grpc.aio.EOF else message

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.recv_message()) is not None:
            yield message

    async def _signed(self) -> dict[str, Any]:
        """The arguments of the call, with the token of whoever calls."""
        token = await self._bearer() if self._bearer else ""
        if not token:
            return dict(self._arguments)
        metadata = [*self._arguments["metadata"], ("authorization", f"Bearer {token}")]
        return {**self._arguments, "metadata": metadata}

    async def _ended_early(self) -> None:
        """The box ended the call while requests were still sent: whoever reads the answers learns why."""
        if self._cardinality.server_streaming:
            raise asyncio.CancelledError  # the stub sends from a task of its own, and nobody awaits that
        await self.recv_message()


def parse_target(target: str) -> tuple[str, bool]:
    """Where to connect, and whether with TLS.

    Raises:
        ValueError: It is not an address of a box.
    """
    if "://" not in target or target.startswith("unix:"):
        return target, False
    parts = urlsplit(target)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or "@" in parts.netloc:
        raise ValueError(f"{target} is not an address of a box; it should look like http://127.0.0.1:8787")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}", secure


def with_request_id(message: Message) -> Message:
    """The message with a request id where it takes one and has none, so that a repeated call creates nothing twice."""
    if getattr(message, "request_id", None) != "":
        return message
    named = copy(message)  # the caller may send the same message again and mean something new
    named.request_id = str(uuid4())  # type: ignore[attr-defined]
    return named


def _options(address: str, user_agent: str) -> list[tuple[str, Any]]:
    return [
        ("grpc.primary_user_agent", user_agent),
        ("grpc.max_receive_message_length", 16 * 1024 * 1024),
        ("grpc.service_config", json.dumps(_RETRIES)),
        # A box that is gone without a word is noticed, and one that is back is found soon.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # The machine's proxy is for other machines.
        ("grpc.enable_http_proxy", int(not address.startswith(_LOOPBACK))),
    ]


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise api_error(error) from None
