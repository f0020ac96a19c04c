"""A sandbox whose processes run."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from services.kit import telemetry
from services.sandbox.ceiling import Ceiling
from services.sandbox.driver import Process
from services.sandbox.driving import LOST, TurnDriver
from services.sandbox.hub import Hub
from services.sandbox.opencode import Opencode
from services.sandbox.run import Run
from services.sandbox.sandbox import Sandbox
from services.sandbox.volume import Bundle


@dataclass
class Active:
    """A turn that runs."""

    run: Run
    driver: TurnDriver
    task: asyncio.Task[None]


@dataclass
class Live:
    """One running sandbox: its processes, its agent, and the turns in it."""

    sandbox: Sandbox
    bundle: Bundle
    process: Process
    agent: Opencode
    hub: Hub
    # The agent's names of our sessions, as far as it was asked; each is asked for by one task.
    sessions: dict[UUID, asyncio.Task[str]] = field(default_factory=dict)
    # The ceiling and the agent under which each of the agent's sessions is held, and the switches that say so.
    ceilings: dict[str, tuple[Ceiling, str, Mapping[str, bool]]] = field(default_factory=dict)
    last_used: float = field(default_factory=time.monotonic)
    active: dict[UUID, Active] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def idle_seconds(self) -> float:
        """For how long no turn has run."""
        return 0 if self.active else time.monotonic() - self.last_used

    def driver_of(self, run: Run) -> TurnDriver | None:
        """Who drives a run, while it goes on."""
        active = self.active.get(run.turn.id)
        return active.driver if active else None

    def start(self, run: Run, driver: TurnDriver) -> None:
        """Drive a run in the background; it goes on whoever reads."""
        task = asyncio.create_task(driver.drive(), name=f"turn-{run.turn.id}")
        self.active[run.turn.id] = Active(run, driver, task)
        task.add_done_callback(lambda _: self._forget(run))

    async def watch(self, when_ended: Callable[["Live"], Awaitable[None]]) -> None:
        """Wait for the end of the processes, and end every turn with them."""
        code = await self.process.wait()
        self.ended.set()
        telemetry.log().info("sandbox ended", sandbox_id=str(self.sandbox.id), exit_code=code, turns=len(self.active))
        turns = list(self.active.values())
        for turn in turns:
            # First the word, then the end of the task: readers learn at once, and nothing else can get in before it.
            turn.run.append(LOST)
            turn.task.cancel()
        await asyncio.gather(*(turn.task for turn in turns), return_exceptions=True)
        await self.hub.close()
        await self.agent.close()
        self.process.release()
        await when_ended(self)

    def _forget(self, run: Run) -> None:
        self.active.pop(run.turn.id, None)
        self.last_used = time.monotonic()
