"""The supervisor on small programs: what it waits for, and when it gives up."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.box.errors import BoxError
from services.box.home import Home
from services.box.process import ProcessSpec
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
