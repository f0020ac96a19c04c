"""One run of an installation, from the lock on its home to the last process gone."""

import asyncio
import signal
from collections.abc import Callable, Mapping

from services.box.home import Home
from services.box.installation import Installation, database
from services.box.leftovers import end_leftovers
from services.box.process import ProcessSpec
from services.box.settings import read_settings
from services.box.state import BoxPhase, BoxState, write_state
from services.box.supervisor import Supervisor

Processes = Callable[[Installation, str, ProcessSpec | None], list[ProcessSpec]]


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
    with home.lock():
        # What a killed supervisor left must be gone before its successors start.
        end_leftovers(home)
        home.state_file.unlink(missing_ok=True)
        asyncio.run(_run(home, {**home.settings(), **environ}, told, processes))


async def _run(home: Home, environ: Mapping[str, str], told: Callable[[BoxState], None], processes: Processes) -> None:
    installation = Installation(home, read_settings(home), environ)
    installation.refuse_taken_port()
    url, server = await database(home, installation.settings, installation.environment())

    def tell(state: BoxState) -> None:
        write_state(home, state)
        told(state)

    supervisor = Supervisor(
        home,
        processes(installation, url, server),
        installation.settings.address,
        told=tell,
        open_for_business=installation.open_for_business(),
    )
    await supervisor.run(_stop_by_signal())
    if supervisor.state.phase is not BoxPhase.FAILED:
        home.leave()


def _stop_by_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
