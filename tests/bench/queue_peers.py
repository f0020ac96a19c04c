"""The queue against the libraries that people would pick instead, in one run, by turns, on one PostgreSQL.

Everybody has a database of their own on the same server with the same settings, and a worker of one process with a
handler that does nothing. What is drained is measured from the first handler to the moment when the database says that
nothing is left, so neither the start of a worker nor a settlement that is still on its way flatters anybody.
"""

import asyncio
import itertools
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import LiteralString

import psycopg

from services.kit.migrate import migrate
from tests.bench.report import Table, percentile
from tests.faults.queue.rig import MIGRATIONS, ROOT, Server
from tests.identities import certificates
from tests.postgres import as_environment, make_roles

ROUNDS = 3
PEERS = ROOT / "tests" / "bench" / "peers"
PYTHON = PEERS / ".venv" / "bin" / "python"
SETTINGS = (
    *("-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "autovacuum_naptime=5s"),
    *("-c", "shared_buffers=1GB", "-c", "max_wal_size=4GB", "-c", "max_connections=200"),
)
WORKER_SECONDS = 2.0
"""How long a worker may take to come up before the paced jobs begin."""
PACED = 100
WARM_UP = 10
CALLER_SECONDS = 1.5
MOST_SECONDS = 90.0
CLAIMS = 20
DEPTHS = (1_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class System:
    """One way to run jobs.

    Attributes:
        argv: The program that speaks our words.
        jobs: How many jobs are drained: enough for 1.5 seconds and more.
        work: What its worker is told.
        left: Finds something as long as not every job is done.
        served: Whether a Queue process stands between the program and the database.
        enqueues: Whether putting jobs in is measured here, and not at a variant that does the same.
        ours: Whether the ratios are for it, and not against it.
    """

    name: str
    argv: tuple[str, ...]
    jobs: int
    work: str
    left: LiteralString
    served: bool = False
    enqueues: bool = True
    ours: bool = False


OURS = (sys.executable, "-m", "tests.bench.peers.ours")
PROCRASTINATE_LEFT: LiteralString = "SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing') LIMIT 1"
PGQUEUER_LEFT: LiteralString = "SELECT FROM pgqueuer LIMIT 1"
GRAPHILE_LEFT: LiteralString = "SELECT FROM graphile_worker._private_jobs LIMIT 1"
OURS_LEFT: LiteralString = "SELECT FROM queue.job LIMIT 1"
COPIES: LiteralString = """
    INSERT INTO queue.job OVERRIDING SYSTEM VALUE
    SELECT copy.* FROM queue.job, generate_series(1, %(copies)s::int) AS n, LATERAL jsonb_populate_record(
        job, jsonb_build_object('id', uuidv7(), 'seq', seq + n, 'idempotency_key', n::text)) AS copy"""
PROCRASTINATE = (str(PYTHON), "-m", "tests.bench.peers.procrastinate_peer")
PGQUEUER = (str(PYTHON), "-m", "tests.bench.peers.pgqueuer_peer")
GRAPHILE = ("node", str(PEERS / "graphile_peer.js"))

SYSTEMS = (
    System("procrastinate, concurrency 32", PROCRASTINATE, 1_500, "32", PROCRASTINATE_LEFT),
    System("pgqueuer, batch 10 (default)", PGQUEUER, 12_000, "10", PGQUEUER_LEFT),
    System("pgqueuer, batch 200", PGQUEUER, 40_000, "200", PGQUEUER_LEFT, enqueues=False),
    System("graphile-worker, 32 jobs", GRAPHILE, 6_000, "plain", GRAPHILE_LEFT),
    System("graphile-worker, tuned", GRAPHILE, 60_000, "tuned", GRAPHILE_LEFT, enqueues=False),
    System("ours, in process", OURS, 100_000, "500", OURS_LEFT, ours=True),
    System("ours, gRPC, credit 1,000", OURS, 120_000, "1000", OURS_LEFT, served=True, ours=True),
    System("ours, gRPC, credit 32", OURS, 40_000, "32", OURS_LEFT, served=True, enqueues=False, ours=True),
)


@dataclass
class Figures:
    """What was measured of a system, a value for each round."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, value: float) -> None:
        """Another round."""
        self.values[what].append(value)

    def median(self, what: str) -> float:
        """The median of the rounds, not-a-number when it was not measured."""
        return statistics.median(self.values[what]) if self.values[what] else float("nan")


class Place:
    """A system with a database of its own."""

    def __init__(self, system: System, url: str, address: str) -> None:
        self._system = system
        self._url = url
        self._address = address

    @asynccontextmanager
    async def told(self, *words: object) -> AsyncIterator[asyncio.StreamReader]:
        """Run the program, and give what it says. It ends with the block."""
        mesh = {"OIAB_CERTIFICATES": str(certificates("api", "worker"))}
        process = await asyncio.create_subprocess_exec(
            *self._system.argv,
            self._address,
            *map(str, words),
            cwd=ROOT,
            env=os.environ | mesh | {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout
        try:
            yield process.stdout
        finally:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)  # terminate() would reap it before asyncio can
            try:
                async with asyncio.timeout(3):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def said(self, word: str, *words: object) -> list[float]:
        """Run the program to its end; the numbers that it said after that word."""
        async with asyncio.timeout(MOST_SECONDS), self.told(*words) as lines:
            return [float(line.split()[1]) async for line in lines if line.startswith(word.encode())]

    async def rate(self, *words: object) -> float:
        """Jobs a second that the program put in."""
        return (await self.said("RATE", *words))[0]

    async def lateness(self) -> list[float]:
        """Milliseconds from the call that puts a lone job in to its handler."""
        if self._system.ours and not self._system.served:
            late = await self.said("LATE", "lone", PACED)
        else:
            async with self.told("work", PACED, self._system.work) as lines:
                await asyncio.sleep(WORKER_SECONDS)
                pacing = asyncio.ensure_future(self.said("RATE", "pace", PACED))
                late = [float(line.split()[1]) for line in await _until(lines, b"LAST") if line.startswith(b"LATE")]
                await pacing
        return [each / 1e6 for each in late[WARM_UP:]]

    async def drain(self, jobs: int) -> float:
        """Jobs a second, from the first handler to an empty queue."""
        self.administer("CHECKPOINT", "VACUUM ANALYZE")
        async with self.told("work", jobs, self._system.work) as lines:
            said = await _until(lines, b"LAST")
            await asyncio.to_thread(self._empty)
            done = time.time_ns()
        first = next(int(line.split()[1]) for line in said if line.startswith(b"FIRST"))
        return jobs / ((done - first) / 1e9)

    def administer(self, *statements: LiteralString) -> None:
        """Run statements on the database."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def deepen(self, depth: int) -> None:
        """Put so many copies of the one job in the queue beside it, past the service: only the way out is measured."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(COPIES, {"copies": depth - 1})

    def _empty(self) -> None:
        end = time.monotonic() + MOST_SECONDS
        with psycopg.connect(self._url, autocommit=True) as connection:
            while connection.execute(self._system.left).fetchone():
                if time.monotonic() > end:
                    raise TimeoutError(f"{self._system.name} leaves jobs behind")
                time.sleep(0.01)


async def _until(lines: asyncio.StreamReader, word: bytes) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(MOST_SECONDS):
        async for line in lines:
            found.append(line)
            if line.startswith(word):
                return found
    raise AssertionError(f"a worker ended early: {found[-3:]}")


class Bench:
    """The server, and the databases on it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._numbers = itertools.count()

    @asynccontextmanager
    async def place(self, system: System) -> AsyncIterator[Place]:
        """A new database for a system, and its Queue process if it has one."""
        name = f"bench_{next(self._numbers)}"
        self._administer(f"CREATE DATABASE {name}")
        url = self._server.url.replace("/postgres?", f"/{name}?")
        try:
            if not system.ours:
                await Place(system, url, url).said("", "install")
                yield Place(system, url, url)
            else:
                make_roles(url)
                await asyncio.to_thread(migrate, url, "queue", MIGRATIONS)
                async with self._queue(url, name) if system.served else _nothing(url) as address:
                    yield Place(system, url, address)
        finally:
            self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def _queue(self, url: str, name: str) -> AsyncIterator[str]:
        socket = self._folder / f"{name}.sock"
        env = {"OIAB_QUEUE_ADDRESS": f"unix://{socket}", "OIAB_LOG_LEVEL": "warning"}
        env |= as_environment(url, "queue")
        env |= {"OIAB_HOME": str(self._folder), "OIAB_RUN_DIR": str(self._folder)}
        env |= {"OIAB_CERTIFICATES": str(certificates("queue"))}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.queue"), cwd=ROOT, env=os.environ | env
        )
        async with asyncio.timeout(20):
            while not socket.exists():  # noqa: ASYNC110 - what is waited for is another process
                await asyncio.sleep(0.05)
        try:
            yield f"unix://{socket}"
        finally:
            process.terminate()
            await process.wait()

    def _administer(self, statement: str) -> None:
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            connection.execute(statement.encode())


@asynccontextmanager
async def _nothing(url: str) -> AsyncIterator[str]:
    yield url


@asynccontextmanager
async def held_xmin(url: str) -> AsyncIterator[str]:
    """Keep a snapshot open, as a dump does."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.execute("SELECT 1 FROM pg_catalog.pg_class LIMIT 1")
        yield url


async def one_round(bench: Bench, found: Mapping[str, Figures]) -> None:
    """Everybody once."""
    for system in SYSTEMS:
        figures = found[system.name]
        async with bench.place(system) as place:
            late = await place.lateness()
            figures.add("p50", percentile(late, 50))
            figures.add("p99", percentile(late, 99))
            figures.add("bulk", await place.rate("bulk", system.jobs))
            figures.add("drain", await place.drain(system.jobs))
            if system.enqueues:
                figures.add("one", await place.rate("callers", 1, CALLER_SECONDS))
                figures.add("many", await place.rate("callers", 32, CALLER_SECONDS))
        print(system.name, {what: round(values[-1], 1) for what, values in figures.values.items()}, flush=True)


async def under_held_xmin(bench: Bench, found: Mapping[str, Figures]) -> None:
    """Everybody drains while an old snapshot keeps every dead row."""
    for system in SYSTEMS:
        async with bench.place(system) as place:
            await place.rate("bulk", system.jobs)
            async with held_xmin(place._url):
                found[system.name].add("held", await place.drain(system.jobs))
        print(system.name, "held", round(found[system.name].median("held"), 1), flush=True)


async def claim_times(bench: Bench) -> dict[tuple[int, bool], list[float]]:
    """Milliseconds of a claim of 200 jobs, by the depth of the queue, and whether an old snapshot is open."""
    ours = next(system for system in SYSTEMS if system.ours)
    found: dict[tuple[int, bool], list[float]] = defaultdict(list)
    for depth, held in itertools.product(DEPTHS, (False, True)):
        # A shallow queue is empty after a few claims, so it is filled more than once.
        count = min(CLAIMS, depth // 200 - 1)
        for _ in range(CLAIMS // count):
            async with bench.place(ours) as place:
                await place.rate("bulk", 1)
                place.deepen(depth)
                place.administer("CHECKPOINT", "VACUUM ANALYZE")
                async with held_xmin(place._url) if held else _nothing(place._url):
                    took = await place.said("CLAIM", "claims", count)
                found[depth, held] += [each / 1e6 for each in took[1:]]
        print("claims at", depth, "held" * held, round(statistics.median(found[depth, held]), 2), flush=True)
    return found


def rates(found: Mapping[str, Figures]) -> Table:
    """Everything, a row for each system."""
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "jobs/s processed": ("drain", _whole),
        "of it under a held xmin": ("held", _whole),
        "enqueue/s, 1 caller": ("one", _whole),
        "32 callers": ("many", _whole),
        "bulk 1000": ("bulk", _whole),
        "wake p50 ms": ("p50", _tenth),
        "wake p99 ms": ("p99", _tenth),
    }
    rows = [(name, *(form(figures.median(what)) for what, form in columns.values())) for name, figures in found.items()]
    return Table(
        "The queue and its peers",
        "One PostgreSQL with fsync and synchronous_commit, the same for all; by turns, medians of "
        f"{ROUNDS} rounds (the held xmin: one). Worker of one process, handlers that do nothing. Processed: from the "
        "first handler until the database has nothing left; "
        f"{', '.join(f'{system.jobs:,}' for system in SYSTEMS)} jobs in the order of the rows. "
        "Wake: from the call that puts a lone job in to its handler, 50 a second.",
        ("", *columns),
        list[Sequence[str]](rows),
        "Not equal work: ours keeps history, attempts and idempotency keys; procrastinate keeps a row per transition, "
        "pgqueuer a log; graphile-worker deletes. Tuned means a local queue of 500 and batched completion.",
    )


def ratios(found: Mapping[str, Figures]) -> Table:
    """Ours against each peer."""
    ours = [system.name for system in SYSTEMS if system.ours]
    rows = [
        (system.name, *(f"{found[name].median('drain') / found[system.name].median('drain'):.1f}x" for name in ours))
        for system in SYSTEMS
        if not system.ours
    ]
    best = min(found[system.name].median("p50") for system in SYSTEMS if not system.ours)
    rows.append(("wake p50, of the best peer's", *(f"{found[name].median('p50') / best:.2f}x" for name in ours)))
    return Table(
        "Jobs processed, ours to each peer",
        "Ratios of the medians above.",
        ("", *ours),
        list[Sequence[str]](rows),
        "Targets through gRPC: 100x procrastinate, 3x pgqueuer at batch 200, 1.5x graphile-worker tuned; a wake of at "
        "most 1.2x the best peer's.",
    )


def depths(claims: Mapping[tuple[int, bool], Sequence[float]]) -> Table:
    """Claims by the depth of the queue."""
    times = {which: statistics.median(took) for which, took in claims.items()}
    shallow = times[DEPTHS[0], False]

    def row(depth: int) -> Sequence[str]:
        usual, held = times[depth, False], times[depth, True]
        return (f"{depth:,}", f"{usual:.2f}", f"{usual / shallow:.2f}x", f"{held:.2f}", f"{held / shallow:.2f}x")

    return Table(
        "Claims and the depth of the queue",
        "In process: from the credit for 200 jobs to their leases, with so many jobs waiting; medians.",
        ("jobs waiting", "claim of 200, ms", "to that at 1,000", "under a held xmin, ms", "to that at 1,000 without"),
        [row(depth) for depth in DEPTHS],
        "Target: at most 1.3x at a million. A process that has just started counts its jobs once, which a claim of its "
        "first second feels at a million; later that takes at most a fiftieth of its time.",
    )


def _whole(value: float) -> str:
    return "" if value != value else f"{value:,.0f}"  # noqa: PLR0124 - only not-a-number differs from itself


def _tenth(value: float) -> str:
    return f"{value:.1f}"


async def run() -> list[Table]:
    """Measure everything."""
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="oiab-q-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = Server(folder, SETTINGS)
        server.create()
        await server.start()
        stack.callback(server.stop, signal.SIGINT)
        bench = Bench(server, folder)
        found = {system.name: Figures() for system in SYSTEMS}
        for _ in range(ROUNDS):
            await one_round(bench, found)
        await under_held_xmin(bench, found)
        return [rates(found), ratios(found), depths(await claim_times(bench))]


async def main() -> None:
    """Measure, and print."""
    for table in await run():
        print(table.markdown(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
