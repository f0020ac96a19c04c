"""Calls of the queue that are made again until they are answered, as every client of it may."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from services.kit.channel import connect
from services.kit.settings import MeshSettings
from tests.chaos.ledger import Ledger

A = TypeVar("A")
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
PATIENCE_SECONDS = 90.0


@dataclass(frozen=True)
class QueueAt:
    """Where a queue is reached.

    Attributes:
        home: The home of the box, where the certificates are.
        address: Where the queue listens, or what stands before it.
    """

    home: Path
    address: str

    def connect(self, client: str) -> grpc.aio.Channel:
        """A channel of one of its clients."""
        return connect(self.address, to="queue", identity=MeshSettings(home=self.home).identity(client))


async def until_answered(ledger: Ledger, call: Callable[..., Awaitable[A]], request: Message) -> A:
    """The answer to a call. A refusal is a violation: nothing that the load asks for may be refused."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await call(request, timeout=5)
        except grpc.aio.AioRpcError as error:
            if error.code() not in PASSING or time.monotonic() > end:
                ledger.violated(f"the queue refused: {error.code().name} {error.details()}")
                raise
            ledger.counts["calls of the queue cut"] += 1
            await asyncio.sleep(0.1)
