"""What the rest of the room asks of whatever isolates a sandbox: bubblewrap now, Docker later."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

# Where things are inside every sandbox, whatever the driver.
INNER_HOME = "/home/agent"
INNER_WORKSPACE = "/workspace"
INNER_BUNDLE = "/bundle"
INNER_CONFIG = "/home/agent/.config/opencode"
MODEL_DOOR_PORT = 4200
AGENT_PORT = 4096


@dataclass(frozen=True)
class Limits:
    """What one sandbox may use of the host."""

    memory_bytes: int = 2 * 2**30
    pids: int = 512


@dataclass(frozen=True)
class Launch:
    """One start of one sandbox."""

    # A short name, unique among the sandboxes of this host.
    name: str
    home: Path
    workspace: Path
    bundle: Path
    # The agent's own configuration folder, read-only so that the agent cannot loosen its rules.
    config: Path
    # The folder on the host that holds `model.sock`, the one door out.
    model_door: Path
    # The folder in which the sandbox puts the socket of the agent's server.
    bridge: Path
    # Where what the sandbox prints is kept.
    log: Path
    # The agent can read all of it, so no secret of the box goes in.
    environment: Mapping[str, str] = field(repr=False)
    limits: Limits = field(default_factory=Limits)


class Process(Protocol):
    """A started sandbox."""

    @property
    def pid(self) -> int:
        """The process on the host whose end is the end of the sandbox."""

    @property
    def socket(self) -> Path:
        """Where the agent's server is to be reached on the host, once the sandbox is ready."""

    @property
    def limited(self) -> bool:
        """Whether memory and process limits are in force."""

    async def ready(self) -> None:
        """Wait until the agent's server answers, or raise SandboxStartFailed."""

    async def wait(self) -> int:
        """Wait for the end of the sandbox and return its exit code."""

    async def stop(self) -> None:
        """End every process of the sandbox and wait until they are gone."""

    def release(self) -> None:
        """Let go of what connections to the agent need, once nobody connects any more."""


class Driver(Protocol):
    """Starts isolated sandboxes."""

    async def check(self) -> None:
        """Raise SandboxIsolationUnavailable where sandboxes cannot be isolated."""

    async def start(self, launch: Launch) -> Process:
        """Start a sandbox. Isolation or nothing: there is no weaker way to start one."""
