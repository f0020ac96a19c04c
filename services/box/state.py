"""What the supervisor runs, written down for who asks from outside and for who cleans up after it."""

import json
import os
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

import psutil

from services.box.home import Home, write_private
from services.box.process import Phase, ProcessState


class BoxPhase(StrEnum):
    """Where the installation stands."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True)
class BoxState:
    """Where the installation and each of its processes stand."""

    address: str
    pid: int
    create_time: float
    since: float
    phase: BoxPhase = BoxPhase.STARTING
    message: str = ""
    processes: tuple[ProcessState, ...] = ()

    @classmethod
    def of_this_process(cls, address: str) -> Self:
        """The first state of an installation that this process runs."""
        created = psutil.Process().create_time()
        return cls(address=address, pid=os.getpid(), create_time=created, since=time.time())

    @property
    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        return is_alive(self.pid, self.create_time)


def write_state(home: Home, state: BoxState) -> None:
    """Write the state down in one step, so that no reader sees half of it."""
    write_private(home.state_file, json.dumps(asdict(state), indent=1), durable=False)


def read_state(home: Home) -> BoxState | None:
    """The state last written, or nothing when none is there or it cannot be read."""
    try:
        found = json.loads(home.state_file.read_text())
        return _from_json(found)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def running_state(home: Home) -> BoxState | None:
    """The state of a supervisor that runs."""
    state = read_state(home)
    return state if state and state.alive else None


def is_alive(pid: int | None, create_time: float | None) -> bool:
    """Whether that very process runs, not another that got its pid, and not a dead one that nobody has buried."""
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        # Boot time is rounded differently now and then, so the same process may be a hundredth of a second off.
        same = create_time is None or abs(process.create_time() - create_time) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _from_json(found: dict[str, Any]) -> BoxState:
    processes = tuple(ProcessState(**{**each, "phase": Phase(each["phase"])}) for each in found.pop("processes"))
    return BoxState(**{**found, "phase": BoxPhase(found["phase"])}, processes=processes)
