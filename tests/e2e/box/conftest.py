"""A running Envoy before small servers that stand in for the API."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from socket import socket

import grpc.aio
import httpx
import pytest

from services.box import envoy
from services.box.contract import read_contract
from services.box.transport import Mesh
from tests.e2e.box.stand_in import StandInSessions, StandInTurns, start_api
from tests.identities import certificates, identity


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: sockets go into it."""
    with tempfile.TemporaryDirectory(prefix="oiab-") as name:
        yield Path(name)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    """Envoy, and what stands behind it."""

    edge: envoy.Edge
    http: httpx.AsyncClient
    sessions: StandInSessions
    turns: StandInTurns
    api: grpc.aio.Server

    @property
    def target(self) -> str:
        """Where gRPC clients connect."""
        return f"127.0.0.1:{self.edge.port}"


def edge_in(folder: Path) -> envoy.Edge:
    """An edge whose files are all in the folder."""
    return envoy.Edge(
        port=free_port(),
        admin=folder / "admin.sock",
        model=folder / "model" / "model.sock",
        clusters_file=folder / "clusters.yaml",
        access_log=folder / "access.log",
        api_addresses=(f"unix://{folder}/api.sock",),
        runtime_address=f"unix://{folder}/runtime.sock",
        mesh=Mesh(certificates("envoy") / "envoy", folder, identity("envoy").installation),
        cors_origins=("https://chat.example",),
    )


@asynccontextmanager
async def running_envoy(folder: Path, edge: envoy.Edge) -> AsyncIterator[None]:
    """Envoy, from ready to gone."""
    edge.model.parent.mkdir(exist_ok=True)
    configuration = envoy.prepare(folder, edge, envoy.render(edge, read_contract()))
    spec = envoy.spec(configuration, edge, {})
    log = (folder / "envoy.log").open("w")
    process = await asyncio.create_subprocess_exec(*spec.argv, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(20):
            while not await spec.probe():  # noqa: ASYNC110 - what is waited for is another process
                await asyncio.sleep(0.02)
        yield
    finally:
        process.terminate()
        await process.wait()
        log.close()


@pytest.fixture
async def running(folder: Path) -> AsyncIterator[Running]:
    """Envoy before the stand-in of the API."""
    async with _running(folder, edge_in(folder)) as found:
        yield found


@pytest.fixture
async def strict(folder: Path) -> AsyncIterator[Running]:
    """The same, with a rate limit of one request a second."""
    async with _running(folder, replace(edge_in(folder), rate_limit=1)) as found:
        yield found


@asynccontextmanager
async def _running(folder: Path, edge: envoy.Edge) -> AsyncIterator[Running]:
    sessions, turns = StandInSessions(), StandInTurns()  # type: ignore[abstract]
    api = await start_api(edge.api_addresses[0], sessions, turns, identity("api"))
    try:
        async with (
            running_envoy(folder, edge),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", timeout=20, trust_env=False) as client,
        ):
            yield Running(edge, client, sessions, turns, api)
    finally:
        await api.stop(0)
