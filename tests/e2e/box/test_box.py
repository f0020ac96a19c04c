"""An installation as processes: what dies is started again, and nothing is ever left behind."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from services.box.home import MARK, Home
from services.box.postgres import OWNER, Postgres
from services.box.process import Phase, ProcessState
from services.box.state import BoxPhase, running_state
from tests.e2e.box.conftest import free_port

ROOT = Path(__file__).parents[3]


@dataclass
class SmallBox:
    """A home, and the supervisor that runs it."""

    home: Home
    port: int
    more: dict[str, str] = field(default_factory=dict)
    supervisor: subprocess.Popen[str] | None = None

    @property
    def env(self) -> dict[str, str]:
        """The environment of this installation's commands."""
        told = {"OIAB_HOME": str(self.home.root), "OIAB_PORT": str(self.port), "OIAB_DEMO_MODEL": "0"}
        return {name: value for name, value in os.environ.items() if name != MARK} | told | self.more

    def up(self, *arguments: str) -> str:
        """Start it, and return what it says first."""
        self.bury()
        self.supervisor = subprocess.Popen(
            (sys.executable, "-m", "tests.e2e.box.small_box", *arguments),
            env=self.env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.supervisor.stdout
        return self.supervisor.stdout.readline().strip()

    def bury(self) -> None:
        """Let go of a supervisor that is dead."""
        if self.supervisor and self.supervisor.stdout:
            self.supervisor.wait(10)
            self.supervisor.stdout.close()

    def oiab(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        argv = (sys.executable, "-m", "services.box", *arguments)
        return subprocess.run(argv, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    def process(self, name: str) -> ProcessState:
        """Where a process stands."""
        state = running_state(self.home)
        assert state
        return next(process for process in state.processes if process.name == name)

    def pid(self, name: str) -> int:
        """The pid of a process that runs."""
        pid = self.process(name).pid
        assert pid
        return pid

    def alive(self) -> list[str]:
        """The names of the processes that carry the mark of this home."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.home.root) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.name())
            except psutil.Error:
                continue
        return found

    def database(self) -> "psycopg.Connection[Any]":
        """A connection to the database of the services."""
        passwords = {OWNER: self.home.secret("postgres_password")}
        return psycopg.connect(Postgres(self.home.postgres, self.home.run, passwords).url, autocommit=True)


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def make_box() -> Iterator[Callable[[], SmallBox]]:
    """Make installations that are gone after the test."""
    boxes: list[SmallBox] = []
    with tempfile.TemporaryDirectory(prefix="oiab-") as folder:

        def make() -> SmallBox:
            root = Path(folder, f"home{len(boxes)}")
            boxes.append(SmallBox(Home.locate({"OIAB_HOME": str(root)}), free_port()))
            return boxes[-1]

        yield make
        for box in boxes:
            box.oiab("down")
            box.bury()


@pytest.fixture(scope="module")
def running(make_box: Callable[[], SmallBox]) -> SmallBox:
    """An installation that every test leaves running."""
    made = make_box()
    assert made.up() == f"ready http://127.0.0.1:{made.port}"
    return made


@pytest.fixture
def box(make_box: Callable[[], SmallBox]) -> SmallBox:
    """An installation that the test may end."""
    made = make_box()
    assert made.up() == f"ready http://127.0.0.1:{made.port}"
    return made


def test_it_runs_is_shown_and_stops(box: SmallBox) -> None:
    assert httpx.get(f"http://127.0.0.1:{box.port}/v1/healthz", trust_env=False).json()["ok"] is True

    shown = box.oiab("status", "--json")
    assert shown.returncode == 0
    found = json.loads(shown.stdout)
    assert found["phase"] == BoxPhase.READY
    assert {process["name"]: process["phase"] for process in found["processes"]} == dict.fromkeys(
        ("postgres", "api", "envoy"), Phase.READY
    )
    assert all(process["memoryBytes"] > 1_000_000 for process in found["processes"])
    assert "database system is ready" in box.oiab("logs", "postgres").stdout
    assert "there are: " in box.oiab("logs", "nothing").stderr

    again = box.oiab("up")
    assert (again.returncode, again.stdout.strip()) == (0, f"ready http://127.0.0.1:{box.port}")

    stopped = box.oiab("down")
    assert (stopped.returncode, stopped.stdout.strip()) == (0, "stopped")
    assert box.alive() == []
    assert box.oiab("status").returncode == 3
    assert box.oiab("down").stdout.strip() == "nothing was running"
    log = (box.home.logs / "postgres.log").read_text()
    assert "database system is shut down" in log


def test_what_dies_is_started_again(running: SmallBox) -> None:
    first = running.pid("api")
    os.kill(first, signal.SIGKILL)
    until(lambda: running.process("api").phase is Phase.READY and running.process("api").pid != first)
    assert running.process("api").restarts == 1
    assert httpx.get(f"http://127.0.0.1:{running.port}/v1/healthz", trust_env=False).status_code == 200


def test_a_killed_database_comes_back_with_its_rows(running: SmallBox) -> None:
    with running.database() as connection:
        connection.execute("CREATE TABLE kept (x vector(2))")
        connection.execute("INSERT INTO kept VALUES ('[1,2]')")
    first = running.pid("postgres")
    os.kill(first, signal.SIGKILL)
    until(lambda: running.process("postgres").phase is Phase.READY and running.process("postgres").pid != first)
    with running.database() as connection:
        assert connection.execute("SELECT x <-> '[1,2]' FROM kept").fetchone() == (0.0,)
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)


def test_a_killed_supervisor_leaves_nothing(box: SmallBox) -> None:
    assert box.supervisor
    pids = [box.pid(name) for name in ("postgres", "api", "envoy")]
    box.supervisor.kill()
    box.supervisor.wait()
    until(lambda: box.alive() == [], 10)
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert "database system is shut down" in (box.home.logs / "postgres.log").read_text()
    assert box.oiab("status").returncode == 3
    assert box.up() == f"ready http://127.0.0.1:{box.port}"


def test_down_finds_what_escaped(box: SmallBox) -> None:
    """A process that the kernel does not end with its supervisor, as after it asked to live on."""
    argv = ("setpriv", "--pdeathsig", "clear", "sleep", "300")
    escaped = subprocess.Popen(argv, env={**box.env, MARK: str(box.home.root)}, start_new_session=True)
    assert box.oiab("down").stdout.strip() == "stopped"
    assert escaped.wait(5) == -signal.SIGTERM
    assert box.alive() == []


def test_homes_side_by_side(running: SmallBox, make_box: Callable[[], SmallBox]) -> None:
    other = make_box()
    assert other.up() == f"ready http://127.0.0.1:{other.port}"
    assert other.oiab("down").returncode == 0
    assert other.alive() == []
    assert httpx.get(f"http://127.0.0.1:{running.port}/v1/healthz", trust_env=False).status_code == 200


def test_a_taken_port_is_said(running: SmallBox, make_box: Callable[[], SmallBox]) -> None:
    other = make_box()
    other.port = running.port
    for arguments in (("up",), ("up", "--detach")):
        refused = other.oiab(*arguments)
        assert refused.returncode == 1
        assert "OIAB_PORT" in refused.stderr
        assert other.alive() == []


def test_down_ends_a_start_that_has_no_process_yet(make_box: Callable[[], SmallBox]) -> None:
    box = make_box()
    box.home.create()
    with box.home.postgres.with_name("postgres.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with subprocess.Popen((sys.executable, "-m", "services.box", "up"), env=box.env, cwd=ROOT) as up:
            until(lambda: running_state(box.home) is not None)
            assert box.oiab("down").stdout.strip() == "stopped"
            assert up.wait(5) == 0
    assert not box.home.postgres.exists()


def test_who_comes_second_hears_that_the_first_failed(make_box: Callable[[], SmallBox]) -> None:
    box = make_box()
    box.home.create()
    first = """if True:
        import os, time
        from dataclasses import replace
        from services.box.home import Home
        from services.box.state import BoxPhase, BoxState, write_state
        home = Home.locate(os.environ)
        with home.lock():
            print("held", flush=True)
            time.sleep(2)
            state = BoxState.of_this_process("")
            write_state(home, replace(state, phase=BoxPhase.FAILED, message="the first had no luck"))
            time.sleep(3)
        """
    argv = (sys.executable, "-c", first)
    with subprocess.Popen(argv, env=box.env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout
        assert supervisor.stdout.readline() == "held\n"
        second = box.oiab("up")
    assert (second.returncode, second.stderr.strip()) == (1, "the first had no luck")


def test_a_service_that_cannot_start_is_said(make_box: Callable[[], SmallBox]) -> None:
    broken = make_box()
    assert broken.up("broken") == ""
    assert broken.supervisor
    assert broken.supervisor.wait(10) == 1
    assert broken.alive() == []


def test_a_database_of_another_version_is_refused(make_box: Callable[[], SmallBox]) -> None:
    old = make_box()
    old.home.create()
    old.home.postgres.mkdir(mode=0o700)
    (old.home.postgres / "PG_VERSION").write_text("17\n")
    refused = old.oiab("up")
    assert refused.returncode == 1
    assert "PostgreSQL 17" in refused.stderr


def test_a_database_of_yours_replaces_the_embedded_one(
    make_box: Callable[[], SmallBox], database: Callable[[], str]
) -> None:
    box = make_box()
    box.more["OIAB_DATABASE_URL"] = database()
    assert box.up() == f"ready http://127.0.0.1:{box.port}"
    assert sorted(process["name"] for process in json.loads(box.oiab("status", "--json").stdout)["processes"]) == [
        "api",
        "envoy",
    ]
    assert not box.home.postgres.exists()
    with psycopg.connect(box.more["OIAB_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT count(*) FROM pg_extension WHERE extname = 'vector'").fetchone() == (1,)


def test_a_database_out_of_reach_is_said(make_box: Callable[[], SmallBox]) -> None:
    box = make_box()
    box.more["OIAB_DATABASE_URL"] = "postgresql://somebody:secret@127.0.0.1:1/nothing"
    refused = box.oiab("up")
    assert refused.returncode == 1
    assert "OIAB_DATABASE_URL" in refused.stderr
    assert "secret" not in refused.stderr
    box.more["OIAB_PORT"] = "many"
    assert "OIAB_PORT" in box.oiab("up").stderr


def test_a_lost_authority_ends_the_start_with_a_sentence(make_box: Callable[[], SmallBox]) -> None:
    made = make_box()
    made.home.create()
    made.home.installation_file.write_text("oiab0test0test\n")
    done = made.oiab("up")
    assert done.returncode == 1
    assert "oiab certificates renew-authority" in done.stderr
    assert not made.alive()


def test_an_open_door_ends_the_start_with_a_sentence(make_box: Callable[[], SmallBox]) -> None:
    made = make_box()
    made.more = {"OIAB_BIND": "0.0.0.0"}
    done = made.oiab("up")
    assert done.returncode == 1
    assert "OIAB_TLS_CERTIFICATE" in done.stderr
    assert not made.alive()
