"""What is said while a turn runs, on the real mesh: it keeps its order, can be changed, and outlives a kill of Api."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from services.kit.ids import new_id
from tests.e2e.conftest import use_scripted_model
from tests.e2e.mesh import Box, box, kinds, said, sequences, until
from tests.e2e.test_faults import follow
from tests.model_server.script import scenario

WORDS = 160
SLOW = scenario("slow", deltas=WORDS, interval=0.05)
TEXT = "".join(f"word{number} " for number in range(WORDS))


@pytest.fixture(scope="module")
def mesh(model_server: str) -> Iterator[Box]:
    """A box of its own, since it is not treated kindly."""
    with box(OIAB_DEMO_MODEL="false") as made:
        use_scripted_model(made, model_server)
        made.turn("say warm")
        yield made


def call(mesh: Box, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """A call that is made again while Api is on its way back."""
    end = time.monotonic() + 30
    while True:
        try:
            with mesh.http() as http:
                answer = http.request(method, path, json=body)
            if answer.status_code < 500:
                return dict(answer.raise_for_status().json())
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, mesh.logs("api")
        time.sleep(0.1)


def say(mesh: Box, session_id: str, text: str, **more: object) -> dict[str, Any]:
    return call(mesh, "POST", f"/v1/sessions/{session_id}/prompt", {"text": text, **more})


def inbox(mesh: Box, session_id: str) -> list[str]:
    found = call(mesh, "GET", f"/v1/sessions/{session_id}/inbox")
    return [turn["text"] for turn in found.get("turns", [])]


def events_of(mesh: Box, turn_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    follow(mesh, turn_id, events)
    assert sequences(events) == list(range(1, len(events) + 1))
    return events


def begun(mesh: Box, text: str) -> tuple[str, str]:
    """A session with a turn that has begun to answer."""
    session_id = mesh.session()
    turn_id = say(mesh, session_id, text)["turnId"]
    mesh.events(turn_id, most=10)
    return session_id, turn_id


def test_what_waits_is_listed_reworded_removed_and_overtaken(mesh: Box, model_server: str) -> None:
    session_id, slow = begun(mesh, SLOW)
    one, two, three = (say(mesh, session_id, f"say {name}.")["turnId"] for name in ("One", "Two", "Three"))
    assert inbox(mesh, session_id) == [SLOW, "say One.", "say Two.", "say Three."]
    mesh.kill("api")
    assert inbox(mesh, session_id) == [SLOW, "say One.", "say Two.", "say Three."]
    call(mesh, "PATCH", f"/v1/turns/{two}", {"text": "say Reworded."})
    call(mesh, "POST", f"/v1/turns/{three}:abort", {})
    now = say(mesh, session_id, "say Now.", busyPolicy="BUSY_POLICY_INTERRUPT")
    mesh.kill("api")
    assert kinds(events_of(mesh, slow))[-1] == "aborted"
    answers = [events_of(mesh, turn_id) for turn_id in (now["turnId"], one, two)]
    assert [said(events) for events in answers] == ["Now.", "One.", "Reworded."], mesh.logs("worker")
    ends = [events[-1]["createTime"] for events in answers]
    assert ends == sorted(ends)
    assert kinds(events_of(mesh, three)) == ["aborted"]
    until(lambda: inbox(mesh, session_id) == [])
    asked = httpx.get(model_server.removesuffix("/v1") + "/_requests", trust_env=False).text
    assert "say Three." not in asked
    assert "say Two." not in asked


def test_what_is_said_into_a_turn_is_heard_in_it_over_a_kill_of_api(mesh: Box) -> None:
    session_id, slow = begun(mesh, SLOW)
    steered = say(mesh, session_id, "say Left.", busyPolicy="BUSY_POLICY_STEER")
    assert steered["turnId"] == slow
    mesh.kill("api")
    events = events_of(mesh, slow)
    assert [event["userSteered"]["text"] for event in events if "userSteered" in event] == ["say Left."]
    assert said(events) == f"{TEXT}Left."
    assert kinds(events)[-1] == "completed"
    assert inbox(mesh, session_id) == []


def test_what_is_said_into_a_turn_whose_sandbox_dies_is_heard_all_the_same(mesh: Box) -> None:
    session_id, slow = begun(mesh, SLOW)
    steer = {"busyPolicy": "BUSY_POLICY_STEER", "requestId": str(new_id())}
    mesh.kill("sandbox")

    def found() -> str:
        return str(say(mesh, session_id, "say Still.", **steer)["turnId"])

    assert found() == slow
    assert kinds(events_of(mesh, slow))[-1] == "failed"
    # It is a turn of its own now; the repeat of the request finds it.
    until(lambda: found() != slow, 30)
    assert said(events_of(mesh, found())) == "Still."


def test_the_queue_is_seen_paused_and_resumed(mesh: Box) -> None:
    jobs = json.loads(mesh.oiab("jobs", "list", "--json").stdout)
    assert jobs
    assert {job["kind"] for job in jobs} == {"agent-turn"}
    assert not any(job["payload"] for job in jobs)
    mesh.oiab("queue", "pause", "agent-turn")
    turn_id = mesh.prompt(mesh.session(), "say Late.")
    stats = json.loads(mesh.oiab("queue", "stats", "--json").stdout)
    assert [kind["paused"] for kind in stats if kind["kind"] == "agent-turn"] == [True]
    with mesh.http() as http:
        assert http.get(f"/v1/turns/{turn_id}").json()["turn"]["state"] == "TURN_STATE_QUEUED"
    mesh.oiab("queue", "resume", "agent-turn")
    assert said(events_of(mesh, turn_id)) == "Late."
