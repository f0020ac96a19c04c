"""Real processes to kill: a PostgreSQL, Queue processes, workers."""

import asyncio
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psycopg
from orginabox.queue.v1 import job_pb2, queue_service_pb2_grpc

from services.box.postgres import binary, own_namespace
from services.kit.migrate import migrate
from tests.allowed import AllowedChannel
from tests.contract.queue.rig import asked
from tests.identities import certificates
from tests.postgres import as_environment, make_roles

ROOT = Path(__file__).parents[3]
MIGRATIONS = ROOT / "services" / "queue" / "migrations"
# A commit is in the log before it is told, as in production; only a fall of the whole machine would lose it.
SURVIVES_ITS_OWN_DEATH = ("-c", "fsync=off", "-c", "synchronous_commit=on")
DURABLE = ("-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "autovacuum_naptime=5s")


PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


class Server:
    """A PostgreSQL that can be stopped as a crash does, and started again."""

    def __init__(self, folder: Path, settings: Sequence[str]) -> None:
        self._folder = folder
        self._settings = settings
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        argv = (str(binary("initdb")), "-D", str(self._folder / "data"), "-U", "postgres", "-A", "trust", "--no-sync")
        subprocess.run((*own_namespace(), *argv), check=True, capture_output=True)

    async def start(self) -> None:
        self._spawn()
        await until(self._answers, 15)

    def _spawn(self) -> None:
        argv = (str(binary("postgres")), "-D", str(self._folder / "data"), "-k", str(self._folder), "-h", "")
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen((*own_namespace(), *argv, *self._settings), stderr=log)

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.url):
            return True
        return False

    def stop(self, how: signal.Signals) -> None:
        """SIGQUIT is an immediate stop: no checkpoint, sessions are cut, recovery at the next start."""
        if self._process:
            self._process.send_signal(how)
            self._process.wait(20)


class Process:
    """A Python process of ours."""

    def __init__(self, *argv: str, env: dict[str, str], log: Path) -> None:
        self._argv = (sys.executable, "-m", *argv)
        self._env = os.environ | env
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._argv, cwd=ROOT, env=self._env, stdout=log, stderr=log)

    def kill(self) -> None:
        """As the kernel does when memory runs out."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the process, and say with what code."""
        assert self._process
        self._process.send_signal(how)
        return self._process.wait(20)


class Rig:
    """What a fault test plays with."""

    def __init__(self, folder: Path, server: Server, channel: grpc.aio.Channel) -> None:
        self._folder = folder
        self.server = server
        self.address = f"unix://{folder}/queue.sock"
        self.stub = queue_service_pb2_grpc.QueueServiceStub(channel)
        self._processes: list[Process] = []

    def queue(self, name: str = "queue") -> Process:
        """A Queue process. Another name makes another replica."""
        env = {
            "OIAB_QUEUE_ADDRESS": self.address_of(name),
            **as_environment(self.server.url, "queue"),
            "OIAB_LOG_LEVEL": "info",
            "OIAB_CERTIFICATES": str(certificates("queue")),
        }
        return self._started(Process("services.queue", env=env, log=self._folder / f"{name}.log"))

    def address_of(self, queue: str) -> str:
        """Where a Queue process listens."""
        return f"unix://{self._folder}/{queue}.sock"

    def metrics(self, queue: str = "queue") -> str:
        """What a Queue process tells Prometheus."""
        connection = http.client.HTTPConnection("metrics")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(f"{self._folder}/{queue}-metrics.sock")
        connection.request("GET", "/metrics")
        try:
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def worker(self, name: str, queue: str = "queue") -> Process:
        """A worker process."""
        argv = ("tests.faults.queue.worker", self.address_of(queue), self.server.url, name)
        return self._started(
            Process(*argv, env={"OIAB_CERTIFICATES": str(certificates("worker"))}, log=self._folder / "worker.log")
        )

    def _started(self, process: Process) -> Process:
        process.start()
        self._processes.append(process)
        return process

    def runs(self) -> list[list[str]]:
        """Worker, process, job and attempt of every run so far."""
        log = self._folder / "worker.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.split() for line in lines if len(line.split()) == 4]

    def queue_log(self) -> str:
        """What the Queue processes logged."""
        return (self._folder / "queue.log").read_text()

    async def enqueue(self, payload: str = "0", **fields: Any) -> job_pb2.Job:
        """Put a job in, however often it takes."""
        request = asked(**({"payload": payload.encode(), "max_attempts": 100} | fields))
        while True:
            try:
                return (await self.stub.EnqueueJob(request, timeout=5)).job
            except grpc.aio.AioRpcError as error:
                if error.code() not in PASSING:
                    raise
                await asyncio.sleep(0.05)

    async def first_run(self, job: job_pb2.Job, attempt: int = 1, seconds: float = 10) -> list[str]:
        """Wait until a job has begun an attempt, and say where."""
        found: list[list[str]] = []

        def ran() -> bool:
            found[:] = [run for run in self.runs() if run[2] == job.job_id and int(run[3]) >= attempt]
            return bool(found)

        await until(ran, seconds)
        return found[0]

    async def works(self, worker: Process) -> None:
        """Wait until a worker has begun a job."""
        seen = len(self.runs())
        await until(lambda: any(run[1] == str(worker.pid) for run in self.runs()[seen:]))

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Look into the database."""
        with psycopg.connect(self.server.url) as connection:
            return connection.execute(query.encode()).fetchall()

    async def drained(self, seconds: float = 15) -> None:
        """Wait until no job is left."""
        await until(lambda: not self.rows("SELECT FROM queue.job LIMIT 1"), seconds)

    def end_all(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.kill()


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="oiab-f-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def fault_rig(settings: Sequence[str] = SURVIVES_ITS_OWN_DEATH) -> AsyncIterator[Rig]:
    """A PostgreSQL and a Queue, ready to be hurt."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(_folder())
        server = Server(folder, settings)
        server.create()
        await server.start()
        stack.callback(server.stop, signal.SIGINT)
        make_roles(server.url)
        migrate(server.url, "queue", MIGRATIONS)
        with psycopg.connect(server.url) as connection:
            connection.execute(
                "CREATE TABLE effect (place bigint GENERATED ALWAYS AS IDENTITY, job_id text PRIMARY KEY, key text)"
            )
        channel = await stack.enter_async_context(AllowedChannel(f"unix://{folder}/queue.sock", "queue"))
        rig = Rig(folder, server, channel)
        stack.callback(rig.end_all)
        yield rig
