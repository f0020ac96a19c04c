"""The commands that start, stop and show an installation: `oiab up | down | status | logs | doctor`."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Self

import psutil
import typer
from rich.console import Console
from rich.live import Live

from services.box import view
from services.box.certificate_commands import app as certificates
from services.box.database_commands import app as database
from services.box.errors import BoxError
from services.box.home import Home, HomeBusy
from services.box.logfiles import last_lines
from services.box.process import Phase, ProcessState
from services.box.state import BoxPhase, BoxState, read_state, running_state

FAILED = 1
NOT_RUNNING = 3
FOLLOW_EVERY = 0.1
# Who holds the home writes its state down at once.
BUSY_SECONDS = 5.0
# Longer than the supervisor takes by its own deadlines.
DOWN_SECONDS = 60.0

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich")
app.add_typer(certificates, name="certificates")
app.add_typer(database, name="database")
out = Console()
err = Console(stderr=True)


@app.command(epilog="Exit codes: 0 it ran, or runs already; 1 it could not be started.")
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is ready, and let it run.")] = False,
) -> None:
    """Start everything and keep it running.

    Stays in the foreground until Ctrl-C, and prints `ready` with the address when the API answers. Data lives in
    OIAB_HOME (default ~/.orginabox); OIAB_PORT is the port (default 8787). Homes run side by side on other ports.
    """
    with view.said_plainly():
        home = Home.locate(os.environ)
        if state := running_state(home):
            _follow(home, state.pid)
        elif detach:
            _start_detached(home)
        else:
            _run_here(home)


@app.command(epilog="Exit codes: 0 nothing runs any more; 1 something could not be stopped.")
def down() -> None:
    """Stop everything, and leave no process behind, also after the supervisor was killed."""
    from services.box.leftovers import end_leftovers, find_leftovers

    home = Home.locate(os.environ)
    state = running_state(home)
    if state:
        with err.status("Stopping Org in a Box"):
            _stop_supervisor(state)
    ended = end_leftovers(home)
    home.leave()
    if find_leftovers(home):
        err.print("[red]some processes could not be stopped; they belong to another user[/]")
        raise typer.Exit(FAILED)
    out.print("stopped" if state or ended else "nothing was running")


@app.command(epilog="Exit codes: 0 all is ready; 1 something is not; 3 it is not running.")
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print it for programs.")] = False,
) -> None:
    """Show every process: where it stands, since when, how often it was restarted, and its memory."""
    home = Home.locate(os.environ)
    state = running_state(home)
    if state is None:
        out.print_json('{"phase": "stopped", "processes": []}') if as_json else out.print(
            "not running; start it with `oiab up`"
        )
        raise typer.Exit(NOT_RUNNING)
    if as_json:
        out.print(view.as_json(home, state), highlight=False, soft_wrap=True)
    else:
        out.print(view.status(home, state), soft_wrap=True)
    if state.phase is not BoxPhase.READY or any(process.phase is not Phase.READY for process in state.processes):
        raise typer.Exit(FAILED)


@app.command(epilog="Exit codes: 0 printed; 1 there is no such log.")
def logs(
    name: Annotated[str | None, typer.Argument(help="The process. Without it: all.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what comes.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines of each log to begin with.")] = 50,
) -> None:
    """Print the logs of the processes."""
    folder = Home.locate(os.environ).logs
    paths = [folder / f"{name}.log"] if name else sorted(folder.glob("*.log"))
    if name and not paths[0].exists():
        known = ", ".join(path.stem for path in sorted(folder.glob("*.log")))
        err.print(f"[red]there is no log of {name}[/]; there are: {known or 'none yet'}")
        raise typer.Exit(FAILED)
    for path in paths:
        for line in last_lines(path, lines):
            view.log_line(out, path.stem, line)
    if follow:
        with suppress(KeyboardInterrupt):
            _follow_logs(folder, name)


@app.command(epilog="Exit codes: 0 all is well; 1 something is missing.")
def doctor() -> None:
    """Check that this machine has what Org in a Box needs, and say what to do where it has not."""
    from services.box.doctor import examine
    from services.box.settings import read_settings

    with view.said_plainly():
        home = Home.locate(os.environ)
        fine = True
        for check in examine(home, read_settings(home)):
            fine &= check.fine
            mark = "[red]✗[/]" if not check.fine else "[yellow]![/]" if check.caution else "[green]✓[/]"
            out.print(f"{mark} {check.name:<11} {check.found}", highlight=False, soft_wrap=True)
            if advice := check.caution if check.fine else check.remedy:
                out.print(f"  [yellow]→ {advice}[/]", highlight=False, soft_wrap=True)
        if not fine:
            raise typer.Exit(FAILED)


def _run_here(home: Home) -> None:
    """Be the supervisor, or watch who was faster by a moment."""
    from services.box.run import run

    end = time.monotonic() + BUSY_SECONDS
    while True:
        progress = Progress()
        try:
            with progress:
                return run(home, os.environ, progress.told)
        except HomeBusy:
            if state := running_state(home):
                return _follow(home, state.pid)
            if time.monotonic() > end:
                raise
        time.sleep(FOLLOW_EVERY)


def _start_detached(home: Home) -> None:
    """Let another process be the supervisor, and watch it until all is ready."""
    home.create()
    with (home.logs / "supervisor.log").open("a") as log:
        supervisor = subprocess.Popen(
            (sys.executable, "-m", "services.box", "up"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
        )
    _follow(home, supervisor.pid, home.logs / "supervisor.log")


def _follow(home: Home, pid: int, log: Path | None = None) -> None:
    """Watch another supervisor, which prints to that log, until all is ready or it is gone."""
    said = None
    with Progress() as progress:
        while True:
            gone = not _runs(pid)  # asked first: what it wrote last is read after its end
            state = read_state(home)
            if state and state.pid == pid:
                progress.told(state)
                said = state.message
                if state.phase is BoxPhase.READY:
                    return
            if gone:
                if said is None and log:
                    said = "\n".join(last_lines(log, 1))
                raise BoxError(said or "it stopped while it started; see `oiab logs`")
            time.sleep(FOLLOW_EVERY)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _stop_supervisor(state: BoxState) -> None:
    """Ask a supervisor to stop, and kill it when it takes longer than it should."""
    from services.box.leftovers import wait_until_dead

    try:
        supervisor = psutil.Process(state.pid)
        supervisor.send_signal(signal.SIGTERM)
        for late in wait_until_dead([supervisor], DOWN_SECONDS):
            late.kill()
    except psutil.NoSuchProcess:
        return


def _follow_logs(folder: Path, name: str | None) -> None:
    """Print what is appended to the logs, until Ctrl-C. A log that was cut is read from its beginning."""
    places = {path: path.stat().st_size for path in folder.glob("*.log")}
    while True:
        time.sleep(FOLLOW_EVERY)
        for path in sorted(folder.glob(f"{name or '*'}.log")):
            place = places.get(path, 0)
            size = path.stat().st_size
            places[path] = _print_from(path, place if size >= place else 0)


def _print_from(path: Path, place: int) -> int:
    """Print the whole lines of a log from a place on, and return where they end."""
    with path.open("rb") as file:
        file.seek(place)
        new = file.read()
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        view.log_line(out, path.stem, line)
    return place + len(whole)


class Progress:
    """Shows a start as it goes on: a moving list in a terminal, else a line for each thing that happens."""

    def __init__(self) -> None:
        self._live = Live(console=err, transient=True, refresh_per_second=10) if err.is_terminal else None
        self._seen: dict[str, ProcessState] = {}
        self._phase: BoxPhase | None = None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def told(self, state: BoxState) -> None:
        """Show a state."""
        first_ready = state.phase is BoxPhase.READY and self._phase is not BoxPhase.READY
        if first_ready:
            self.__exit__()
        elif state.phase is BoxPhase.STOPPING and self._phase is not BoxPhase.STOPPING:
            self.__exit__()
            err.print("stopping")
        elif self._live and state.phase is BoxPhase.STARTING:
            self._live.update(view.starting(state))
        if self._live is None or state.phase is BoxPhase.READY:
            self._tell_changes(state)
        if first_ready:
            # After all else, for who reads the last line.
            out.print(f"ready {state.address}", highlight=False)
            out.file.flush()
        self._phase = state.phase
        self._seen = {process.name: process for process in state.processes}

    def _tell_changes(self, state: BoxState) -> None:
        for process in state.processes:
            if line := view.change(self._seen.get(process.name), process):
                err.print(line, highlight=False)
