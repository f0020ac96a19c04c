"""A channel for tests that call many methods of a service: each call comes from a service that may make it."""

import asyncio
from typing import Any, Self

import grpc

from services.kit.channel import RenewingChannel, connect
from services.kit.policy import Access, rule_of
from tests.identities import identity

EDGE = "envoy"


class AllowedChannel(grpc.aio.Channel):
    """Calls each method as one of the services that the contract lets call it, and what is for people as the edge.

    Args:
        address: Where the service listens.
        to: The name of the service.
    """

    def __init__(self, address: str, to: str) -> None:
        self._address = address
        self._to = to
        self._channels: dict[str, RenewingChannel] = {}

    def as_service(self, name: str) -> RenewingChannel:
        """The channel of one of the services."""
        if name not in self._channels:
            self._channels[name] = connect(self._address, to=self._to, identity=identity(name))
        return self._channels[name]

    def _of(self, method: str) -> RenewingChannel:
        rule = rule_of(method)
        return self.as_service(min(rule.callers) if rule.access is Access.INTERNAL else EDGE)

    def unary_unary(self, method: str, *form: Any, **more: Any) -> Any:
        return self._of(method).unary_unary(method, *form, **more)

    def unary_stream(self, method: str, *form: Any, **more: Any) -> Any:
        return self._of(method).unary_stream(method, *form, **more)

    def stream_unary(self, method: str, *form: Any, **more: Any) -> Any:
        return self._of(method).stream_unary(method, *form, **more)

    def stream_stream(self, method: str, *form: Any, **more: Any) -> Any:
        return self._of(method).stream_stream(method, *form, **more)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.as_service(EDGE).get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.as_service(EDGE).wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.as_service(EDGE).channel_ready()

    async def close(self, grace: float | None = None) -> None:
        await asyncio.gather(*(channel.close(grace) for channel in self._channels.values()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
