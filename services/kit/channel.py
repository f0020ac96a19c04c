"""Channels to the other services: both sides prove who they are, calls have deadlines and carry the trace.

gRPC's own channel keeps the certificate that it was made with. Ours makes a new one inside when the certificate of this
process was renewed: calls that run stay on the one that they began on, which closes when the last of them has ended.
"""

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from services.kit import telemetry
from services.kit.caller import current
from services.kit.certificates import dns_name
from services.kit.mesh import Credentials, MeshIdentity
from services.kit.server import OPTIONS
from services.kit.user_token import HEADER, SIGNER, tokens_of

DEADLINE_SECONDS = 10.0
# Longer than any stream lasts.
_UNTIL_STREAMS_END = 10.0 * 365 * 24 * 3600

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

Metadata = tuple[tuple[str, str], ...]


def connect(address: str, *, to: str, identity: MeshIdentity, deadline: float = DEADLINE_SECONDS) -> "RenewingChannel":
    """A channel to a service.

    Args:
        address: Where it listens: `unix:///run/queue.sock` or `host:port`.
        to: The name of the service. Whoever answers has to prove that it is this one.
        identity: Who calls.
        deadline: Seconds that a unary call may take when it does not say otherwise. Streams have none: they end with
            their work, and keepalive finds a peer that is gone.
    """
    options = [
        *OPTIONS,
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.ssl_target_name_override", dns_name(to)),
        # A connection that another channel made has another certificate.
        ("grpc.use_local_subchannel_pool", 1),
    ]

    def dial() -> grpc.aio.Channel:
        return grpc.aio.secure_channel(address, identity.channel_credentials(), options=options)

    def passport() -> Metadata:
        return (*_trace(), *_user(identity, to))

    return RenewingChannel(identity, dial, passport, deadline)


class RenewingChannel(grpc.aio.Channel):
    """A channel that follows the certificate of this process.

    Args:
        identity: Who calls.
        dial: Makes a channel with the certificate as it is now.
        passport: What every call carries besides its own metadata.
        deadline: Seconds that a unary call may take when it does not say otherwise.
    """

    def __init__(
        self,
        identity: MeshIdentity,
        dial: Callable[[], grpc.aio.Channel],
        passport: Callable[[], Metadata],
        deadline: float,
    ) -> None:
        self.passport = passport
        self._identity = identity
        self._dial = dial
        self._deadline = deadline
        self._credentials: Credentials = identity.credentials
        self._channel = dial()
        self._retired: dict[grpc.aio.Channel, asyncio.Task[None]] = {}

    def current(self) -> grpc.aio.Channel:
        """The channel for a call that begins now."""
        credentials = self._identity.credentials
        if credentials is not self._credentials:
            old, self._credentials, self._channel = self._channel, credentials, self._dial()
            closing = asyncio.create_task(old.close(_UNTIL_STREAMS_END))
            self._retired[old] = closing
            closing.add_done_callback(lambda _: self._retired.pop(old, None))
        return self._channel

    def unary_unary(self, *method: Any, **form: Any) -> Any:
        """A method that takes one message and answers with one."""
        return _Method(self, "unary_unary", method, form, self._deadline)

    def unary_stream(self, *method: Any, **form: Any) -> Any:
        """A method that takes one message and answers with many."""
        return _Method(self, "unary_stream", method, form, None)

    def stream_unary(self, *method: Any, **form: Any) -> Any:
        """A method that takes many messages and answers with one."""
        return _Method(self, "stream_unary", method, form, None)

    def stream_stream(self, *method: Any, **form: Any) -> Any:
        """A method that takes many messages and answers with many."""
        return _Method(self, "stream_stream", method, form, None)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """How the connection stands."""
        return self.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the connection stands otherwise."""
        await self.current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until there is a connection."""
        await self.current().channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """Cancel the calls that run after so many seconds, and close."""
        await asyncio.gather(*(channel.close(grace) for channel in (self._channel, *self._retired)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()


class _Method:
    """A method of a service: each call goes out on the channel of the moment, with its deadline and the trace."""

    def __init__(
        self, owner: RenewingChannel, shape: str, method: tuple[Any, ...], form: dict[str, Any], deadline: float | None
    ) -> None:
        self._owner = owner
        self._shape = shape
        self._method = method
        self._form = form
        self._deadline = deadline
        self._channel: grpc.aio.Channel | None = None
        self._call: Callable[..., Any]

    def __call__(self, *request: Any, timeout: float | None = None, metadata: Any = None, **more: Any) -> grpc.aio.Call:
        channel = self._owner.current()
        if channel is not self._channel:
            self._call = getattr(channel, self._shape)(*self._method, **self._form)
            self._channel = channel
        made: grpc.aio.Call = self._call(
            *request,
            timeout=self._deadline if timeout is None else timeout,
            metadata=(*(metadata or ()), *self._owner.passport()),
            **more,
        )
        return made


def _trace() -> Metadata:
    parent = telemetry.trace_parent()
    return (("traceparent", parent),) if parent else ()


def _user(identity: MeshIdentity, to: str) -> Metadata:
    """On whose behalf Api calls. Nobody else can say it."""
    caller = current() if identity.name == SIGNER else None
    return ((HEADER, tokens_of(identity).of(caller, to)),) if caller else ()
