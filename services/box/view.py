"""How an installation looks in a terminal: its start, its state, its logs."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import psutil
import typer
from rich.console import Console, Group, RenderableType
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from services.box.errors import BoxError
from services.box.home import Home
from services.box.process import Phase, ProcessState
from services.box.state import BoxPhase, BoxState

MARKS = {
    Phase.WAITING: ("·", "dim"),
    Phase.STARTING: ("…", "yellow"),
    Phase.READY: ("✓", "green"),
    Phase.RESTARTING: ("↻", "red"),
    Phase.STOPPING: ("…", "yellow"),
    Phase.STOPPED: ("·", "dim"),
}
LEVEL_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "red", "critical": "red"}
MIB = 1024 * 1024


def starting(state: BoxState) -> RenderableType:
    """A start as it goes on."""
    verb = "Stopping" if state.phase is BoxPhase.STOPPING else "Starting"
    lines = [_line(process) for process in state.processes]
    return Group(Spinner("dots", Text(f"{verb} Org in a Box")), *lines)


def change(before: ProcessState | None, now: ProcessState) -> str | None:
    """What changed of a process, in a line, or nothing worth telling."""
    if before is not None and before.phase is now.phase and before.restarts == now.restarts:
        return None
    if now.phase is Phase.READY:
        return f"{now.name} is ready"
    if now.phase is Phase.RESTARTING:
        return f"{now.name} {now.message}; it is started again"
    return None


def status(home: Home, state: BoxState) -> RenderableType:
    """Where the installation is, and its processes as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "process", "state", "pid", "for", "restarts", "memory"):
        table.add_column(name, justify="right" if name in {"pid", "for", "restarts", "memory"} else "left")
    for process in state.processes:
        mark, style = MARKS[process.phase]
        memory = memory_of(process)
        table.add_row(
            Text(mark, style),
            process.name,
            Text(f"{process.phase} {process.message}".strip(), style),
            str(process.pid or ""),
            duration(process.since),
            str(process.restarts or ""),
            f"{memory / MIB:.0f} MiB" if memory else "",
        )
    style = "green" if state.phase is BoxPhase.READY else "yellow"
    phase = Text(f"{state.phase} ", style) + Text(state.address, "bold")
    places = Text(f"home {home.root}\nkey  {home.secrets / 'api_key'}", "dim")
    return Group(phase, places, table)


def as_json(home: Home, state: BoxState) -> str:
    """The state for programs."""
    processes = [
        {
            "name": process.name,
            "phase": process.phase,
            "pid": process.pid,
            "since": process.since,
            "restarts": process.restarts,
            "message": process.message,
            "memoryBytes": memory_of(process),
        }
        for process in state.processes
    ]
    return json.dumps(
        {
            "address": state.address,
            "home": str(home.root),
            "keyFile": str(home.secrets / "api_key"),
            "phase": state.phase,
            "message": state.message,
            "pid": state.pid,
            "since": state.since,
            "processes": processes,
        },
        indent=2,
    )


def memory_of(process: ProcessState) -> int:
    """The memory that a process and its children really take: what they share is counted once."""
    if process.pid is None:
        return 0
    with suppress(psutil.Error):
        root = psutil.Process(process.pid)
        return sum(_share(each) for each in (root, *root.children(recursive=True)))
    return 0


def log_line(console: Console, name: str, line: str) -> None:
    """Print a line of a log: JSON is made readable, all else is printed as it is."""
    text = Text(f"{name:<10} ", "cyan") + _readable(line)
    console.print(text, soft_wrap=True)


def duration(since: float | None) -> str:
    """How long ago that was, in the two units that matter."""
    if since is None:
        return ""
    seconds = max(0, int(time.time() - since))
    for unit, length, lower, lower_length in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= length:
            return f"{seconds // length}{unit} {seconds % length // lower_length}{lower}"
    return f"{seconds}s"


def _line(process: ProcessState) -> Text:
    mark, style = MARKS[process.phase]
    return Text(f"  {mark} {process.name:<12} {process.phase:<11} {process.message}".rstrip(), style)


def _share(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def _readable(line: str) -> Text:
    try:
        found = json.loads(line)
    except ValueError:
        return Text(line)
    if not isinstance(found, dict) or "event" not in found:
        return Text(line)
    moment = str(found.pop("timestamp", ""))[11:23]
    level = str(found.pop("level", "info"))
    found.pop("service", None)
    text = Text(f"{moment} ", "dim") + Text(str(found.pop("event")), LEVEL_STYLES.get(level, ""))
    return text + Text(_fields(found.items()), "dim")


def _fields(items: Iterable[tuple[str, object]]) -> str:
    return "".join(f" {name}={value}" for name, value in items)


@contextmanager
def said_plainly() -> Iterator[None]:
    """Turn the failure of a command into its sentence and an exit code."""
    try:
        yield
    except BoxError as error:
        Console(stderr=True).print(Text(str(error), "red"), soft_wrap=True)
        raise typer.Exit(1) from None
