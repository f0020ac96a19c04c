"""Processes as nouns: their states, the waits between their starts, their logs, and what is written down of them."""

import os
from pathlib import Path

import psutil
import pytest

from services.box import view
from services.box.home import Home
from services.box.logfiles import last_lines, open_log, rotate_logs
from services.box.process import Backoff, Phase, ProcessState, describe_exit
from services.box.state import BoxPhase, BoxState, is_alive, read_state, running_state, write_state


def test_the_wait_doubles_and_ends() -> None:
    backoff = Backoff(jitter=lambda: 0.5)
    assert [backoff.after(0) for _ in range(9)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15, 15]
    assert backoff.after(31) == pytest.approx(0.2), "a stable run begins anew"


def test_the_wait_is_spread() -> None:
    assert Backoff(jitter=lambda: 0.0).after(0) == pytest.approx(0.15)
    assert Backoff(jitter=lambda: 1.0).after(0) == pytest.approx(0.25)


def test_an_end_is_said() -> None:
    assert describe_exit(0) == "exited with 0"
    assert describe_exit(-9) == "was killed by SIGKILL"
    assert describe_exit(-99) == "was killed by signal 99"


def test_the_life_of_a_process() -> None:
    born = ProcessState("api").born(7, 1.0, 2.0)
    ready = born.moved(Phase.READY, 3.0)
    dead = ready.died(Phase.RESTARTING, 4.0, "was killed by SIGKILL")
    assert (born.phase, born.pid) == (Phase.STARTING, 7)
    assert (ready.phase, ready.pid, ready.since) == (Phase.READY, 7, 3.0)
    assert (dead.pid, dead.restarts, dead.message) == (None, 1, "was killed by SIGKILL")
    assert dead.died(Phase.STOPPED, 5.0, "").restarts == 1
    assert view.change(ready, dead) == "api was killed by SIGKILL; it is started again"
    assert view.change(born, ready) == "api is ready"
    assert view.change(ready, ready) is None


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    home = Home(tmp_path, tmp_path)
    assert read_state(home) is None
    created = psutil.Process().create_time()
    state = BoxState(
        address="http://127.0.0.1:1",
        pid=os.getpid(),
        create_time=created,
        since=1.5,
        phase=BoxPhase.READY,
        processes=(ProcessState("api", Phase.READY, 7, 2.5, 3.5, 1, "x"),),
    )
    write_state(home, state)
    assert read_state(home) == state
    assert running_state(home) == state
    assert not is_alive(os.getpid(), created - 100), "another process had that pid"
    assert not is_alive(None, None)
    for broken in ("", "{", "[]", "{}", '{"processes": 1}'):
        home.state_file.write_text(broken)
        assert read_state(home) is None


def test_a_long_log_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    log = open_log(path)
    for word in ("one", "two", "three", "four", "five"):
        os.write(log, f"{word}\n".encode() * 10)
        rotate_logs(tmp_path, limit=20)
    os.write(log, b"last\n")
    os.close(log)
    assert path.read_text() == "last\n", "the process goes on at the new end"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["api.log", "api.log.1", "api.log.2", "api.log.3"]
    assert (tmp_path / "api.log.1").read_text() == "five\n" * 10
    assert all(found.stat().st_mode & 0o777 == 0o600 for found in tmp_path.iterdir())


def test_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    assert last_lines(path, 3) == []
    path.write_text("".join(f"{number}\n" for number in range(100_000)))
    assert last_lines(path, 3) == ["99997", "99998", "99999"]
    assert last_lines(path, 0) == []
