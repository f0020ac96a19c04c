"""The faults: each hurts the box in one way, and returns when the box has been left to heal."""

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

from tests.chaos.account import Account
from tests.chaos.calls import QueueAt
from tests.chaos.clock import wrong_clock
from tests.chaos.jobs import JobLoad
from tests.chaos.ledger import Ledger
from tests.chaos.relay import Relay
from tests.chaos.replica import Replica, environment
from tests.chaos.stale import Stale
from tests.e2e.mesh import ROOT, Box

LEASE_SECONDS = 15.0
SILENCE_SECONDS = 30.0
"""After so long without an answer to a ping a stream is given up by its server."""
RETURN_SECONDS = 30.0


@dataclass(frozen=True)
class Dice:
    """What is thrown for. The plan has dice of its own: how often the load throws is up to the clock."""

    plan: random.Random
    load: random.Random


@dataclass
class Hurt:
    """What can be hurt beside the processes of the box."""

    box: Box
    ledger: Ledger
    rng: random.Random
    database: str
    edge: Relay
    partition: tuple[Relay, ...]
    queue: Replica
    worker: Replica
    jobs: JobLoad
    stale: Stale
    queue_at: QueueAt
    standing: set[str] = field(default_factory=set)

    # ---- kills

    def kill(self, name: str) -> Callable[[], Awaitable[None]]:
        """A fault that kills -9 a process of the box."""

        async def fault() -> None:
            if name in self.standing:
                return  # it has to wake up again
            self.ledger.fault(f"kill -9 {name}")
            await asyncio.to_thread(self._kill, name, signal.SIGKILL)

        return fault

    async def crash_postgres(self) -> None:
        """An immediate stop: no checkpoint, every session is cut, the log is replayed at the next start."""
        self.ledger.fault("immediate stop of postgres")
        await asyncio.to_thread(self._kill, "postgres", signal.SIGQUIT)

    async def kill_agent(self) -> None:
        """Kill -9 opencode in its sandbox."""
        if await asyncio.to_thread(self._kill_agent):
            self.ledger.fault("kill -9 opencode")

    def _kill_agent(self) -> bool:
        # A StopIteration that left the thread would leave its caller waiting for ever.
        with suppress(AssertionError, psutil.Error, StopIteration):
            self.box.kill_sandbox()
            return True
        return False

    async def kill_second_worker(self) -> None:
        """Kill -9 the worker that the supervisor does not know."""
        if "second worker" in self.standing:
            return
        self.ledger.fault("kill -9 worker")
        await self.worker.kill()
        await asyncio.sleep(1)
        await self.worker.start()

    async def kill_second_queue(self) -> None:
        """Kill -9 the other replica of the queue."""
        self.ledger.fault("kill -9 queue")
        await self.queue.kill()
        await asyncio.sleep(1)
        await self.queue.start()

    def _kill(self, name: str, how: signal.Signals) -> None:
        """Send a process its death, and wait until the supervisor has another one ready."""
        old = self._pid(name)
        os.kill(old, how)
        self._pid(name, other_than=old)

    def _pid(self, name: str, other_than: int = 0) -> int:
        end = time.monotonic() + RETURN_SECONDS
        while time.monotonic() < end:
            with suppress(StopIteration, OSError, ValueError):
                if (found := self.box.pid(name)) != other_than:
                    return found
            time.sleep(0.05)
        raise AssertionError(f"{name} did not come back:\n{self.box.logs(name)}")

    # ---- what stands still

    async def stop_worker(self) -> None:
        """SIGSTOP of the worker until its stream is given up and another has its turns; then it wakes up, stale."""
        await self._stand_still("worker", SILENCE_SECONDS + 8)

    async def stop_queue(self) -> None:
        """SIGSTOP of a queue for longer than its leases last without it."""
        await self._stand_still("queue", LEASE_SECONDS + 4)

    async def stop_second_worker(self) -> None:
        """The same, with the other worker."""
        self.ledger.fault("SIGSTOP of worker")
        self.worker.signal(signal.SIGSTOP)
        self.standing.add("second worker")
        await asyncio.sleep(SILENCE_SECONDS + 8)
        self.standing.discard("second worker")
        self.worker.signal(signal.SIGCONT)

    async def _stand_still(self, name: str, seconds: float) -> None:
        pid = self._pid(name)
        self.ledger.fault(f"SIGSTOP of {name}")
        os.kill(pid, signal.SIGSTOP)
        self.standing.add(name)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.standing.discard(name)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def stop_skewed_worker(self, *, at_once: bool = False) -> None:
        """Stop workers whose clocks are minutes off, until others have their work; then they wake up, stale.

        Args:
            at_once: Whether the queue hears at once that they are gone, or has to find out.
        """
        minutes = self.rng.choice((-1, 1)) * self.rng.randint(2, 9)
        self.ledger.fault(f"SIGSTOP of a worker whose clock is {'behind' if minutes < 0 else 'ahead'}")
        await asyncio.gather(
            self.stale.run(minutes, at_once=at_once), self._skew_second_worker(minutes, at_once=at_once)
        )

    async def _skew_second_worker(self, minutes: int, *, at_once: bool) -> None:
        self.standing.add("second worker")
        await self.worker.kill()
        await self.worker.start(wrong_clock(minutes))
        await asyncio.sleep(4)  # it has turns by then
        self.worker.signal(signal.SIGSTOP)
        if at_once:
            for relay in self.partition:
                relay.cut()
        await asyncio.sleep(4 if at_once else SILENCE_SECONDS + 8)
        self.worker.signal(signal.SIGCONT)
        await asyncio.sleep(4)
        await self.worker.kill()
        await self.worker.start()
        self.standing.discard("second worker")

    # ---- the network

    async def cut_clients(self) -> None:
        """Cut every connection of every client."""
        if self.edge.cut():
            self.ledger.fault("cut of all client connections")

    async def cut_worker(self) -> None:
        """Cut what connects the second worker to queue, api and sandbox."""
        if "second worker" in self.standing:
            return
        if sum(relay.cut() for relay in self.partition):
            self.ledger.fault("cut of a worker's connections")

    async def part_worker(self) -> None:
        """Let nothing through to or from the second worker for longer than a lease; then everything, late."""
        self.ledger.fault("partition of a worker")
        self.standing.add("second worker")
        for relay in self.partition:
            relay.hold()
        await asyncio.sleep(SILENCE_SECONDS + 8)
        self.standing.discard("second worker")
        for relay in self.partition:
            relay.release()

    # ---- the database

    async def disable_notify(self) -> None:
        """Refuse NOTIFY to everybody for a while: hints are lost, and the loops have to look by themselves."""
        if await self._administer("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) FROM PUBLIC"):
            self.ledger.fault("NOTIFY disabled")
        await asyncio.gather(self.jobs.without_notify(), asyncio.sleep(8))
        await self.enable_notify()

    async def enable_notify(self) -> None:
        """Allow NOTIFY again."""
        await self._administer("GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO PUBLIC")

    async def _administer(self, statement: str) -> bool:
        for _ in range(60):
            try:
                async with await psycopg.AsyncConnection.connect(self.database, autocommit=True) as connection:
                    await connection.execute(statement.encode())
                    return True
            except psycopg.OperationalError:
                await asyncio.sleep(0.25)
        return False

    async def hold_xmin(self, stop: asyncio.Event) -> None:
        """Keep a snapshot open, as a dump does, so that nothing dead can be cleaned away; again after each crash."""
        while not stop.is_set():
            try:
                async with await psycopg.AsyncConnection.connect(self.database) as connection:
                    await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                    await connection.execute("SET idle_in_transaction_session_timeout = 0")
                    await connection.execute("SELECT count(*) FROM queue.job")
                    self.ledger.fault("held xmin")
                    while not stop.is_set():
                        await asyncio.sleep(1)
                        await connection.execute("SELECT 1")
            except psycopg.OperationalError:
                await asyncio.sleep(0.5)

    # ---- clients

    async def kill_client(self) -> None:
        """Kill -9 a client that calls api and queue as fast as it can, so that it dies in mid-call."""
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.client", str(uuid.uuid4()), self.ledger.sessions[0]),
            cwd=ROOT,
            env=self.box.env
            | {
                "CHAOS_URL": self.box.url,
                "CHAOS_KEY": self.box.key,
                "CHAOS_QUEUE": self.queue_at.address,
            },
            stdout=asyncio.subprocess.PIPE,
        )
        assert client.stdout
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                await client.stdout.readline()
                await asyncio.sleep(self.rng.uniform(0.0, 0.3))
        with suppress(ProcessLookupError):
            client.kill()
        await client.wait()
        self.ledger.fault("kill -9 of a client in mid-call")


@asynccontextmanager
async def hurting(box: Box, account: Account, dice: Dice, database: str, port: int) -> AsyncIterator[Hurt]:
    """What faults need: a relay before the edge, and second replicas of queue and worker behind relays."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oiab-c-")))
        edge = await stack.enter_async_context(Relay.tcp(port, box.port))
        env = environment(box.pid("worker"))
        sockets = {
            name: Path(env[f"OIAB_{name.upper()}_ADDRESS"].removeprefix("unix://")) for name in ("api", "sandbox")
        }
        sockets["queue"] = folder / "queue-2.sock"
        partition = [
            await stack.enter_async_context(Relay.unix(folder / f"{name}.sock", to)) for name, to in sockets.items()
        ]
        queue = Replica(
            box, "queue", {"OIAB_QUEUE_ADDRESS": f"unix://{sockets['queue']}", "OIAB_QUEUE_INSTANCE": "chaos-2"}
        )
        worker = Replica(
            box,
            "worker",
            {f"OIAB_{name.upper()}_ADDRESS": f"unix://{folder / name}.sock" for name in sockets}
            | {"OIAB_WORKER_ADDRESS": f"unix://{folder}/worker-2.sock", "OIAB_WORKER_ID": "chaos-2"},
        )
        stale = await stack.enter_async_context(Relay.unix(folder / "stale.sock", sockets["queue"]))
        first = QueueAt(box.home, env["OIAB_QUEUE_ADDRESS"])
        second = QueueAt(box.home, f"unix://{sockets['queue']}")
        for replica in (queue, worker):
            stack.push_async_callback(replica.kill)
            await replica.start()
        hurt = Hurt(
            box,
            account.ledger,
            dice.plan,
            database,
            edge,
            tuple(partition),
            queue,
            worker,
            JobLoad(first, second, database, account, dice.load),
            Stale(account, second, QueueAt(box.home, f"unix://{folder}/stale.sock"), stale.cut),
            first,
        )
        try:
            yield hurt
        finally:
            await hurt.enable_notify()
