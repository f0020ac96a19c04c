"""Ending what a supervisor left behind, whatever happened to it."""

import os
import signal
import time
from collections.abc import Iterable

import psutil

from services.box.home import MARK, Home
from services.box.state import BoxState, is_alive, read_state

# How long each kind of signal is given. PostgreSQL is asked last and in its own way.
GENTLE_SECONDS = 5.0
POSTGRES_SECONDS = 20.0
POLL_SECONDS = 0.05


def find_leftovers(home: Home) -> list[psutil.Process]:
    """Every living process of a home: those written down, those that carry its mark, and all that they started."""
    state = read_state(home)
    roots = [*_written_down(state), *_marked(home)] if state else list(_marked(home))
    found = {process.pid: process for root in roots for process in (root, *_children(root))}
    found.pop(os.getpid(), None)
    return [process for process in found.values() if not _is_dead(process)]


def end_leftovers(home: Home) -> int:
    """End every process of a home and return how many there were. The database goes last, with its data written."""
    found = find_leftovers(home)
    database = [process for process in found if _name(process) == "postgres"]
    servers = [process for process in database if process.ppid() not in {each.pid for each in database}]
    others = [process for process in found if process not in database]
    _end(others, signal.SIGTERM, GENTLE_SECONDS)
    _end(servers, signal.SIGINT, POSTGRES_SECONDS)
    _end(find_leftovers(home), signal.SIGKILL, GENTLE_SECONDS)
    return len(found)


def _end(processes: Iterable[psutil.Process], number: signal.Signals, seconds: float) -> None:
    asked = list(processes)
    for process in asked:
        _send(process, number)
    for process in wait_until_dead(asked, seconds):
        _send(process, signal.SIGKILL)
    wait_until_dead(asked, GENTLE_SECONDS)


def wait_until_dead(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for the death of processes and return those that still live. A dead one may lie unburied for long."""
    end = time.monotonic() + seconds
    alive = list(processes)
    while alive := [process for process in alive if not _is_dead(process)]:
        if time.monotonic() > end:
            break
        time.sleep(POLL_SECONDS)
    return alive


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)  # psutil makes sure that the pid is still that process
    except psutil.NoSuchProcess:
        return


def _written_down(state: BoxState) -> Iterable[psutil.Process]:
    for process in state.processes:
        if process.pid and is_alive(process.pid, process.create_time):
            yield psutil.Process(process.pid)


def _marked(home: Home) -> Iterable[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(home.root):
                yield process
        except (psutil.Error, OSError):
            continue  # somebody else's, or gone


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_dead(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""
