"""What a newcomer sees: a fresh box without a key talks to every kind of client, with tokens of the embedded model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from orginabox_sdk.orginabox.api.v1 import CreateSessionRequest

from gateways.sdk import Client
from tests.e2e.mesh import Box, kinds, said, sequences

PROMPT = "Say hello"
BUF = Path(sys.executable).with_name("buf")


def test_the_first_question_is_answered(fresh_box: Box) -> None:
    done = fresh_box.oiab("ask", PROMPT)
    assert len(done.stdout.split()) >= 1
    assert "demo" in done.stderr.lower()


def test_curl_streams_the_same_turn(fresh_box: Box) -> None:
    turn_id = fresh_box.prompt(fresh_box.session(), PROMPT)
    done = subprocess.run(
        ("curl", "-sN", "-H", f"authorization: Bearer {fresh_box.key}", f"{fresh_box.url}/v1/turns/{turn_id}/events"),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("data:")]
    events = [json.loads(line.removeprefix("data:")) for line in lines]
    assert "".join(event.get("textDelta", {}).get("text", "") for event in events).strip()
    assert "completed" in events[-1]
    ids = [int(line.removeprefix("id:")) for line in done.stdout.splitlines() if line.startswith("id:")]
    assert len(ids) == len(events)


def test_a_generic_grpc_client_finds_its_way_by_reflection(fresh_box: Box) -> None:
    def call(method: str, data: dict[str, str]) -> list[dict[str, object]]:
        done = subprocess.run(
            (
                *(str(BUF), "curl", "--http2-prior-knowledge", "--protocol", "grpc"),
                *("-H", f"authorization: Bearer {fresh_box.key}", "--data", json.dumps(data)),
                f"{fresh_box.url}/orginabox.api.v1.{method}",
            ),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        decoder, text, found = json.JSONDecoder(), done.stdout.strip(), []
        while text:
            value, end = decoder.raw_decode(text)
            found.append(value)
            text = text[end:].strip()
        return found

    (session,) = call("SessionService/CreateSession", {"title": "by reflection"})
    (prompted,) = call("SessionService/Prompt", {"sessionId": str(session["sessionId"]), "text": PROMPT})
    events = call("TurnService/StreamTurnEvents", {"turnId": str(prompted["turnId"])})
    assert any("textDelta" in event for event in events)
    assert "completed" in events[-1]


async def test_the_python_sdk_asks(fresh_box: Box) -> None:
    async with Client(fresh_box.url, api_key=fresh_box.key) as client:
        session = await client.sessions.create_session(CreateSessionRequest(title="by the SDK"))
        events = [event async for event in client.ask(session.session_id, PROMPT)]
    assert any(event.text_delta is not None for event in events)
    assert events[-1].completed is not None


def test_the_status_says_that_the_demo_model_answers(fresh_box: Box) -> None:
    with fresh_box.http() as http:
        status = http.get("/v1/runtime").raise_for_status().json()["status"]
    assert status["demo"]
    assert status["inSync"]
    assert "demo" in fresh_box.oiab("runtime", "status").stdout.lower()


def test_what_was_asked_is_in_the_history_and_on_record(fresh_box: Box) -> None:
    session_id = fresh_box.session()
    events = fresh_box.turn(PROMPT, session_id)
    assert sequences(events) == list(range(1, len(events) + 1))
    assert kinds(events)[0] == "started"
    with fresh_box.http() as http:
        messages = http.get(f"/v1/sessions/{session_id}/messages").raise_for_status().json()["messages"]
        records = http.get("/v1/admin/audit-log", params={"action": "agent.*"}).raise_for_status().json()["records"]
    assert [message["role"] for message in messages] == ["ROLE_USER", "ROLE_ASSISTANT"]
    assert messages[1]["parts"][0]["text"] == said(events)
    mine = [record["action"] for record in records if record["sessionId"] == session_id]
    assert mine == ["agent.complete", "agent.prompt", "agent.session_create"]


@pytest.mark.parametrize("words", [("status",), ("doctor",), ("logs", "api", "-n", "5"), ("sessions", "list")])
def test_the_operators_commands_answer(fresh_box: Box, words: tuple[str, ...]) -> None:
    assert fresh_box.oiab(*words).stdout.strip()
