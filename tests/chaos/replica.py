"""A second process of a service, which the supervisor knows nothing of."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.e2e.mesh import ROOT, Box


class Replica:
    """A second process of a service.

    Args:
        box: Has the first, whose environment it gets.
        addresses: What it is told otherwise.
    """

    def __init__(self, box: Box, service: str, addresses: Mapping[str, str]) -> None:
        self._box = box
        self._service = service
        self._env = environment(box.pid(service)) | dict(addresses)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start it, with more in its environment."""
        with (self._box.home / "logs" / f"{self._service}-2.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", f"services.{self._service}"),
                cwd=ROOT,
                env=self._env | dict(env or {}),
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        """Kill -9 it."""
        if self._process:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def environment(pid: int) -> dict[str, str]:
    """What a process was told by its environment."""
    raw = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(each.decode().split("=", 1) for each in raw if b"=" in each)
