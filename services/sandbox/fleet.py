"""The sandboxes that run on this host: starts each once, ends idle ones, takes new bundles, and knows the runs."""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from services.kit import telemetry
from services.kit.errors import DomainError
from services.sandbox.driver import INNER_BUNDLE, INNER_HOME, Driver, Launch, Limits
from services.sandbox.hub import Hub
from services.sandbox.live import Live
from services.sandbox.metrics import SANDBOXES, START_SECONDS, STARTS_FAILED
from services.sandbox.opencode import USER_NAME, Opencode
from services.sandbox.run import Run
from services.sandbox.sandbox import Sandbox, SandboxStartFailed, SandboxState
from services.sandbox.volume import Bundle, Volume, applied_link, read_bundle

# Off is what would reach for a network, share, install, or read settings from files that the agent can write.
_SWITCHED_OFF = (
    "AUTOUPDATE", "MODELS_FETCH", "SHARE", "LSP_DOWNLOAD", "DEFAULT_PLUGINS", "CLAUDE_CODE", "EXTERNAL_SKILLS",
    "EMBEDDED_WEB_UI", "PROJECT_CONFIG",
)  # fmt: skip
_SWEEP_SECONDS = 15
_CONNECT_SECONDS = 10

IssueToken = Callable[[Sandbox], Awaitable[str]]
Report = Callable[[Sandbox], Awaitable[None]]


@dataclass(frozen=True)
class Place:
    """Where the sandboxes of this host have their files, and what each may use."""

    volumes: Path
    runtime: Path
    model_door: Path
    limits: Limits = field(default_factory=Limits)
    idle_seconds: float = 1800
    keep_run_seconds: float = 900
    keep_run_bytes: int = 256 * 2**20


@dataclass
class Fleet:
    """The sandboxes that run on this host.

    Args:
        driver: How a sandbox is isolated.
        place: Where everything is.
        issue_token: Makes the throw-away token with which a sandbox calls models.
        report: Told of every change of a sandbox.
        runs: The runs that are kept, by turn.
        unsure: Turns that never ran, though the database may have noted that they do: its answer was lost.
    """

    driver: Driver
    place: Place
    issue_token: IssueToken
    report: Report
    runs: dict[UUID, Run] = field(default_factory=dict)
    unsure: set[UUID] = field(default_factory=set)
    _live: dict[UUID, Live] = field(default_factory=dict)
    _locks: defaultdict[UUID, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _watchers: set[asyncio.Task[None]] = field(default_factory=set)

    def live(self, sandbox_id: UUID) -> Live | None:
        """The sandbox, if its processes run."""
        live = self._live.get(sandbox_id)
        return live if live and not live.ended.is_set() else None

    def running(self) -> list[Live]:
        """The sandboxes whose processes run."""
        return [live for live in self._live.values() if not live.ended.is_set()]

    async def ensure(self, sandbox: Sandbox) -> Live:
        """The running sandbox. It is started when it does not run, and again when a new bundle waits for it.

        Raises:
            RuntimeNotApplied: There is no bundle.
            SandboxIsolationUnavailable: This host cannot isolate it.
            SandboxStartFailed: It did not come up.
        """
        async with self._locks[sandbox.id]:
            bundle = await asyncio.to_thread(read_bundle, applied_link(self.place.runtime, sandbox.tenant_id))
            live = self.live(sandbox.id)
            if live and not live.active and live.bundle.revision != bundle.revision:
                telemetry.log().info("sandbox takes a new bundle", sandbox_id=str(sandbox.id), revision=bundle.revision)
                await self._end(live)
                live = None
            if live is None:
                if dying := self._live.get(sandbox.id):
                    # Two agents on one volume would be one too many.
                    await self._end(dying)
                live = await self._start(sandbox, bundle)
            live.last_used = time.monotonic()
            return live

    async def stop(self, sandbox_id: UUID) -> None:
        """End the processes of a sandbox. Its turns fail; its files stay."""
        async with self._locks[sandbox_id]:
            if live := self.live(sandbox_id):
                await self._end(live)

    async def stop_all(self) -> None:
        """End every sandbox of this host."""
        await asyncio.gather(*(self.stop(sandbox_id) for sandbox_id in list(self._live)))

    async def sweep_for_ever(self) -> None:
        """Sweep from time to time."""
        while True:
            await asyncio.sleep(min(_SWEEP_SECONDS, self.place.idle_seconds))
            try:
                await self.sweep()
            except Exception:  # noqa: BLE001 - the next round may go well, and without rounds nothing idle would end
                telemetry.log().exception("sweep broke")

    async def sweep(self) -> None:
        """End what has been idle for long, and forget runs that were kept for long enough."""
        self._forget_runs()
        for sandbox_id, live in list(self._live.items()):
            if live.idle_seconds > self.place.idle_seconds:
                await self._stop_idle(sandbox_id)

    async def _stop_idle(self, sandbox_id: UUID) -> None:
        async with self._locks[sandbox_id]:
            live = self.live(sandbox_id)
            # A claim may have come while this waited for its turn.
            if live and live.idle_seconds > self.place.idle_seconds:
                telemetry.log().info("sandbox is idle", sandbox_id=str(sandbox_id))
                await self._end(live)

    async def _start(self, sandbox: Sandbox, bundle: Bundle) -> Live:
        began = time.monotonic()
        log = telemetry.log().bind(sandbox_id=str(sandbox.id), revision=bundle.revision)
        log.info("sandbox starts")
        await self.report(replace(sandbox, state=SandboxState.STARTING, runtime_revision=bundle.revision))
        try:
            with telemetry.span("sandbox start", sandbox_id=str(sandbox.id)):
                await self.driver.check()
                live = await self._bring_up(sandbox, bundle)
        except Exception:
            STARTS_FAILED.inc()
            await self._report_stopped(sandbox)
            raise
        START_SECONDS.observe(time.monotonic() - began)
        self._live[sandbox.id] = live
        SANDBOXES.set(len(self._live))
        watcher = asyncio.create_task(live.watch(self._ended), name=f"sandbox-{sandbox.id}")
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        await self.report(live.sandbox)
        seconds = round(time.monotonic() - began, 3)
        log.info("sandbox runs", seconds=seconds, pid=live.process.pid, limited=live.process.limited)
        return live

    async def _bring_up(self, sandbox: Sandbox, bundle: Bundle) -> Live:
        volume = Volume(self.place.volumes / str(sandbox.id))
        await asyncio.to_thread(volume.prepare, bundle)
        password = secrets.token_urlsafe(24)
        process = await self.driver.start(
            Launch(
                # The end of a UUIDv7 is its random part.
                name=sandbox.id.hex[-12:],
                home=volume.home,
                workspace=volume.workspace,
                bundle=volume.bundle,
                config=volume.config,
                model_door=self.place.model_door,
                bridge=volume.bridge,
                log=volume.log,
                environment=environment(password, await self.issue_token(sandbox)),
                limits=self.place.limits,
            )
        )
        await process.ready()
        agent = Opencode(process.socket, password)
        hub = Hub(agent)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await hub.connected()
        except TimeoutError as error:
            await hub.close()
            await agent.close()
            await process.stop()
            process.release()
            raise SandboxStartFailed("the agent does not answer", sandboxId=sandbox.id) from error
        running = replace(
            sandbox, state=SandboxState.RUNNING, runtime_revision=bundle.revision, start_time=datetime.now(UTC)
        )
        return Live(running, bundle, process, agent, hub)

    async def _end(self, live: Live) -> None:
        """End a sandbox and wait until all is told. Its lock is held."""
        watchers = [watcher for watcher in self._watchers if watcher.get_name() == f"sandbox-{live.sandbox.id}"]
        await live.process.stop()
        await asyncio.gather(*watchers)

    async def _ended(self, live: Live) -> None:
        if self._live.get(live.sandbox.id) is live:
            del self._live[live.sandbox.id]
            SANDBOXES.set(len(self._live))
            await self._report_stopped(live.sandbox)

    async def _report_stopped(self, sandbox: Sandbox) -> None:
        """Tell that a sandbox is stopped. It is so even when nobody can be told."""
        try:
            await self.report(replace(sandbox, state=SandboxState.STOPPED, runtime_revision=""))
        except DomainError as error:
            telemetry.log().warning("state of a sandbox was not kept", sandbox_id=str(sandbox.id), reason=error.reason)

    def forget_runs_of(self, session_id: UUID) -> None:
        """Forget the runs of a session that have ended."""
        for run in [run for run in self.runs.values() if run.ended and run.turn.session_id == session_id]:
            del self.runs[run.turn.id]

    def _forget_runs(self) -> None:
        """Forget what ended long ago, and more of it when there is too much."""
        now = datetime.now(UTC)
        size = sum(run.size for run in self.runs.values())
        ended = [(run.end_time, run) for run in self.runs.values() if run.end_time]
        for end_time, run in sorted(ended, key=lambda item: item[0]):
            old = (now - end_time).total_seconds() > self.place.keep_run_seconds
            if old or size > self.place.keep_run_bytes:
                size -= run.size
                del self.runs[run.turn.id]


def environment(password: str, token: str) -> Mapping[str, str]:
    """What the processes of a sandbox are told. The agent can read all of it: both secrets are good for it alone."""
    return {
        "HOME": INNER_HOME,
        "USER": "agent",
        "LOGNAME": "agent",
        "SHELL": "/bin/bash",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108 - the sandbox's own
        "OPENCODE_CONFIG_DIR": INNER_BUNDLE,
        # The bundle's list holds what is configured; the agent's own of all models in the world takes 100 MB.
        "OPENCODE_MODELS_PATH": f"{INNER_BUNDLE}/models.json",
        "OPENCODE_SERVER_USERNAME": USER_NAME,
        "OPENCODE_SERVER_PASSWORD": password,
        "OIAB_MODEL_TOKEN": token,
        **{f"OPENCODE_DISABLE_{name}": "1" for name in _SWITCHED_OFF},
    }
