"""The supervisor: starts processes in the order of what they need, keeps them running, stops them in order."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby

from services.box.child import PROBE_EVERY, Child
from services.box.errors import BoxError
from services.box.home import Home
from services.box.logfiles import rotate_logs
from services.box.process import Probe, ProcessSpec
from services.box.state import BoxPhase, BoxState

DEATHS_BEFORE_GIVING_UP = 3
ROTATE_EVERY = 5.0
OPEN_SECONDS = 20.0
# What is optional is waited for too, but nobody waits for it long.
OPTIONAL_SECONDS = 15.0


class StartFailed(BoxError):
    """A process that the installation needs does not come up."""


class Supervisor:
    """Runs the processes of one installation."""

    def __init__(
        self,
        home: Home,
        specs: Sequence[ProcessSpec],
        address: str,
        *,
        told: Callable[[BoxState], None],
        open_for_business: Probe,
    ) -> None:
        self._home = home
        self._told = told
        self._open_for_business = open_for_business
        self._children = {spec.name: Child(spec, home.logs, self._changed) for spec in specs}
        self._state = BoxState.of_this_process(address)
        self._moved = asyncio.Event()

    @property
    def state(self) -> BoxState:
        """Where the installation stands."""
        return replace(self._state, processes=tuple(child.state for child in self._children.values()))

    async def run(self, stop: asyncio.Event) -> None:
        """Run everything until told to stop; then stop everything."""
        tasks = [asyncio.create_task(child.supervise(self._needs(child))) for child in self._children.values()]
        tasks.append(asyncio.create_task(self._keep_logs_small()))
        stopping = asyncio.create_task(stop.wait())
        try:
            await self._start(stopping)
            await stopping
        except StartFailed as error:
            self._move(BoxPhase.FAILED, str(error))
            raise
        finally:
            stopping.cancel()
            await self._stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start(self, stopping: asyncio.Task[bool]) -> None:
        """Wait until all that is needed is ready."""
        self._changed()
        while not all(child.ready.is_set() for child in self._children.values() if not child.spec.optional):
            await self._until_moved(stopping)
            if stopping.done():
                return
            self._give_up_on_the_hopeless()
        asking = asyncio.create_task(self._ask_until_open())
        await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            asking.cancel()
            return
        await asking
        await self._wait_for_the_optional(stopping)
        if not stopping.done():
            self._move(BoxPhase.READY)

    async def _wait_for_the_optional(self, stopping: asyncio.Task[bool]) -> None:
        """Wait until what is optional is ready or has failed, so that who is told `ready` finds it."""
        optional = [child for child in self._children.values() if child.spec.optional]
        with suppress(TimeoutError):
            async with asyncio.timeout(OPTIONAL_SECONDS):
                while not all(child.ready.is_set() or child.deaths_before_ready for child in optional):
                    await self._until_moved(stopping)
                    if stopping.done():
                        return

    async def _until_moved(self, stopping: asyncio.Task[bool]) -> None:
        """Wait until something changes, or until told to stop."""
        self._moved.clear()
        moved = asyncio.create_task(self._moved.wait())
        try:
            await asyncio.wait({moved, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            moved.cancel()

    async def _ask_until_open(self) -> None:
        for _ in range(int(OPEN_SECONDS / PROBE_EVERY)):
            if await self._open_for_business():
                return
            await asyncio.sleep(PROBE_EVERY)
        raise StartFailed(f"every process runs, but {self._state.address}/v1/healthz does not answer; see `oiab logs`")

    def _give_up_on_the_hopeless(self) -> None:
        for child in self._children.values():
            if child.refusal and not child.spec.optional:
                raise StartFailed(f"{child.spec.name} cannot be used: {child.refusal}")
            if child.deaths_before_ready >= DEATHS_BEFORE_GIVING_UP and not child.spec.optional:
                said = child.last_words()
                log = self._home.logs / f"{child.spec.name}.log"
                raise StartFailed(
                    f"{child.spec.name} does not start: it {child.state.message}. {log} ends with\n{said}"
                )

    def _needs(self, child: Child) -> list[asyncio.Event]:
        return [self._children[name].ready for name in child.spec.after]

    async def _stop(self) -> None:
        """Stop by rank: first who takes work, last who keeps it."""
        if self._state.phase is not BoxPhase.FAILED:
            self._move(BoxPhase.STOPPING)
        children = sorted(self._children.values(), key=lambda child: child.spec.stop_rank)
        await asyncio.gather(*(child.spec.drain() for child in children if child.spec.drain and child.ready.is_set()))
        for _, rank in groupby(children, key=lambda child: child.spec.stop_rank):
            await asyncio.gather(*(child.stop() for child in rank))

    async def _keep_logs_small(self) -> None:
        while True:
            await asyncio.sleep(ROTATE_EVERY)
            await asyncio.to_thread(rotate_logs, self._home.logs)

    def _move(self, phase: BoxPhase, message: str = "") -> None:
        self._state = replace(self._state, phase=phase, since=time.time(), message=message)
        self._changed()

    def _changed(self) -> None:
        self._moved.set()
        self._told(self.state)
