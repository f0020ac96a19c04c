"""Whole turns with tools and permissions, as every kind of client sees them."""

import base64
import json
import subprocess
import threading
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf import json_format
from orginabox.api.v1 import turn_service_pb2, turn_service_pb2_grpc

from tests.e2e.conftest import PROVIDER_KEY
from tests.e2e.mesh import OIAB, ROOT, Box, kinds, said, sequences, until
from tests.model_server.script import scenario

ASKING = scenario("bash", command="date -u +%Y > year.txt && cat year.txt", before="Let me see. ", after="That is it.")


def follow_and_answer(mesh: Box, turn_id: str, reply: str) -> list[dict[str, Any]]:
    """Read a turn, and answer every permission that it asks."""
    events = []
    for event in mesh.stream(turn_id):
        events.append(event)
        if "permissionAsked" in event:
            asked = event["permissionAsked"]["permissionId"]
            with mesh.http() as http:
                http.post(f"/v1/turns/{turn_id}/permissions/{asked}:reply", json={"reply": reply}).raise_for_status()
    return events


def test_text_bash_a_permission_and_an_end_are_the_same_for_every_client(mesh: Box) -> None:
    turn_id = mesh.prompt(mesh.session(), ASKING)
    live = follow_and_answer(mesh, turn_id, "PERMISSION_REPLY_ONCE")
    happened = [kind for kind in kinds(live) if kind not in {"usage", "fileEdited", "toolOutput"}]
    assert happened == [
        "started",
        "textDelta",
        "toolStarted",
        "permissionAsked",
        "permissionReplied",
        "toolFinished",
        "textDelta",
        "completed",
    ]
    finished = next(event["toolFinished"] for event in live if "toolFinished" in event)
    assert finished["outcome"] == "TOOL_OUTCOME_COMPLETED"
    assert finished["output"].strip().isdigit()
    assert said(live) == "Let me see. That is it."
    assert sequences(live) == list(range(1, len(live) + 1))

    # The same numbers replay over SSE and over gRPC, field by field.
    assert mesh.events(turn_id) == live
    with grpc.insecure_channel(f"127.0.0.1:{mesh.port}") as channel:
        stub: Any = turn_service_pb2_grpc.TurnServiceStub(channel)  # type: ignore[arg-type]
        request = turn_service_pb2.StreamTurnEventsRequest(turn_id=turn_id)
        over_grpc = [
            json_format.MessageToDict(event, always_print_fields_with_no_presence=True)
            for event in stub.StreamTurnEvents(request, metadata=mesh.metadata)
        ]
    assert over_grpc == live


def test_the_terminal_shows_the_same_turn(mesh: Box) -> None:
    done = mesh.oiab("ask", "--yes", "--json", ASKING)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    names = [name for event in events for name in event if name not in {"sequence", "turnId", "createTime"}]
    assert names[0] == "started"
    assert {"permissionAsked", "permissionReplied", "toolFinished"} <= set(names)
    assert names[-1] == "completed"


def test_a_refused_permission_stops_the_tool(mesh: Box) -> None:
    turn_id = mesh.prompt(mesh.session(), ASKING)
    events = follow_and_answer(mesh, turn_id, "PERMISSION_REPLY_REJECT")
    replied = next(event["permissionReplied"] for event in events if "permissionReplied" in event)
    assert replied["reply"] == "PERMISSION_REPLY_REJECT"
    finished = [event["toolFinished"] for event in events if "toolFinished" in event]
    assert all(each["outcome"] == "TOOL_OUTCOME_ERROR" for each in finished)
    with mesh.http() as http:
        records = http.get("/v1/admin/audit-log", params={"action": "tool.permission_deny"}).json()["records"]
    assert any(record["target"] == f"turn:{turn_id}" for record in records)


def test_a_cut_stream_goes_on_and_replays(mesh: Box) -> None:
    turn_id = mesh.prompt(mesh.session(), scenario("slow", deltas=60, interval=0.03))
    first = mesh.events(turn_id, most=20)
    rest = mesh.events(turn_id, after=int(first[-1]["sequence"]))
    assert sequences(first + rest) == list(range(1, len(first + rest) + 1))
    assert said(first + rest) == "".join(f"word{number} " for number in range(60))
    assert mesh.events(turn_id) == first + rest


def test_prompts_of_one_session_run_in_order_one_at_a_time(mesh: Box) -> None:
    session_id = mesh.session()
    turns = [mesh.prompt(session_id, scenario("slow", deltas=5, interval=0.05)) for _ in range(3)]
    spans = []
    for turn_id in turns:
        mesh.events(turn_id)
        with mesh.http() as http:
            turn = http.get(f"/v1/turns/{turn_id}").json()["turn"]
        spans.append((turn["startTime"], turn["endTime"]))
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_the_agent_remembers_the_session(mesh: Box, model_server: str) -> None:
    session_id = mesh.session()
    mesh.turn("say The word is heliotrope.", session_id)
    mesh.turn("say Second.", session_id)
    requests = httpx.get(model_server.removesuffix("/v1") + "/_requests", trust_env=False).json()
    last = requests[-1]["body"]["messages"]
    assert any("heliotrope" in json.dumps(message) for message in last)


def test_an_aborted_turn_stops_and_the_next_one_works(mesh: Box) -> None:
    session_id = mesh.session()
    turn_id = mesh.prompt(session_id, scenario("slow", deltas=500, interval=0.05))
    stream = mesh.stream(turn_id)
    while "textDelta" not in next(stream):
        pass
    with mesh.http() as http:
        http.post(f"/v1/turns/{turn_id}:abort", json={}).raise_for_status()
    assert kinds(list(stream))[-1] == "aborted"
    assert said(mesh.turn("say Still here.", session_id)) == "Still here."


def unseen(command: str) -> str:
    """The same command, such that the agent's own rules cannot read it: it is the sandbox that has to hold."""
    return f"echo {base64.b64encode(command.encode()).decode()} | base64 -d | bash"


def test_no_sandbox_ever_sees_the_key_but_the_provider_does(mesh: Box, model_server: str) -> None:
    events = mesh.turn("say hello")
    assert kinds(events)[-1] == "completed"
    requests = httpx.get(model_server.removesuffix("/v1") + "/_requests", trust_env=False).json()
    assert requests[-1]["headers"]["authorization"] == f"Bearer {PROVIDER_KEY}"
    look = (
        "env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; cat /bundle/* /home/agent/.local/share/opencode/*.json"
    )
    turn_id = mesh.prompt(mesh.session(), scenario("bash", command=unseen(look)))
    events = follow_and_answer(mesh, turn_id, "PERMISSION_REPLY_ONCE")
    seen = "".join(event["toolFinished"]["output"] for event in events if "toolFinished" in event)
    assert "OPENCODE" in seen
    assert PROVIDER_KEY not in seen
    assert mesh.key not in seen


def test_from_inside_a_sandbox_the_host_is_out_of_reach(mesh: Box) -> None:
    tries = "; ".join(
        (
            f"ls {mesh.home} {ROOT} /root 2>&1",
            f"curl -s -m 3 {mesh.url}/v1/healthz && echo REACHED-THE-EDGE",
            "curl -s -m 3 https://example.com && echo REACHED-THE-INTERNET",
            f"kill -0 {mesh.pid('api')} 2>/dev/null && echo REACHED-A-PROCESS",
            "ls /run/bridge /run 2>&1",
            "touch /usr/x /bundle/x 2>&1",
            "echo looked",
        )
    )
    turn_id = mesh.prompt(mesh.session(), scenario("bash", command=unseen(tries)))
    events = follow_and_answer(mesh, turn_id, "PERMISSION_REPLY_ONCE")
    seen = "".join(event["toolFinished"]["output"] for event in events if "toolFinished" in event)
    assert "looked" in seen
    assert "REACHED" not in seen
    assert "secrets" not in seen
    assert "postgres" not in seen


def test_one_trace_leads_from_the_client_to_the_sandbox(mesh: Box) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with mesh.http() as http:
        http.headers["traceparent"] = f"00-{trace}-00f067aa0ba902b7-01"
        session_id = http.post("/v1/sessions", json={}).json()["sessionId"]
        turn_id = http.post(f"/v1/sessions/{session_id}/prompt", json={"text": "say traced"}).json()["turnId"]
    mesh.events(turn_id)
    for service in ("api", "queue", "sandbox"):
        log = mesh.home / "logs" / f"{service}.log"
        until(partial(_holds, log, trace))


def _holds(log: Path, text: str) -> bool:
    return text in log.read_text()


def test_a_browser_speaks_grpc_web_to_the_same_port(mesh: Box) -> None:
    request = b"\x00\x00\x00\x00\x00"  # one empty message, not compressed
    with mesh.http() as http:
        answer = http.post(
            "/orginabox.api.v1.HealthService/GetHealth",
            content=request,
            headers={
                "content-type": "application/grpc-web+proto",
                "x-grpc-web": "1",
                "origin": "http://localhost:3000",
            },
        )
    assert answer.status_code == 200
    assert answer.content[:1] == b"\x00"
    assert b"grpc-status:0" in answer.content
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_many_readers_of_one_turn_see_the_same(mesh: Box) -> None:
    turn_id = mesh.prompt(mesh.session(), scenario("slow", deltas=40, interval=0.03))
    seen: list[list[dict[str, Any]]] = []
    threads = [threading.Thread(target=lambda: seen.append(mesh.events(turn_id))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 10
    assert all(events == seen[0] for events in seen)


def test_ask_prints_as_it_comes(mesh: Box) -> None:
    prompt = scenario("say", text="one\ntwo\nthree\n", deltas=3, interval=0.5)
    with subprocess.Popen((*OIAB, "ask", prompt), env=mesh.env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "one\n"
        assert process.poll() is None
        assert process.stdout.read() == "two\nthree\n"
    assert process.returncode == 0
