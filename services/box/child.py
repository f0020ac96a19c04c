"""One supervised process: started, asked until it is ready, started again when it dies, stopped by a deadline."""

import asyncio
import os
import signal
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from services.box.errors import BoxError
from services.box.logfiles import last_lines, open_log
from services.box.process import Backoff, Phase, ProcessSpec, ProcessState, describe_exit

PROBE_EVERY = 0.05
LOG_LINES_SHOWN = 8
LINE_LENGTH_SHOWN = 300


class Child:
    """A process under supervision."""

    def __init__(self, spec: ProcessSpec, logs: Path, changed: Callable[[], None]) -> None:
        self.spec = spec
        self.state = ProcessState(spec.name)
        self.ready = asyncio.Event()
        self.deaths_before_ready = 0
        self.refusal: BoxError | None = None
        self._log = logs / f"{spec.name}.log"
        self._changed = changed
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    async def supervise(self, needs: Iterable[asyncio.Event]) -> None:
        """Start the process when its needs are met, and keep it running until it is told to stop."""
        try:
            for need in needs:
                await self._unless_stopping(need.wait())
            await self._keep_running()
        finally:
            self._move(self.state.died(Phase.STOPPED, time.time(), ""))
            self._ended.set()

    async def stop(self) -> None:
        """Ask the process to end, and return when it has."""
        self._stopping.set()
        await self._ended.wait()

    def last_words(self) -> str:
        """The end of the process's log, for who must find out why it fails."""
        lines = last_lines(self._log, LOG_LINES_SHOWN)
        return "\n".join(textwrap.shorten(line, LINE_LENGTH_SHOWN, placeholder=" …") for line in lines)

    async def _keep_running(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            began = time.monotonic()
            message = await self._run_once()
            if not self._stopping.is_set():
                wait = backoff.after(time.monotonic() - began)
                self._move(self.state.died(Phase.RESTARTING, time.time(), message))
                await self._unless_stopping(asyncio.sleep(wait))

    async def _run_once(self) -> str:
        """Run the process from its start to its death and tell how it ended."""
        try:
            process = await self._start()
        except OSError as error:
            self.deaths_before_ready += 1
            return f"could not be started: {error.strerror}"
        death = asyncio.create_task(process.wait())
        failure = await self._become_ready(death)
        if not failure:
            await self._unless_stopping(asyncio.shield(death))
        if not death.done():
            await self._end(process, death)
        was_ready = self.ready.is_set()
        self.ready.clear()
        self.deaths_before_ready += not was_ready
        _kill_group(process)  # what it left behind
        return failure or describe_exit(death.result())

    async def _start(self) -> asyncio.subprocess.Process:
        if self.spec.prepare:
            self.spec.prepare()
        log = open_log(self._log)
        try:
            process = await asyncio.create_subprocess_exec(
                # setpriv becomes the program: it only asks the kernel for the signal first.
                *("setpriv", "--pdeathsig", self.spec.death_signal.name.removeprefix("SIG"), "--"),
                *self.spec.argv,
                env=dict(self.spec.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.spec.pass_fds,
                process_group=0,
            )
        finally:
            os.close(log)
        self._move(self.state.born(process.pid, _create_time(process.pid), time.time()))
        return process

    async def _become_ready(self, death: asyncio.Task[int]) -> str:
        """Wait until the process is ready, dead, or told to stop. When none of it comes, the answer says why."""
        asking = asyncio.create_task(self._ask_until_ready())
        stopping = asyncio.create_task(self._stopping.wait())
        ends = {death, asking, stopping}
        await asyncio.wait(ends, timeout=self.spec.start_seconds, return_when=asyncio.FIRST_COMPLETED)
        came = any(end.done() for end in ends)
        error = asking.exception() if asking.done() else None
        if asking.done() and not error and not death.done():
            self.ready.set()
            self._move(self.state.moved(Phase.READY, time.time()))
        asking.cancel()
        stopping.cancel()
        if error:
            self.refusal = error if isinstance(error, BoxError) else None
            return f"cannot be used: {error}"
        return "" if came else f"was not ready within {self.spec.start_seconds:g} s"

    async def _ask_until_ready(self) -> None:
        while not await self.spec.probe():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(PROBE_EVERY)

    async def _end(self, process: asyncio.subprocess.Process, death: asyncio.Task[int]) -> None:
        """Ask the process to end; kill it and its group when it takes too long."""
        self._move(self.state.moved(Phase.STOPPING, time.time()))
        with suppress(ProcessLookupError):
            process.send_signal(self.spec.stop_signal)
        await asyncio.wait({death}, timeout=self.spec.stop_seconds)
        if not death.done():
            _kill_group(process)
        await death

    async def _unless_stopping(self, awaited: Awaitable[object]) -> None:
        """Wait for something, but no longer than until the process is told to stop."""
        waiting = asyncio.ensure_future(awaited)
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        stopping.cancel()

    def _move(self, state: ProcessState) -> None:
        self.state = state
        self._changed()


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _create_time(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None
