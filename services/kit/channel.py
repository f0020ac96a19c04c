"""Channels to the other services: calls have deadlines and carry the trace, and a cut connection comes back fast."""

import json
from collections.abc import Callable
from typing import Any

import grpc

from services.kit import telemetry
from services.kit.server import OPTIONS

DEADLINE_SECONDS = 10.0

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],
            # Every call of the mesh is idempotent (it carries an id of its own), so trying again is always safe.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def connect(address: str, *, deadline: float = DEADLINE_SECONDS) -> grpc.aio.Channel:
    """A channel to a service.

    Args:
        address: Where it listens: `unix:///run/queue.sock` or `host:port`.
        deadline: Seconds that a unary call may take when it does not say otherwise. Streams have none: they end with
            their work, and keepalive finds a peer that is gone.
    """
    return grpc.aio.insecure_channel(
        address,
        options=[
            *OPTIONS,
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ],
        interceptors=[_UnaryCalls(deadline), _AnswerStreams(), _BothStreams()],
    )


class _UnaryCalls(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        details = _traced(client_call_details)
        if details.timeout is None:
            details = details._replace(timeout=self._deadline)
        return await continuation(details, request)


class _AnswerStreams(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(_traced(client_call_details), request)


class _BothStreams(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return await continuation(_traced(client_call_details), request_iterator)


def _traced(details: Any) -> Any:
    """The same call with the trace context in its metadata."""
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    if parent := telemetry.trace_parent():
        metadata["traceparent"] = parent
    return details._replace(metadata=metadata)
