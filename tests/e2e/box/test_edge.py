"""The edge: REST, SSE, gRPC and gRPC-Web on one port, and what it says when it refuses."""

import asyncio
import json
import re
import struct
from typing import Any

import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from orginabox.api.v1 import session_service_pb2, session_service_pb2_grpc, turn_service_pb2, turn_service_pb2_grpc
from orginabox.turn.v1 import turn_log_service_pb2, turn_log_service_pb2_grpc

from tests.e2e.box.conftest import Running
from tests.e2e.box.stand_in import start_api
from tests.identities import identity


def assert_refused(answer: httpx.Response, status: int, code: int, reason: str) -> dict[str, Any]:
    """The answer is a refusal in the shape that all have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code
    assert body["message"]
    assert [info["reason"] for info in body["details"]] == [f"ERROR_REASON_{reason}"]
    assert body["details"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert body["details"][0]["domain"] == "orginabox.dev"
    return body


async def test_rest_in_and_out(running: Running) -> None:
    answer = await running.http.post("/v1/sessions", json={"title": "hello"}, headers={"authorization": "Bearer k"})
    assert answer.json()["sessionId"] == "s1"
    assert running.sessions.metadata["authorization"] == "Bearer k"
    assert answer.headers["x-request-id"]
    told = {name for name in answer.headers if name == "server" or name.startswith(("x-envoy", "grpc-"))}
    assert not told


async def test_headers_of_strangers_do_not_reach_the_mesh(running: Running) -> None:
    await running.http.post("/v1/sessions", json={}, headers={"x-request-id": "chosen", "x-envoy-internal": "true"})
    assert running.sessions.metadata["x-request-id"] != "chosen"
    assert "x-envoy-internal" not in running.sessions.metadata
    with pytest.raises(httpx.ReadTimeout):  # and not the end that the header asks for
        await running.http.get(
            "/v1/turns/endless/events", headers={"x-envoy-upstream-rq-timeout-ms": "100"}, timeout=0.5
        )


@pytest.mark.parametrize("body", ["{", '{"title": 7}', "[]", '{"model": "x"}', "\x00"])
async def test_bad_json(running: Running, body: str) -> None:
    answer = await running.http.post("/v1/sessions", content=body)
    assert_refused(answer, 400, 3, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"titel": "x"}, "titel"),
        ({"title": "x", "model": {"providerId": "a", "modelID": "b"}}, "modelID"),
        ({"model": {"provider_id": "a"}, "a-b.c": [{"x": '}"]'}]}, "a-b.c"),
        ({"title": 'a "quoted" \\ {"nope": 1} end', "nope": 1}, "nope"),
        ({"x" * 1000: 1}, "x" * 64),
    ],
)
async def test_unknown_fields(running: Running, body: dict[str, Any], field: str) -> None:
    refused = assert_refused(await running.http.post("/v1/sessions", json=body), 400, 3, "INVALID_ARGUMENT")
    assert f"no field {field} here" in refused["message"]


async def test_known_fields_by_both_their_names(running: Running) -> None:
    """And nothing that a string holds is taken for a field."""
    for body in (
        {},
        {"title": '{"nope": 1}, "nope": ["\\", \'\', {}]', "model": {"providerId": "a", "model_id": "b"}},
        {"title": "\u00e9\n\t \\", "requestId": "", "model": None},
        {"title": None, "request_id": ""},
    ):
        for text in (json.dumps(body), json.dumps(body, indent=3), json.dumps(body, ensure_ascii=False)):
            answer = await running.http.post("/v1/sessions", content=text.encode())
            assert answer.status_code == 200, (text, answer.text)
    assert (await running.http.post("/v1/sessions")).status_code == 200


async def test_deep_nonsense(running: Running) -> None:
    for text in ("[" * 100_000, '{"title":' * 50_000, '{"model":' + "{" * 90, '{"title": "' + "\\" * 9):
        assert_refused(await running.http.post("/v1/sessions", content=text), 400, 3, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("verb", "path"),
    [("GET", "/"), ("GET", "/v1/nothing"), ("PUT", "/v1/healthz"), ("DELETE", "/v1/sessions"), ("GET", '/v2/x"y\\')],
)
async def test_unknown_paths(running: Running, verb: str, path: str) -> None:
    assert_refused(await running.http.request(verb, path), 404, 5, "PATH_NOT_FOUND")


async def test_unknown_query_parameter(running: Running) -> None:
    assert_refused(await running.http.get("/v1/healthz?nothing=1"), 400, 3, "INVALID_ARGUMENT")


async def test_body_limit(running: Running) -> None:
    taken = await running.http.post("/v1/sessions", json={"title": "x" * 1_000_000})
    assert taken.status_code == 200
    refused = await running.http.post("/v1/sessions", json={"title": "x" * 1_100_000})
    assert_refused(refused, 413, 8, "REQUEST_TOO_LARGE")
    async with grpc.aio.insecure_channel(running.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as over:
            await session_service_pb2_grpc.SessionServiceStub(channel).CreateSession(
                session_service_pb2.CreateSessionRequest(title="x" * 1_100_000)
            )
    assert over.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_header_names_that_grpc_cannot_carry(running: Running) -> None:
    for name in ("+", "a!b", "a|b"):
        assert_refused(await running.http.get("/v1/healthz", headers={name: "1"}), 400, 3, "INVALID_ARGUMENT")


async def test_header_limit(running: Running) -> None:
    answer = await running.http.get("/v1/healthz", headers={"x-long": "x" * 40_000})
    assert_refused(answer, 431, 8, "REQUEST_TOO_LARGE")


async def test_refusal_of_a_service(running: Running) -> None:
    answer = await running.http.get("/v1/sessions/s9")
    assert_refused(answer, 404, 5, "SESSION_NOT_FOUND")
    assert answer.json()["message"] == "no session of yours has this id"


async def test_internal_methods_are_out_of_reach(running: Running) -> None:
    async with grpc.aio.insecure_channel(running.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await turn_log_service_pb2_grpc.TurnLogServiceStub(channel).OpenTurn(turn_log_service_pb2.OpenTurnRequest())
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    answer = await running.http.post("/orginabox.turn.v1.TurnLogService/OpenTurn", json={})
    assert_refused(answer, 404, 5, "PATH_NOT_FOUND")


async def test_rate_limit(strict: Running) -> None:
    answers = [await strict.http.get("/v1/healthz") for _ in range(8)]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert_refused(refused[0], 429, 8, "RATE_LIMITED")
    assert refused[0].headers["retry-after"] == "1"


async def test_service_away_and_back(running: Running) -> None:
    await running.api.stop(0)
    waiting = asyncio.create_task(running.http.get("/v1/healthz"))
    await asyncio.sleep(0.5)
    api = await start_api(running.edge.api_addresses[0], running.sessions, running.turns, identity("api"))
    assert (await waiting).status_code == 200, "a service that restarts is waited for"
    await api.stop(0)
    assert_refused(await running.http.get("/v1/healthz"), 503, 14, "SERVICE_UNAVAILABLE")
    async with grpc.aio.insecure_channel(running.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await session_service_pb2_grpc.SessionServiceStub(channel).CreateSession(
                session_service_pb2.CreateSessionRequest()
            )
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not (refused.value.details() or "").startswith("{")


async def test_cors(running: Running) -> None:
    async def allowed(origin: str) -> str | None:
        headers = {"origin": origin, "access-control-request-method": "POST"}
        answer = await running.http.options("/v1/sessions", headers=headers)
        return dict(answer.headers).get("access-control-allow-origin")

    assert await allowed("http://localhost:3000") == "http://localhost:3000"
    assert await allowed("http://127.0.0.1:5173") == "http://127.0.0.1:5173"
    assert await allowed("https://chat.example") == "https://chat.example"
    assert await allowed("https://evil.example") is None
    assert await allowed("http://localhost.evil.example") is None
    refused = await running.http.get("/v1/nothing", headers={"origin": "http://localhost:3000"})
    assert refused.headers["access-control-allow-origin"] == "http://localhost:3000"


async def test_events_as_sse(running: Running) -> None:
    answer = await running.http.get("/v1/turns/2000/events")
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    blocks = answer.text.strip().split("\n\n")
    assert len(blocks) == 2000
    for number, block in enumerate(blocks, 1):
        id_line, data_line = block.split("\n")
        event = json.loads(data_line.removeprefix("data: "))
        assert id_line == f"id: {number}"
        assert event["sequence"] == str(number)
        assert event["textDelta"]["text"].startswith("a line\n")


async def test_events_resume(running: Running) -> None:
    by_header = await running.http.get("/v1/turns/5/events", headers={"last-event-id": "3"})
    by_query = await running.http.get("/v1/turns/5/events?fromSequence=3")
    for answer in (by_header, by_query):
        assert re.findall(r"^id: (\d+)$", answer.text, re.MULTILINE) == ["4", "5"]


async def test_a_reader_that_leaves_is_noticed(running: Running) -> None:
    async with running.http.stream("GET", "/v1/turns/endless/events") as answer:
        assert (await anext(answer.aiter_lines())) == "id: 1"
    await asyncio.wait_for(running.turns.cancelled.wait(), 5)


async def test_grpc_on_the_same_port(running: Running) -> None:
    async with grpc.aio.insecure_channel(running.target) as channel:
        made = await session_service_pb2_grpc.SessionServiceStub(channel).CreateSession(
            session_service_pb2.CreateSessionRequest(title="x")
        )
        stream = turn_service_pb2_grpc.TurnServiceStub(channel).StreamTurnEvents(
            turn_service_pb2.StreamTurnEventsRequest(turn_id="3")
        )
        numbers = [event.sequence async for event in stream]
        stub: Any = health_pb2_grpc.HealthStub(channel)
        health = await stub.Check(health_pb2.HealthCheckRequest())
    assert made.session_id == "s1"
    assert numbers == [1, 2, 3]
    assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_grpc_web_on_the_same_port(running: Running) -> None:
    message = turn_service_pb2.StreamTurnEventsRequest(turn_id="3").SerializeToString()
    answer = await running.http.post(
        "/orginabox.api.v1.TurnService/StreamTurnEvents",
        content=b"\x00" + struct.pack(">I", len(message)) + message,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    )
    assert answer.headers["content-type"].startswith("application/grpc-web")
    flags, rest = [], answer.content
    while rest:
        flag, length = rest[0], struct.unpack(">I", rest[1:5])[0]
        flags.append(flag)
        last, rest = rest[5 : 5 + length], rest[5 + length :]
    assert flags == [0, 0, 0, 0x80]
    assert b"grpc-status:0" in last.replace(b" ", b"")


async def test_access_log_holds_no_query(running: Running) -> None:
    await running.http.get("/v1/turns/1/events?fromSequence=0")
    await asyncio.sleep(1.2)
    entry = json.loads(running.edge.access_log.read_text().splitlines()[-1])
    assert entry["path"] == "/v1/turns/1/events"
    assert entry["status"] == 200
    assert entry["cluster"] == "api"
