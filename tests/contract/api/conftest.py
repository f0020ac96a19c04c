"""A whole Api on a real database, with its peers in this process."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from orginabox.api.v1 import session_service_pb2_grpc, turn_service_pb2_grpc
from orginabox.turn.v1 import turn_log_service_pb2_grpc
from pydantic import SecretStr

from services.api.__main__ import serve_api
from services.api.settings import ApiSettings
from tests.allowed import AllowedChannel
from tests.contract.api.peers import PEERS, Peers, served_peer
from tests.identities import certificates
from tests.people import people
from tests.postgres import as_settings

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


@asynccontextmanager
async def running(database_url: str, count: int = 1) -> AsyncIterator[list[Rig]]:
    """Replicas of Api on one database, with peers that they share."""
    with tempfile.TemporaryDirectory(prefix="oiab-") as folder:
        peers, stop = Peers(), asyncio.Event()  # type: ignore[abstract]
        servers = [asyncio.create_task(served_peer(name, folder, peers, stop)) for name in PEERS]
        async with AsyncExitStack() as stack:
            rigs = []
            for number in range(count):
                settings = ApiSettings(
                    home=Path(folder),
                    run_dir=Path(folder),
                    certificates=certificates("api"),
                    **as_settings(database_url, "api"),  # type: ignore[arg-type]
                    api_address=f"unix://{folder}/api-{number}.sock",
                    ORGINABOX_API_KEY=SecretStr(KEY),  # type: ignore[call-arg]
                )
                servers.append(asyncio.create_task(serve_api(settings, stop, people(settings))))
                channel = AllowedChannel(settings.address("api"), "api")
                rigs.append(rig_of(await stack.enter_async_context(channel), settings, peers))
            for rig in rigs:
                await asyncio.wait_for(rig.channel.channel_ready(), 20)
            yield rigs
        stop.set()
        await asyncio.gather(*servers)


def rig_of(channel: grpc.aio.Channel, settings: ApiSettings, peers: Peers) -> Rig:
    return Rig(
        channel,
        settings,
        peers,
        session_service_pb2_grpc.SessionServiceStub(channel),
        turn_service_pb2_grpc.TurnServiceStub(channel),
        turn_log_service_pb2_grpc.TurnLogServiceStub(channel),
    )


@pytest.fixture
async def api(database: Callable[..., str]) -> AsyncIterator[Rig]:
    """A running Api."""
    async with running(database("api", "identity")) as (rig,):
        yield rig


@pytest.fixture
async def replicas(database: Callable[..., str]) -> AsyncIterator[tuple[Rig, Rig]]:
    """Two replicas of Api on one database."""
    async with running(database("api", "identity"), 2) as (one, other):
        yield one, other
