"""A whole box for tests: the real mesh with a home of its own, and the scripted model behind a provider of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parents[2]
OIAB = (sys.executable, "-m", "gateways.chat")
START_SECONDS = 90.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Box:
    """A running installation, and what a client needs to call it."""

    home: Path
    port: int
    env: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        """What opens it."""
        return (self.home / "secrets" / "api_key").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        """What a REST client sends along."""
        return {"authorization": f"Bearer {self.key}"}

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a gRPC client sends along."""
        return tuple(self.headers.items())

    def oiab(self, *words: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return subprocess.run(
            (*OIAB, *words), env=self.env, capture_output=True, text=True, check=check, timeout=timeout, cwd=ROOT
        )

    def start(self) -> None:
        """Start it in the background, and wait until it is ready."""
        done = self.oiab("up", "--detach", check=False, timeout=START_SECONDS)
        if done.returncode:
            raise AssertionError(f"the box did not start:\n{done.stdout}\n{done.stderr}\n{self.logs()}")

    def stop(self) -> None:
        """Stop it."""
        self.oiab("down")

    def state(self) -> dict[str, Any]:
        """What the supervisor says of its processes."""
        found: dict[str, Any] = json.loads((self.home / "state.json").read_text())
        return found

    def pid(self, name: str) -> int:
        """The process of that name."""
        return next(int(each["pid"]) for each in self.state()["processes"] if each["name"] == name and each["pid"])

    def kill(self, name: str) -> None:
        """Kill -9 a process of the mesh, and wait until the supervisor has started another."""
        old = self.pid(name)
        os.kill(old, signal.SIGKILL)

        def renewed() -> bool:
            with contextlib.suppress(StopIteration, OSError, ValueError):
                return self.pid(name) != old
            return False

        until(renewed, 30)

    def kill_sandbox(self) -> None:
        """Kill -9 the agent inside its sandbox."""
        agents = [
            process
            for process in psutil.Process(self.pid("sandbox")).children(recursive=True)
            if any("opencode" in word or "/opt/" in word for word in process.cmdline()[:1])
        ]
        assert agents, "no agent runs"
        for process in agents:
            process.kill()

    def logs(self, name: str = "*") -> str:
        """The ends of the logs."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted((self.home / "logs").glob(f"{name}.log"))
        )

    def http(self) -> httpx.Client:
        """A REST client."""
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=30, trust_env=False)

    def session(self) -> str:
        """A new session."""
        with self.http() as http:
            return str(http.post("/v1/sessions", json={}).raise_for_status().json()["sessionId"])

    def prompt(self, session_id: str, text: str) -> str:
        """Say something; the id of the turn."""
        with self.http() as http:
            answer = http.post(f"/v1/sessions/{session_id}/prompt", json={"text": text}).raise_for_status()
            return str(answer.json()["turnId"])

    def events(self, turn_id: str, *, after: int = 0, most: int = 10**9) -> list[dict[str, Any]]:
        """Read a turn's SSE stream to its end, or until there are enough events."""
        return list(self.stream(turn_id, after=after, most=most))

    def stream(self, turn_id: str, *, after: int = 0, most: int = 10**9) -> Iterator[dict[str, Any]]:
        """The SSE stream of a turn, event by event; checks that each `id:` is the event's number."""
        headers = {"last-event-id": str(after)} if after else {}
        with self.http() as http, http.stream("GET", f"/v1/turns/{turn_id}/events", headers=headers) as answer:
            answer.raise_for_status()
            number = ""
            for line in answer.iter_lines():
                if line.startswith("id:"):
                    number = line.removeprefix("id:").strip()
                elif line.startswith("data:"):
                    event = json.loads(line.removeprefix("data:"))
                    assert event["sequence"] == number
                    if "checkpoint" in event:
                        continue
                    yield event
                    most -= 1
                    if not most:
                        return

    def turn(self, text: str, session_id: str = "") -> list[dict[str, Any]]:
        """Say something, and read what comes of it."""
        return self.events(self.prompt(session_id or self.session(), text))


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"it did not happen within {seconds} s")
        time.sleep(0.05)


def sequences(events: list[dict[str, Any]]) -> list[int]:
    """The numbers of events."""
    return [int(event["sequence"]) for event in events]


def said(events: list[dict[str, Any]]) -> str:
    """All the text of a turn that counts."""
    void = {part for event in events if "partsVoided" in event for part in event["partsVoided"]["partIds"]}
    deltas = [event["textDelta"] for event in events if "textDelta" in event]
    return "".join(delta["text"] for delta in deltas if delta["partId"] not in void)


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """What happened, without repeats of deltas."""
    names = [next(key for key in event if key not in {"sequence", "turnId", "createTime"}) for event in events]
    return [name for place, name in enumerate(names) if not place or names[place - 1] != name]


@contextmanager
def box(**settings: str) -> Iterator[Box]:
    """A running box with a home of its own, gone with the block."""
    with tempfile.TemporaryDirectory(prefix="oiab-", ignore_cleanup_errors=True) as folder:
        port = free_port()
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OIAB_", "ORGINABOX_"))}
        made = Box(Path(folder), port, env | {"OIAB_HOME": folder, "OIAB_PORT": str(port), **settings})
        try:
            made.start()
            yield made
        finally:
            made.stop()
            left = [
                process.info
                for process in psutil.process_iter(["pid", "cmdline"])
                if any(folder in word for word in process.info["cmdline"] or ())
            ]
            assert not left, f"processes were left behind: {left}"
