"""One run of an installation, from the lock on its home to the last process gone."""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from services.box import certificates
from services.box.errors import BoxError
from services.box.home import Home
from services.box.installation import Installation, database
from services.box.leftovers import end_leftovers
from services.box.process import Phase, ProcessSpec, ProcessState
from services.box.roles import Logins
from services.box.settings import read_settings
from services.box.state import BoxPhase, BoxState, read_state, write_state
from services.box.supervisor import Supervisor

T = TypeVar("T")
Processes = Callable[[Installation, Logins, ProcessSpec | None], list[ProcessSpec]]


def run(
    home: Home,
    environ: Mapping[str, str],
    told: Callable[[BoxState], None],
    processes: Processes = Installation.processes,
) -> None:
    """Run an installation until SIGTERM, SIGINT or SIGHUP.

    Args:
        home: Where it lives.
        environ: What it is told, with what its home says where the environment is silent.
        told: Called whenever something about it changes.
        processes: What to run.

    Raises:
        HomeBusy: Another supervisor runs this home.
        BoxError: It cannot run; the message says why.
    """
    home.create()
    settings = read_settings(home)
    with home.lock():
        state = BoxState.of_this_process(settings.address)
        # What a killed supervisor left must be gone before its successors start, and stays written down until it is.
        write_state(home, replace(state, processes=_left_behind(home)))
        end_leftovers(home)
        life = timedelta(seconds=settings.certificate_seconds)
        installation = Installation(home, settings, {**home.settings(), **environ})
        try:
            authority = certificates.prepare(home, life)
            asyncio.run(_run(installation, state, told, processes, certificates.keep_renewed(home, authority, life)))
        except BoxError as error:
            write_state(home, replace(state, phase=BoxPhase.FAILED, message=str(error)))
            raise


async def _run(
    installation: Installation,
    state: BoxState,
    told: Callable[[BoxState], None],
    processes: Processes,
    renewing: Coroutine[Any, Any, None],
) -> None:
    home = installation.home

    def tell(state: BoxState) -> None:
        write_state(home, state)
        told(state)

    stop = _stop_by_signal()
    tell(state)
    installation.refuse_taken_port()
    prepared = await _unless_stopped(stop, database(home, installation.settings, installation.environment()))
    if prepared is None:
        tell(replace(state, phase=BoxPhase.STOPPING))
        home.leave()
        return
    supervisor = Supervisor(
        home,
        processes(installation, *prepared),
        installation.settings.address,
        told=tell,
        open_for_business=installation.open_for_business(),
    )
    renewal = asyncio.create_task(renewing)
    await supervisor.run(stop)
    renewal.cancel()
    if supervisor.state.phase is not BoxPhase.FAILED:
        home.leave()


def _left_behind(home: Home) -> tuple[ProcessState, ...]:
    left = read_state(home)
    return tuple(process.moved(Phase.STOPPING, time.time()) for process in left.processes) if left else ()


async def _unless_stopped(stop: asyncio.Event, awaited: Coroutine[Any, Any, T]) -> T | None:
    """Wait for something, but no longer than until told to stop."""
    waiting = asyncio.create_task(awaited)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stopping.done():
        waiting.cancel()
        return None
    stopping.cancel()
    return await waiting


def _stop_by_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
