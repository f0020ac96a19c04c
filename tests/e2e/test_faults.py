"""kill -9 of anything during a turn: no event is lost or doubled, and the session goes on."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import use_scripted_model
from tests.e2e.mesh import Box, box, kinds, said, sequences, until
from tests.model_server.script import scenario

WORDS = 120
SLOW = scenario("slow", deltas=WORDS, interval=0.05)
TEXT = "".join(f"word{number} " for number in range(WORDS))


@pytest.fixture(scope="module")
def mesh(model_server: str) -> Iterator[Box]:
    """A box of its own, since it is not treated kindly."""
    with box(OIAB_DEMO_MODEL="false") as made:
        use_scripted_model(made, model_server)
        made.turn("say warm")
        yield made


def follow(mesh: Box, turn_id: str, events: list[dict[str, Any]]) -> None:
    """Follow a turn as a patient client does: after each cut, go on after the last number seen."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        try:
            for event in mesh.stream(turn_id, after=int(events[-1]["sequence"]) if events else 0):
                events.append(event)
                if {"completed", "failed", "aborted"} & set(event):
                    return
        except (httpx.HTTPError, json.JSONDecodeError):
            time.sleep(0.1)
    raise AssertionError(f"no end after {len(events)} events:\n{mesh.logs()}")


def answers(mesh: Box, text: str, session_id: str = "") -> None:
    """The agent answers what it is told to say."""
    events = mesh.turn(f"say {text}", session_id)
    assert said(events) == text, f"{events}\n{mesh.logs()}"


@pytest.mark.parametrize("victim", ["worker", "api", "queue", "runtime", "audit", "envoy", "postgres"])
def test_a_turn_outlives(mesh: Box, victim: str) -> None:
    session_id = mesh.session()
    turn_id = mesh.prompt(session_id, SLOW)
    events: list[dict[str, Any]] = []
    reader = threading.Thread(target=follow, args=(mesh, turn_id, events))
    reader.start()
    until(lambda: len(events) > 20, 30)
    mesh.kill(victim)
    reader.join(100)
    assert not reader.is_alive()
    assert sequences(events) == list(range(1, len(events) + 1))
    assert kinds(events)[-1] == "completed", events[-1]
    assert said(events) == TEXT
    assert mesh.events(turn_id) == events
    answers(mesh, "And on.", session_id)


def test_a_killed_sandbox_is_said_and_the_history_stays(mesh: Box, model_server: str) -> None:
    session_id = mesh.session()
    mesh.turn("say The flower is a peony.", session_id)
    turn_id = mesh.prompt(session_id, SLOW)
    events: list[dict[str, Any]] = []
    for event in mesh.stream(turn_id):
        events.append(event)
        if len(events) == 20:
            mesh.kill_sandbox()
    assert events[-1]["failed"]["reason"] == "ERROR_REASON_SANDBOX_LOST"
    assert sequences(events) == list(range(1, len(events) + 1))
    answers(mesh, "Back.", session_id)
    requests = httpx.get(model_server.removesuffix("/v1") + "/_requests", trust_env=False).json()
    assert "peony" in json.dumps(requests[-1]["body"]["messages"])


def test_a_killed_sandbox_service_ends_the_turn_and_comes_back(mesh: Box) -> None:
    session_id = mesh.session()
    turn_id = mesh.prompt(session_id, SLOW)
    events: list[dict[str, Any]] = []
    reader = threading.Thread(target=follow, args=(mesh, turn_id, events))
    reader.start()
    until(lambda: len(events) > 20, 30)
    mesh.kill("sandbox")
    reader.join(100)
    assert sequences(events) == list(range(1, len(events) + 1))
    assert events[-1]["failed"]["reason"] in {"ERROR_REASON_RUN_LOST", "ERROR_REASON_SANDBOX_LOST"}
    answers(mesh, "Back.", session_id)


def test_restarting_everything_loses_nothing(mesh: Box) -> None:
    session_id = mesh.session()
    before = mesh.turn("say Remember the tulip.", session_id)
    mesh.stop()
    mesh.start()
    assert mesh.events(before[0]["turnId"]) == before
    with mesh.http() as http:
        messages = http.get(f"/v1/sessions/{session_id}/messages").json()["messages"]
        assert [message["role"] for message in messages] == ["ROLE_USER", "ROLE_ASSISTANT"]
        assert any(each["providerId"] == "scripted" for each in http.get("/v1/providers").json()["providers"])
    answers(mesh, "Still.", session_id)


def test_a_prompt_taken_before_everything_stops_is_answered_after_it(mesh: Box) -> None:
    turn_id = mesh.prompt(mesh.session(), "say Better late.")
    mesh.stop()
    mesh.start()
    events: list[dict[str, Any]] = []
    follow(mesh, turn_id, events)
    assert kinds(events)[-1] in {"completed", "failed"}
    if kinds(events)[-1] == "completed":
        assert said(events) == "Better late."


def test_nothing_is_left_when_the_supervisor_is_killed(mesh: Box) -> None:
    import os
    import signal

    os.kill(int(mesh.state()["pid"]), signal.SIGKILL)
    mesh.stop()
    mesh.start()
    answers(mesh, "Up again.")
