"""A child process of a gRPC server.

The loops' own way to start one forks, and between fork and exec the handlers of gRPC run in a copy of a process with
many threads: now and then that copy crashes. `subprocess` starts children by vfork, where no handler runs.
"""

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Self


class Child:
    """A running program without an input; what it prints, errors included, is one stream."""

    def __init__(self, process: subprocess.Popen[bytes], stdout: asyncio.StreamReader) -> None:
        self._process = process
        self._ended = asyncio.Event()
        self.stdout = stdout
        self._handle = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._handle, self._collect)

    @classmethod
    async def start(
        cls, *argv: str, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = (), session: bool = False
    ) -> Self:
        """Start a program.

        The call must come from the main thread: a program that wants to die with its parent dies with that thread.

        Args:
            argv: The program and its arguments.
            env: All of its environment. None means ours.
            pass_fds: Open files that it inherits under the same numbers.
            session: Whether it gets a session of its own, so that no signal of a terminal reaches it.

        Raises:
            OSError: It cannot be started.
        """
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at the exec, within a millisecond or two
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            pass_fds=tuple(pass_fds),
            start_new_session=session,
        )
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, process.stdout)
        return cls(process, reader)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while the process runs."""
        return self._process.returncode

    def kill(self) -> None:
        """Kill the process, if it runs."""
        self._process.kill()

    async def wait(self) -> int:
        """Wait for the end of the process and return its exit code."""
        await self._ended.wait()
        return self._process.returncode or 0

    def _collect(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self._process.wait()
        self._ended.set()


async def output(*argv: str) -> tuple[int, str]:
    """Run a program to its end: its exit code, and what it printed."""
    child = await Child.start(*argv)
    said = await child.stdout.read()
    return await child.wait(), said.decode(errors="replace")
