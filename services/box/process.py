"""The noun of the supervisor: a process, what it needs, and where it stands."""

import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

Probe = Callable[[], Awaitable[bool]]


class Phase(StrEnum):
    """Where a process stands."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ProcessSpec:
    """A process to keep running."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    probe: Probe
    """Asks whether the process does its work; raises a BoxError when it never will."""
    after: tuple[str, ...] = ()
    """The processes that must be ready before this one is started."""
    optional: bool = False
    """Whether the installation is ready without it."""
    prepare: Callable[[], None] | None = None
    """What to do before each start."""
    pass_fds: tuple[int, ...] = ()
    drain: Callable[[], Awaitable[None]] | None = None
    """Called first when the installation stops, while everything still runs."""
    stop_rank: int = 1
    """Processes of a lower rank are stopped before those of a higher one."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    """How long the process may take to stop before it is killed."""
    death_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends when the supervisor dies without stopping its processes."""
    start_seconds: float = 60.0
    """How long the process may take to become ready before it is started anew."""


@dataclass(frozen=True)
class ProcessState:
    """Where one process stands, as told to people and written to the state file."""

    name: str
    phase: Phase = Phase.WAITING
    pid: int | None = None
    create_time: float | None = None
    """With the pid it names the process for ever: pids are used again."""
    since: float | None = None
    """When the phase began, in seconds since 1970."""
    restarts: int = 0
    message: str = ""

    def moved(self, phase: Phase, since: float, message: str = "") -> Self:
        """The state after a change of phase."""
        return replace(self, phase=phase, since=since, message=message)

    def born(self, pid: int, create_time: float | None, since: float) -> Self:
        """The state of a process just started."""
        return replace(self, phase=Phase.STARTING, pid=pid, create_time=create_time, since=since, message="")

    def died(self, phase: Phase, since: float, message: str) -> Self:
        """The state after the process ended."""
        again = self.restarts + (phase is Phase.RESTARTING)
        return replace(self, phase=phase, pid=None, create_time=None, since=since, restarts=again, message=message)


@dataclass
class Backoff:
    """How long to wait before the next start: doubling with each death, from the beginning after a stable run."""

    first: float = 0.2
    most: float = 15.0
    stable_seconds: float = 30.0
    jitter: Callable[[], float] = field(default=random.random)
    deaths: int = 0

    def after(self, ran_seconds: float) -> float:
        """The wait after a run of that length."""
        self.deaths = 1 if ran_seconds >= self.stable_seconds else self.deaths + 1
        wait = min(self.first * 2.0 ** (self.deaths - 1), self.most)
        return wait * (0.75 + 0.5 * self.jitter())


def describe_exit(code: int) -> str:
    """An exit code as people say it."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
