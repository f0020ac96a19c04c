"""The supervisor on small programs: what it waits for, and when it gives up."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from services.box import commands
from services.box import supervisor as supervisor_module
from services.box.errors import BoxError
from services.box.home import Home
from services.box.process import Phase, ProcessSpec, ProcessState
from services.box.state import BoxPhase, BoxState
from services.box.supervisor import StartFailed, Supervisor


async def works() -> bool:
    return True


async def never_works() -> bool:
    raise BoxError("it has no extension vector; install it there")


async def fails_to_ask() -> bool:
    raise ValueError("not a number")


def process(name: str, probe: Callable[[], Awaitable[bool]]) -> ProcessSpec:
    """A process that does nothing."""
    return ProcessSpec(name=name, argv=("sleep", "60"), env={}, probe=probe)


async def run(folder: Path, *specs: ProcessSpec, stop: asyncio.Event | None = None) -> list[BoxState]:
    """Run the processes until they are ready, and return every state that was told."""
    home = Home(folder, folder / "run")
    home.create()
    stop = stop or asyncio.Event()
    told: list[BoxState] = []

    def tell(state: BoxState) -> None:
        told.append(state)
        if state.phase is BoxPhase.READY:
            stop.set()

    supervisor = Supervisor(home, specs, "http://127.0.0.1:1", told=tell, open_for_business=works)
    await supervisor.run(stop)
    return told


async def test_a_process_that_will_never_work_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="store cannot be used: it has no extension vector"):
        await run(tmp_path, process("store", never_works))


async def test_a_probe_that_fails_is_not_a_yes(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="store does not start: it cannot be used: not a number"):
        await run(tmp_path, process("store", fails_to_ask))


def soon(seconds: float) -> Callable[[], Awaitable[bool]]:
    """A probe that says yes from then on."""
    end = time.monotonic() + seconds

    async def probe() -> bool:
        return time.monotonic() > end

    return probe


def optional(probe: Callable[[], Awaitable[bool]], *argv: str) -> ProcessSpec:
    """A process that the installation can do without."""
    return replace(process("extra", probe), optional=True, argv=argv or ("sleep", "60"))


async def test_ready_means_the_optional_too(tmp_path: Path) -> None:
    told = await run(tmp_path, process("needed", works), optional(soon(0.5)))
    ready = next(state for state in told if state.phase is BoxPhase.READY)
    assert [found.phase for found in ready.processes] == [Phase.READY, Phase.READY]


async def test_nobody_waits_for_an_optional_one_that_fails(tmp_path: Path) -> None:
    began = time.monotonic()
    told = await run(tmp_path, process("needed", works), optional(soon(60), "false"))
    assert BoxPhase.READY in {state.phase for state in told}
    assert time.monotonic() - began < 30


async def test_nobody_waits_long_for_an_optional_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "OPTIONAL_SECONDS", 0.5)
    told = await run(tmp_path, process("needed", works), optional(soon(60)))
    ready = next(state for state in told if state.phase is BoxPhase.READY)
    assert [found.phase for found in ready.processes] == [Phase.READY, Phase.STARTING]


async def test_a_stop_ends_the_wait(tmp_path: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(1, stop.set)
    told = await run(tmp_path, process("needed", works), optional(soon(60)), stop=stop)
    assert BoxPhase.READY not in {state.phase for state in told}


def test_ready_is_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = StringIO()
    monkeypatch.setattr(commands, "out", Console(file=said))
    monkeypatch.setattr(commands, "err", Console(file=said))
    state = BoxState(address="http://127.0.0.1:1", pid=1, create_time=1, since=1, phase=BoxPhase.READY)
    commands.Progress().told(replace(state, processes=(ProcessState("extra", Phase.READY),)))
    assert said.getvalue() == "extra is ready\nready http://127.0.0.1:1\n"
