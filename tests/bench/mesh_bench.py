"""The whole mesh against opencode alone: first token, deltas, CPU, memory, and the time to be ready."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import psutil

from tests.bench.bare_agent import BareAgent, bare_agent
from tests.bench.report import Table, median, percentile
from tests.e2e.conftest import use_scripted_model
from tests.e2e.mesh import ROOT, Box, box, free_port, until
from tests.model_server.script import scenario

TURNS = 10
DELTAS = 60
INTERVAL = 0.05
PYTHON_PARTS = ("api", "queue", "worker", "sandbox", "runtime", "audit")
MESH = (*PYTHON_PARTS, "envoy", "postgres")


@contextmanager
def scripted_model() -> Iterator[str]:
    """The scripted model in a process of its own."""
    port = free_port()
    server = subprocess.Popen((sys.executable, "-m", "tests.model_server", "--port", str(port)), cwd=ROOT)
    url = f"http://127.0.0.1:{port}/v1"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/models", trust_env=False).is_success
        except httpx.TransportError:
            return False

    until(answers)
    yield url
    server.terminate()
    server.wait()


async def mesh_session(http: httpx.AsyncClient) -> str:
    """A new session."""
    return str((await http.post("/v1/sessions", json={})).json()["sessionId"])


async def mesh_turn(http: httpx.AsyncClient, session: str, text: str) -> tuple[int, list[tuple[str, int]]]:
    """Run a turn in a session over REST and SSE: when it was sent, and each delta with when it came."""
    sent = time.time_ns()
    turn = (await http.post(f"/v1/sessions/{session}/prompt", json={"text": text})).json()["turnId"]
    deltas = []
    async with http.stream("GET", f"/v1/turns/{turn}/events", timeout=None) as events:
        async for line in events.aiter_lines():
            if line.startswith("data:"):
                event = json.loads(line.removeprefix("data:"))
                if "textDelta" in event:
                    deltas.append((event["textDelta"]["text"], time.time_ns()))
    return sent, deltas


def first_token(turns: list[tuple[int, list[tuple[str, int]]]]) -> list[float]:
    """Milliseconds from the prompt to the first delta."""
    return [(deltas[0][1] - sent) / 1e6 for sent, deltas in turns if deltas]


def per_delta(turns: list[tuple[int, list[tuple[str, int]]]]) -> list[float]:
    """Milliseconds from the model's stamp in a delta to the client. Coalesced deltas count by each stamp in them."""
    return [
        (came - int(stamp)) / 1e6 for _, deltas in turns for text, came in deltas for stamp in text.split() if stamp
    ]


def cpu_seconds(pids: list[int]) -> float:
    """The CPU time that processes have used, their children's included."""
    return sum(
        sum(each.cpu_times()[:2]) for pid in pids for each in (psutil.Process(pid), *psutil.Process(pid).children(True))
    )


def own_cpu_seconds(made: Box) -> dict[str, float]:
    """The CPU time of each process of the mesh, agents left out."""
    found = {name: sum(psutil.Process(made.pid(name)).cpu_times()[:2]) for name in MESH if name != "postgres"}
    found["postgres"] = cpu_seconds([made.pid("postgres")])
    return found


def memory(made: Box) -> dict[str, float]:
    """MiB of each process by proportional set size, what is shared counted once; agents and models left out."""

    def of(process: psutil.Process) -> float:
        return float(process.memory_full_info().pss) / 2**20

    found = {name: of(psutil.Process(made.pid(name))) for name in MESH if name != "postgres"}
    postgres = psutil.Process(made.pid("postgres"))
    found["postgres"] = sum(map(of, (postgres, *postgres.children(recursive=True))))
    return found


@asynccontextmanager
async def rest(made: Box) -> AsyncIterator[httpx.AsyncClient]:
    """A REST client of a box."""
    async with httpx.AsyncClient(base_url=made.url, headers=made.headers, timeout=60, trust_env=False) as http:
        yield http


Turns = list[tuple[int, list[tuple[str, int]]]]


async def measure_latency(made: Box, agent: BareAgent) -> Table:
    """First token and deltas, a turn of the one and a turn of the other by turns, so that noise hits both."""
    table = Table(
        "First token and deltas",
        f"{TURNS} turns each, by turns, of {DELTAS} deltas at {1 / INTERVAL:.0f}/s from the same scripted model. "
        "First token: from sending the prompt to the first delta at the client. Delta: from the model's stamp to the "
        "client. The peer is opencode alone, read by its own `/event`; ours is REST and SSE through Envoy, Api, Queue, "
        "Worker, Sandbox and bubblewrap. The sessions are made right before; the agent's own session of ours is made "
        "in the background meanwhile, that of the peer is there. Milliseconds.",
        ["", "first token p50", "first token p95", "delta p50", "delta p99"],
    )
    async with rest(made) as http:
        await mesh_turn(http, await mesh_session(http), "say warm")
        await agent.turn(await agent.session(), "say warm")
        for what, again in (("first turn of a session", False), ("later turn of a session", True)):
            _add_latency(table, what, *await _take_turns(http, agent, again=again))
    table.bounds = "Targets on an idle machine: at most 40 ms added to the first token, 10 ms to a delta."
    return table


async def _take_turns(http: httpx.AsyncClient, agent: BareAgent, *, again: bool) -> tuple[Turns, Turns]:
    text = scenario("stamped", deltas=DELTAS, interval=INTERVAL)
    ours, theirs = Turns(), Turns()
    mine, its = await mesh_session(http), await agent.session()
    if again:
        await agent.turn(its, "say warm")
        await mesh_turn(http, mine, "say warm")
    for _ in range(TURNS):
        theirs.append(await agent.turn(its if again else await agent.session(), text))
        ours.append(await mesh_turn(http, mine if again else await mesh_session(http), text))
    return ours, theirs


def _add_latency(table: Table, what: str, ours: Turns, theirs: Turns) -> None:
    for name, turns in (("opencode alone", theirs), ("Org in a Box", ours)):
        first, deltas = first_token(turns), per_delta(turns)
        figures = (median(first), percentile(first, 95), median(deltas), percentile(deltas, 99))
        table.rows.append([f"{what}: {name}", *(f"{figure:.1f}" for figure in figures)])
    added = median(first_token(ours)) - median(first_token(theirs))
    slower = median(per_delta(ours)) - median(per_delta(theirs))
    lost = TURNS * DELTAS - len(per_delta(ours))
    table.rows.append([f"{what}: added by the mesh ({lost} deltas lost)", f"{added:.1f}", "", f"{slower:.1f}", ""])


async def measure_cpu(made: Box) -> Table:
    """CPU per delta, by process."""
    count, streams = 200, 5
    text = scenario("stamped", deltas=count, interval=0.02)
    async with rest(made) as http:
        before = own_cpu_seconds(made)
        turns = await asyncio.gather(*[mesh_turn(http, await mesh_session(http), text) for _ in range(streams)])
        after = own_cpu_seconds(made)
    events = sum(len(deltas) for _, deltas in turns)
    table = Table(
        "CPU per delta",
        f"{streams} turns at once, {count} deltas each at 50/s ({events} events reached the client). Microseconds of "
        "CPU per delta of the model, by process, the turns' fixed costs included; the agent itself is left out.",
        ["process", "µs per delta"],
    )
    spent = {name: (after[name] - before[name]) / (count * streams) * 1e6 for name in MESH}
    table.rows += [[name, f"{spent[name]:.0f}"] for name in MESH]
    table.rows.append(["together", f"{sum(spent.values()):.0f}"])
    return table


def measure_memory(made: Box) -> Table:
    """Memory at rest."""
    found = memory(made)
    table = Table(
        "Memory at rest",
        "MiB of proportional set size after turns and ten seconds of rest, without sandbox and model. At most 700.",
        ["process", "MiB"],
        [[name, f"{found[name]:.0f}"] for name in MESH],
    )
    table.rows.append(["together", f"{sum(found.values()):.0f}"])
    return table


def measure_start() -> Table:
    """From `oiab up` to ready."""
    table = Table(
        "Time to be ready",
        "From `oiab up --detach` to its end, which is when the API answers through Envoy. Cold makes the home and the "
        "database; warm starts on them. The demo model is on. Seconds. Target: 10 warm.",
        ["", "seconds"],
    )
    started = time.monotonic()
    with box() as made:
        table.rows.append(["cold", f"{time.monotonic() - started:.1f}"])
        for _ in range(3):
            made.stop()
            started = time.monotonic()
            made.start()
            table.rows.append(["warm", f"{time.monotonic() - started:.1f}"])
    return table


async def run() -> list[Table]:
    """Measure everything."""
    tables = [measure_start()]
    with scripted_model() as url, box(OIAB_DEMO_MODEL="false") as made, tempfile.TemporaryDirectory() as folder:
        use_scripted_model(made, url)
        async with bare_agent(Path(folder), url) as agent:
            tables.append(await measure_latency(made, agent))
        tables.append(await measure_cpu(made))
        await asyncio.sleep(10)
        tables.append(measure_memory(made))
    return tables
