"""Many readers of server-sent events: Envoy and Api against FastAPI with sse-starlette and aiohttp, by turns."""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psutil
import psycopg

from services.box import envoy
from services.box.contract import read_contract
from services.box.transport import Mesh
from services.kit.ids import DEFAULT_TENANT, OPERATOR, new_id
from tests.bench.fanout_driver import TOKEN
from tests.bench.report import Table, percentile
from tests.e2e.mesh import ROOT, free_port
from tests.identities import certificates, identity
from tests.postgres import as_environment, postgres_server

STREAMS = (100, 500, 1_000)
CHANNELS = 10
RATE = 20.0
SECONDS = 6
COUNT = int(RATE * SECONDS)
LEAD_SECONDS = 4.0
"""The driver has to be up before the first event is due."""
MOST_SECONDS = 60.0
KEY = "bench"
PEER_PYTHON = ROOT / "tests" / "bench" / "peers" / ".venv" / "bin" / "python"
_STAMP = re.compile(rb"@(\d+)@")


@dataclass
class Server:
    """A server of events: where its channels are, its processes, and how they begin."""

    port: int
    paths: list[str]
    pids: dict[str, int]
    start: Callable[[int], Awaitable[None]]


@dataclass
class Reader(asyncio.Protocol):
    """One stream, read with as little work as can be, so that the client bounds nothing."""

    path: str
    delays: list[float] = field(default_factory=list)
    rest: bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        head = f"GET {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n\r\n"
        transport.write(head.encode())

    def data_received(self, data: bytes) -> None:
        now, data, end = time.time_ns(), self.rest + data, 0
        for stamp in _STAMP.finditer(data):
            self.delays.append((now - int(stamp[1])) / 1e6)
            end = stamp.end()
        self.rest = data[max(end, len(data) - 64) :]


@dataclass
class Result:
    """What came of one run."""

    delays: list[float]
    expected: int
    seconds: float
    cores: dict[str, float]
    kib: float

    def cells(self) -> list[str]:
        """The cells of its row."""
        used = " + ".join(f"{name} {cores:.2f}" for name, cores in self.cores.items())
        return [
            f"{len(self.delays) / self.seconds:,.0f}",
            f"{percentile(self.delays, 50):.1f}",
            f"{percentile(self.delays, 99):.1f}",
            str(self.expected - len(self.delays)),
            used,
            f"{self.kib:.0f}",
        ]


@contextmanager
def process(*argv: str, **env: str) -> Iterator[int]:
    """A process that ends with the block."""
    with tempfile.TemporaryFile() as errors:
        running = subprocess.Popen(argv, cwd=ROOT, env=os.environ | env, stdout=errors, stderr=errors)
        try:
            yield running.pid
        finally:
            running.terminate()
            try:
                running.wait(15)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


@asynccontextmanager
async def peer(kind: str) -> AsyncIterator[Server]:
    """One of the peers."""
    port = free_port()
    with process(str(PEER_PYTHON), "tests/bench/peers/sse_peer.py", kind, str(port)) as pid:
        await _answers(port, "/nothing")

        async def start(at: int) -> None:
            async with httpx.AsyncClient(trust_env=False) as http:
                await http.post(f"http://127.0.0.1:{port}/start?rate={RATE}&count={COUNT}&at={at}")

        yield Server(port, [f"/channels/{number}" for number in range(CHANNELS)], {kind: pid}, start)


@asynccontextmanager
async def ours(database_url: str) -> AsyncIterator[Server]:
    """Envoy and Api on a PostgreSQL. Workers write the logs through Api; the log is on disk, whoever reads it."""
    with tempfile.TemporaryDirectory(prefix="oiab-") as name:
        folder, port = Path(name), free_port()
        address = f"unix://{folder}/api.sock"
        edge = envoy.Edge(
            port=port,
            admin=folder / "admin.sock",
            model=folder / "model.sock",
            clusters_file=folder / "clusters.yaml",
            access_log=folder / "access.log",
            api_addresses=(address,),
            runtime_address=address,
            mesh=Mesh(certificates("envoy") / "envoy", folder, identity("envoy").installation),
            rate_limit=100_000,
        )
        configuration = envoy.prepare(folder, edge, envoy.render(edge, read_contract()))
        mesh = {"OIAB_CERTIFICATES": str(certificates("api", "worker"))}
        env = mesh | {
            "OIAB_HOME": name,
            "OIAB_RUN_DIR": name,
            **as_environment(database_url, "api"),
            **{
                name.replace("OIAB_", "OIAB_IDENTITY_"): url
                for name, url in as_environment(database_url, "identity").items()
            },
            "ORGINABOX_API_KEY": KEY,
        }
        turns = _make_turns(database_url)
        async with AsyncExitStack() as stack:
            api = stack.enter_context(process(sys.executable, "-m", "services.api", **env, OIAB_LOG_LEVEL="error"))
            edge_pid = stack.enter_context(process(*envoy.spec(configuration, edge, {}).argv))
            await _answers(port, "/v1/healthz")

            async def start(at: int) -> None:
                argv = (address, str(RATE), str(COUNT), str(at), *turns)
                stack.enter_context(process(sys.executable, "-m", "tests.bench.fanout_driver", *argv, **mesh))

            paths = [f"/v1/turns/{turn}/events" for turn in turns]
            yield Server(port, paths, {"Api": api, "Envoy": edge_pid}, start)


def _make_turns(url: str) -> list[str]:
    """A running turn for each channel."""
    with psycopg.connect(url, options="-c search_path=api,public", autocommit=True) as connection:
        made = []
        for _ in range(CHANNELS):
            session, turn = new_id(), new_id()
            connection.execute(
                "INSERT INTO session (session_id, tenant_id, user_id) VALUES (%s, %s, %s)",
                (session, DEFAULT_TENANT, OPERATOR),
            )
            connection.execute(
                "INSERT INTO turn (turn_id, ticket, tenant_id, user_id, session_id, state, text, attempt, lease_token)"
                " VALUES (%s, %s, %s, %s, %s, 'running', '', 1, %s)",
                (turn, turn, DEFAULT_TENANT, OPERATOR, session, TOKEN),
            )
            made.append(str(turn))
    return made


async def _answers(port: int, path: str) -> None:
    """Wait until something answers."""
    async with httpx.AsyncClient(trust_env=False) as http:
        for _ in range(400):
            try:
                if (await http.get(f"http://127.0.0.1:{port}{path}")).status_code in {200, 404}:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise TimeoutError(path)


async def measure(server: Server, streams: int) -> Result:
    """Connect all readers, begin, and wait until each has everything or for a minute."""
    loop, before = asyncio.get_running_loop(), _rss(server)
    readers = [Reader(server.paths[number % CHANNELS]) for number in range(streams)]
    for start in range(0, streams, 50):
        batch = readers[start : start + 50]
        await asyncio.gather(
            *(loop.create_connection(partial(_same, each), "127.0.0.1", server.port) for each in batch)
        )
    await asyncio.sleep(1 + streams / 250)
    at, cpu = time.time_ns() + int(LEAD_SECONDS * 1e9), _cpu(server)
    await server.start(at)
    limit = time.monotonic() + MOST_SECONDS
    while any(len(reader.delays) < COUNT for reader in readers) and time.monotonic() < limit:  # noqa: ASYNC110 - no event per event
        await asyncio.sleep(0.05)
    seconds = (time.time_ns() - at) / 1e9
    cores = {name: (now - cpu[name]) / seconds for name, now in _cpu(server).items()}
    grown = (_rss(server) - before) / streams / 1024
    for reader in readers:
        reader.transport.abort()
    delays = [delay for reader in readers for delay in reader.delays]
    return Result(delays, COUNT * streams, seconds, cores, grown)


def _same(reader: Reader) -> Reader:
    """What a connection is made for: asyncio asks for a maker."""
    return reader


def _cpu(server: Server) -> dict[str, float]:
    return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in server.pids.items()}


def _rss(server: Server) -> float:
    return float(sum(psutil.Process(pid).memory_info().rss for pid in server.pids.values()))


async def run() -> list[Table]:
    """Measure everything, by turns."""
    table = Table(
        "Many readers of events",
        f"{CHANNELS} turns of {RATE:.0f} events a second for {SECONDS} s, each read by a tenth of the streams, as "
        "server-sent events over HTTP/1.1. Ours: a driver appends through TurnLogService, Api writes the log to "
        "PostgreSQL (with fsync off) and sends it through Envoy. The peers are one process each that broadcasts out of "
        "memory and keeps nothing. A delay counts from the time at which the event was due, so falling behind shows. "
        "Client, driver and servers share the cores. A new server for each row; systems by turns. Milliseconds, cores, "
        "KiB of RSS growth.",
        ["streams", "system", "events/s", "delay p50", "delay p99", "lost", "cores", "KiB per stream"],
    )
    with postgres_server() as postgres:
        for streams in STREAMS:
            servers: dict[str, AbstractAsyncContextManager[Server]] = {
                "Org in a Box": ours(postgres.database("api", "identity")),
                "FastAPI + sse-starlette": peer("fastapi"),
                "aiohttp": peer("aiohttp"),
            }
            for name, made in servers.items():
                async with made as server:
                    result = await measure(server, streams)
                table.rows.append([str(streams), name, *result.cells()])
    table.bounds = (
        "Where the time goes: of Api's, two thirds are grpcio's own, a write with a wake-up for each message of each "
        "reader; a fifth is the way of an event through our code; the rest writes the log. So messages were made fewer "
        "and cheaper. An event becomes text once for all readers. What waits for one goes out with one message, so "
        "that a busy machine sends fewer, not later. Envoy passes text on, where it made JSON of each event for each "
        "reader and ran a script over it (before: 0.63 cores at 1,000 streams). A reader waits with one future and one "
        "timer. A lone event is never held back. Targets: FastAPI's throughput, and p99 below 100 ms at 500 "
        "streams."
    )
    return [table]
