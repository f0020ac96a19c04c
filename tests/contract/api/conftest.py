"""A whole Api on a real database, with its peers in this process."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from orginabox.api.v1 import session_service_pb2_grpc, turn_service_pb2_grpc
from orginabox.turn.v1 import turn_log_service_pb2_grpc
from pydantic import SecretStr

from services.api.__main__ import serve_api
from services.api.settings import ApiSettings
from services.kit.channel import connect
from services.kit.server import serve
from tests.contract.api.peers import PEER_SERVICES, Peers

KEY = "the-key"


@dataclass
class Rig:
    """A running Api, the stubs to call it with, and its peers."""

    channel: grpc.aio.Channel
    settings: ApiSettings
    peers: Peers
    sessions: session_service_pb2_grpc.SessionServiceStub
    turns: turn_service_pb2_grpc.TurnServiceStub
    log: turn_log_service_pb2_grpc.TurnLogServiceStub
    key = (("authorization", f"Bearer {KEY}"),)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that happens soon."""
        for _ in range(200):
            if holds():
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it did not happen within 4 seconds")


@pytest.fixture
async def api(database: Callable[..., str]) -> AsyncIterator[Rig]:
    """A running Api."""
    with tempfile.TemporaryDirectory(prefix="oiab-") as folder:
        address = f"unix://{folder}/peers.sock"
        settings = ApiSettings(
            home=Path(folder),
            run_dir=Path(folder),
            database_url=database("api"),
            queue_address=address,
            sandbox_address=address,
            runtime_address=address,
            audit_address=address,
            ORGINABOX_API_KEY=SecretStr(KEY),  # type: ignore[call-arg]
        )
        peers, stop = Peers(), asyncio.Event()  # type: ignore[abstract]
        servers = [
            asyncio.create_task(serve(address, PEER_SERVICES, peers.register, stop=stop)),
            asyncio.create_task(serve_api(settings, stop)),
        ]
        async with connect(settings.address("api")) as channel:
            await asyncio.wait_for(channel.channel_ready(), 20)
            yield Rig(
                channel,
                settings,
                peers,
                session_service_pb2_grpc.SessionServiceStub(channel),
                turn_service_pb2_grpc.TurnServiceStub(channel),
                turn_log_service_pb2_grpc.TurnLogServiceStub(channel),
            )
        stop.set()
        await asyncio.gather(*servers)
