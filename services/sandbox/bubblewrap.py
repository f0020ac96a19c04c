"""The sandbox driver of one machine: bubblewrap, with user, process and network namespaces of its own.

Nothing of the host's network gets in. The agent's server is reached through a socket in a folder of the sandbox's
own; models are reached through a socket in a folder that is mounted read-only.
"""

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.kit import telemetry
from services.sandbox import cgroup
from services.sandbox.child import Child, output
from services.sandbox.driver import (
    AGENT_PORT,
    INNER_BUNDLE,
    INNER_CONFIG,
    INNER_HOME,
    INNER_WORKSPACE,
    MODEL_DOOR_PORT,
    Launch,
)
from services.sandbox.sandbox import SandboxIsolationUnavailable, SandboxStartFailed

_USERS = "root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:1000:1000:agent:/home/agent:/bin/bash\n"
_GROUPS = "root:x:0:\nagent:x:1000:\n"
_HOSTS = "127.0.0.1 localhost sandbox\n"
_NSSWITCH = "passwd: files\ngroup: files\nhosts: files\n"
_INNER_AGENT = "/opt/opencode"
_INNER_DOOR = "/run/model"
_INNER_BRIDGE = "/run/bridge"
_SOCKET = "agent.sock"
_TEMPORARY = ("--tmpfs", "/tmp", "--tmpfs", "/dev/shm")  # noqa: S108 - the sandbox's own
_PROC_READ_ONLY = ("/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger", "/proc/mtrr")
_PROC_HIDDEN = (
    "/proc/acpi", "/proc/asound", "/proc/scsi", "/proc/kcore", "/proc/keys", "/proc/kmsg", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/slabinfo", "/proc/timer_list", "/proc/timer_stats", "/proc/vmallocinfo",
    "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/pagetypeinfo",
)  # fmt: skip
_LISTENING = b"opencode server listening on"
_LOG_LIMIT = 2**20
_GONE_SECONDS = 3

# Joins the control groups before anything of the sandbox runs, so that nothing escapes the limits.
_JOIN_GROUPS = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1" || exit 70; shift; n=$((n-1)); done; exec "$@"'


# What runs inside: the door to the models, the way in to the agent, the agent.
_INNER_SCRIPT = f"""
socat TCP-LISTEN:{MODEL_DOOR_PORT},bind=127.0.0.1,reuseaddr,fork UNIX-CONNECT:{_INNER_DOOR}/model.sock &
socat UNIX-LISTEN:{_INNER_BRIDGE}/{_SOCKET},fork,unlink-early,mode=600 TCP:127.0.0.1:{AGENT_PORT} &
exec {_INNER_AGENT}/opencode serve --hostname 127.0.0.1 --port {AGENT_PORT}
"""


@dataclass(frozen=True)
class Bubblewrap:
    """Starts sandboxes with bwrap."""

    # The opencode binary on the host.
    agent: Path
    start_timeout: float = 60

    async def check(self) -> None:
        """Refuse where bwrap, socat or user namespaces are missing, and say what to do."""
        for program in ("bwrap", "socat"):
            if shutil.which(program) is None:
                raise SandboxIsolationUnavailable(
                    f"{program} is not installed. Install it: apt-get install bubblewrap socat", missing=program
                )
        probe = [*_NAMESPACES, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
        code, said = await output("bwrap", *probe)
        if code != 0:
            telemetry.log().warning("no sandbox can be isolated here", exit_code=code, said=said)
            raise SandboxIsolationUnavailable(_advice(), missing="user namespaces")

    async def start(self, launch: Launch) -> "BubblewrapProcess":
        """Start a sandbox."""
        if not self.agent.is_file():
            raise SandboxStartFailed("opencode is not installed. Install it: run make install")
        group = cgroup.create(launch.name, launch.limits)
        if group is None:
            telemetry.log().warning("sandbox has no limits: control groups cannot be written", name=launch.name)
        try:
            with _Files() as files:
                options = files.options(_options(launch, self.agent, files, await _flags()))
                command = ["bwrap", "--args", str(options), "--", "/bin/sh", "-c", _INNER_SCRIPT]
                joined = [str(file) for file in group.member_files] if group else []
                process = await Child.start(
                    "/bin/sh", "-c", _JOIN_GROUPS, "join", str(len(joined)), *joined, *command,
                    # By inheritance: what stands in argv can be read by every user of the host.
                    env=launch.environment,
                    pass_fds=files.numbers,
                    session=True,
                )  # fmt: skip
        except OSError as error:
            if group:
                group.remove()
            raise SandboxStartFailed("the sandbox could not be started") from error
        return BubblewrapProcess(process, launch, group, self.start_timeout)


class BubblewrapProcess:
    """One running bwrap. When it ends, the kernel ends everything inside."""

    def __init__(
        self,
        process: Child,
        launch: Launch,
        group: cgroup.ControlGroup | None,
        start_timeout: float,
    ) -> None:
        self._process = process
        self._launch = launch
        self._group = group
        self._start_timeout = start_timeout
        self._handle: int | None = None
        self._listening = asyncio.Event()
        self._gone = asyncio.create_task(self._until_gone(), name=f"sandbox-gone-{launch.name}")
        self._drain = asyncio.create_task(self._drain_output(), name=f"sandbox-log-{launch.name}")

    @property
    def pid(self) -> int:
        """The process on the host whose end is the end of the sandbox."""
        return self._process.pid

    @property
    def socket(self) -> Path:
        """Where the agent's server is to be reached on the host, once the sandbox is ready."""
        return Path(f"/proc/self/fd/{self._handle}")

    @property
    def limited(self) -> bool:
        """Whether memory and process limits are in force."""
        return self._group is not None

    async def ready(self) -> None:
        """Wait for the line with which opencode says that it listens.

        A request that is sent before that line never gets an answer, so asking instead would be wrong.
        """
        try:
            async with asyncio.timeout(self._start_timeout):
                await self._until_listening()
                self._handle = await self._until_socket()
        except (TimeoutError, EOFError) as error:
            await self.stop()
            self.release()
            raise SandboxStartFailed("the agent did not start; the log of the sandbox says why") from error

    async def _until_listening(self) -> None:
        listening = asyncio.create_task(self._listening.wait())
        await asyncio.wait({listening, self._drain}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if not self._listening.is_set():
            raise EOFError

    async def _until_socket(self) -> int:
        while self._process.returncode is None:
            with contextlib.suppress(FileNotFoundError):
                return _open_socket(self._launch.bridge / _SOCKET)
            await asyncio.sleep(0.02)
        raise EOFError

    async def wait(self) -> int:
        """Wait for the end of the sandbox and return its exit code."""
        return await self._process.wait()

    async def stop(self) -> None:
        """End every process of the sandbox and wait until they are gone.

        There is nothing to say goodbye to: opencode keeps its sessions in SQLite, which a kill does not harm.
        """
        self._process.kill()
        await asyncio.shield(self._gone)
        await self._drain

    def release(self) -> None:
        """Let go of the handle of the socket. Its number soon stands for another file: nobody may connect any more."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    async def _drain_output(self) -> None:
        """Keep the beginning of what the sandbox prints, and look for the line that says it is up."""
        kept, tail = 0, b""
        with self._launch.log.open("wb", buffering=0) as log:
            while chunk := await self._process.stdout.read(65536):
                if kept < _LOG_LIMIT:
                    kept += log.write(chunk[: _LOG_LIMIT - kept])
                if not self._listening.is_set():
                    tail = (tail + chunk)[-65536:]
                    if _LISTENING in tail:
                        self._listening.set()

    async def _until_gone(self) -> None:
        await self._process.wait()
        if self._group is None:
            return
        # bwrap is gone; the kernel is still ending what was inside.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GONE_SECONDS):
                while not self._group.empty:  # noqa: ASYNC110 - the kernel tells nobody
                    await asyncio.sleep(0.01)
        self._group.remove()


_NAMESPACES = (
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try",
    "--die-with-parent", "--new-session",
)  # fmt: skip


class _Files:
    """Open files that a child inherits: what it needs to know without a name in argv or on disk."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number in self.numbers:
            os.close(number)

    def data(self, content: bytes) -> int:
        """The number of a file in memory that holds the content."""
        number = os.memfd_create("sandbox")
        self.numbers.append(number)
        os.write(number, content)
        os.lseek(number, 0, os.SEEK_SET)
        return number

    def options(self, options: Sequence[str]) -> int:
        """The number of a file with bwrap options, as `--args` wants them."""
        return self.data(b"".join(option.encode() + b"\0" for option in options))


def _open_socket(path: Path) -> int:
    """A handle on the socket that the sandbox made.

    The sandbox can write that folder. A link there could lead our connection to any socket of the host, so links are
    not followed, and all connections go through this handle to the one socket that was looked at.
    """
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    if stat.S_ISSOCK(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise FileNotFoundError(path)


def _options(launch: Launch, agent: Path, files: _Files, flags: Sequence[str]) -> list[str]:
    """What bwrap builds the sandbox from. Order matters: later mounts lie on top of earlier ones."""
    return [
        *_NAMESPACES, *flags,
        "--uid", "1000", "--gid", "1000", "--hostname", "sandbox",
        *_system(),
        "--dir", "/etc",
        *_etc(files),
        "--proc", "/proc", *_proc(), "--dev", "/dev", *_TEMPORARY, "--dir", "/run",
        "--dir", "/home",
        "--bind", str(launch.home), INNER_HOME,
        "--ro-bind", str(launch.config), INNER_CONFIG,
        "--bind", str(launch.workspace), INNER_WORKSPACE,
        "--ro-bind", str(launch.bundle), INNER_BUNDLE,
        "--bind", str(launch.bridge), _INNER_BRIDGE,
        "--ro-bind", str(launch.model_door), _INNER_DOOR,
        "--ro-bind", str(agent), f"{_INNER_AGENT}/opencode",
        "--chdir", INNER_WORKSPACE,
        "--remount-ro", "/",
    ]  # fmt: skip


def _system() -> list[str]:
    """The host's programs, read-only, whether or not /bin and /lib are links into /usr."""
    options = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            options += ["--ro-bind", str(path), str(path)]
    return options


def _proc() -> list[str]:
    """What of /proc is about the host and not about processes: read-only, or not at all.

    Its files belong to the host's root. When it is root who runs the box, the agent is that root to them, whatever its
    user id inside, and a setting such as the pattern of core dumps would lead out of the sandbox.
    """
    read_only = [path for path in _PROC_READ_ONLY if Path(path).exists()]
    hidden = [path for path in _PROC_HIDDEN if Path(path).is_file()]
    emptied = [path for path in _PROC_HIDDEN if Path(path).is_dir()]
    return [
        *(option for path in read_only for option in ("--ro-bind", path, path)),
        *(option for path in hidden for option in ("--ro-bind", "/dev/null", path)),
        *(option for path in emptied for option in ("--tmpfs", path, "--remount-ro", path)),
    ]


def _etc(files: _Files) -> list[str]:
    options: list[str] = []
    written: Mapping[str, str] = {
        "passwd": _USERS, "group": _GROUPS, "hosts": _HOSTS, "nsswitch.conf": _NSSWITCH, "resolv.conf": "",
    }  # fmt: skip
    for name, content in written.items():
        options += ["--ro-bind-data", str(files.data(content.encode())), f"/etc/{name}"]
    for name in ("ld.so.cache", "ssl/certs", "ssl/openssl.cnf", "alternatives", "localtime", "mime.types"):
        options += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return options


async def _flags() -> list[str]:
    """Hardening that newer versions know: no further namespaces inside, so less kernel to attack."""
    _, said = await output("bwrap", "--help")
    return ["--disable-userns"] if "--disable-userns" in said else []


def _advice() -> str:
    """What to do where the kernel forbids user namespaces, by what this host has switched on."""
    if _setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor forbids user namespaces here. Allow them for bwrap with an AppArmor profile, or for all: "
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if _setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "User namespaces are switched off. Allow them: sysctl -w kernel.unprivileged_userns_clone=1"
    if _setting("/proc/sys/user/max_user_namespaces") == "0":
        return "User namespaces are switched off. Allow them: sysctl -w user.max_user_namespaces=15000"
    return (
        "bwrap cannot make namespaces here. Inside a container, its seccomp or AppArmor profile forbids them: "
        "use the Docker sandbox, or run the box outside of a container"
    )


def _setting(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
