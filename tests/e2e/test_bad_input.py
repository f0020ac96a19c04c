"""Bad input of every kind gets its documented error: code, sentence, one reason, and nothing of our insides."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from services.kit.pages import page_token
from tests.e2e.conftest import use_scripted_model
from tests.e2e.mesh import Box, until
from tests.model_server.script import scenario

NOBODY = "00000000-0000-7000-8000-00000000dead"
INSIDES = ("Traceback", "psycopg", "/services/", "upstream", "unix:", "postgres", "grpc_status", "Exception")

CASES: list[tuple[str, str, str, Any, int, str]] = [
    ("an unknown session", "GET", f"/v1/sessions/{NOBODY}", None, 404, "SESSION_NOT_FOUND"),
    ("an unknown turn", "GET", f"/v1/turns/{NOBODY}", None, 404, "TURN_NOT_FOUND"),
    ("events of an unknown turn", "GET", f"/v1/turns/{NOBODY}/events", None, 404, "TURN_NOT_FOUND"),
    ("an id that is none", "GET", "/v1/sessions/7", None, 400, "INVALID_ARGUMENT"),
    ("an unknown path", "GET", "/v1/nothing", None, 404, "PATH_NOT_FOUND"),
    ("a wrong verb", "PUT", "/v1/sessions", {}, 404, "PATH_NOT_FOUND"),
    ("an internal method", "POST", "/orginabox.turn.v1.TurnLogService/OpenTurn", {}, 404, "PATH_NOT_FOUND"),
    ("broken JSON", "POST", "/v1/sessions", b"{", 400, "INVALID_ARGUMENT"),
    ("a wrong type", "POST", "/v1/sessions", {"title": {"a": 1}}, 400, "INVALID_ARGUMENT"),
    ("an unknown query parameter", "GET", "/v1/sessions?colour=red", None, 400, "INVALID_ARGUMENT"),
    ("a negative page", "GET", "/v1/sessions?page_size=-1", None, 400, "INVALID_ARGUMENT"),
    ("a page token that is none", "GET", "/v1/sessions?page_token=x", None, 400, "PAGE_TOKEN_INVALID"),
    ("an empty prompt", "POST", f"/v1/sessions/{NOBODY}/prompt", {"text": ""}, 400, "INVALID_ARGUMENT"),
    ("a prompt with a NUL", "POST", f"/v1/sessions/{NOBODY}/prompt", {"text": "a\0b"}, 400, "INVALID_ARGUMENT"),
    ("a title with a NUL", "POST", "/v1/sessions", {"title": "a\0b"}, 400, "INVALID_ARGUMENT"),
    (
        "a made-up page token",
        "GET",
        f"/v1/sessions?page_token={page_token({'time': 'x', 'id': 7}, list='sessions')}",
        None,
        400,
        "PAGE_TOKEN_INVALID",
    ),
    ("a prompt too long", "POST", f"/v1/sessions/{NOBODY}/prompt", {"text": "x" * 100_001}, 400, "INVALID_ARGUMENT"),
    ("a body too large", "POST", f"/v1/sessions/{NOBODY}/prompt", {"text": "x" * 5_000_000}, 413, "REQUEST_TOO_LARGE"),
    ("a prompt to nobody", "POST", f"/v1/sessions/{NOBODY}/prompt", {"text": "hi"}, 404, "SESSION_NOT_FOUND"),
    ("a request id that is none", "POST", "/v1/sessions", {"requestId": "again"}, 400, "INVALID_ARGUMENT"),
    ("an unknown provider", "DELETE", "/v1/providers/nobody", None, 404, "PROVIDER_NOT_FOUND"),
    ("the built-in provider", "DELETE", "/v1/providers/demo", None, 400, "PROVIDER_BUILT_IN"),
    (
        "a provider inside the cloud's own network",
        "POST",
        "/v1/providers",
        {
            "provider": {
                "providerId": "bad",
                "kind": "PROVIDER_KIND_OPENAI_COMPATIBLE",
                "baseUrl": "http://169.254.169.254/v1",
                "models": ["m"],
            }
        },
        400,
        "PROVIDER_ADDRESS_REFUSED",
    ),
    ("an abort of nothing", "POST", f"/v1/turns/{NOBODY}:abort", {}, 404, "TURN_NOT_FOUND"),
]


def reason(body: dict[str, Any]) -> str:
    """The one reason of an error."""
    infos = [detail for detail in body["details"] if detail["@type"].endswith("google.rpc.ErrorInfo")]
    assert len(infos) == 1
    assert infos[0]["domain"] == "orginabox.dev"
    return str(infos[0]["reason"]).removeprefix("ERROR_REASON_")


def check(answer: httpx.Response, status: int, wanted: str) -> None:
    """The answer is an error of the contract and tells nothing of our insides."""
    assert answer.headers["content-type"].startswith("application/json"), answer.text
    body = answer.json()
    assert (answer.status_code, reason(body)) == (status, wanted), answer.text
    assert len(body["message"]) > 10
    assert not any(word in answer.text for word in INSIDES), answer.text


@pytest.mark.parametrize(("what", "verb", "path", "body", "status", "wanted"), CASES, ids=[case[0] for case in CASES])
def test_rest_refuses(mesh: Box, what: str, verb: str, path: str, body: Any, status: int, wanted: str) -> None:
    with mesh.http() as http:
        content = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        check(http.request(verb, path, **content), status, wanted)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}])
def test_rest_refuses_strangers(mesh: Box, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{mesh.url}/v1/sessions", headers=headers, trust_env=False)
    check(answer, 401, "UNAUTHENTICATED")
    assert httpx.get(f"{mesh.url}/v1/healthz", trust_env=False).json()["ok"]


def fails(mesh: Box, text: str, wanted: str, **prompt: Any) -> dict[str, Any]:
    """A turn that ends with a reason, and a sentence without upstream's words."""
    session_id = mesh.session()
    with mesh.http() as http:
        answer = http.post(f"/v1/sessions/{session_id}/prompt", json={"text": text, **prompt})
        events = mesh.events(answer.raise_for_status().json()["turnId"])
    failed: dict[str, Any] = events[-1]["failed"]
    assert failed["reason"].removeprefix("ERROR_REASON_") == wanted, failed
    assert len(failed["message"]) > 10
    return failed


def test_a_model_that_nobody_has(mesh: Box) -> None:
    fails(mesh, "hi", "MODEL_NOT_FOUND", model={"providerId": "scripted", "modelId": "nothing"})


def test_a_provider_that_refuses_the_key(mesh: Box) -> None:
    fails(mesh, scenario("fault", status=401), "PROVIDER_UNAUTHENTICATED")


def test_a_provider_that_talks_nonsense(mesh: Box) -> None:
    fails(mesh, scenario("fault", bad_json_after=2), "PROVIDER_BAD_RESPONSE")


def test_a_provider_that_recovers_is_tried_again(mesh: Box) -> None:
    events = mesh.turn(scenario("fault", status=500, times=1))
    assert any("retrying" in event for event in events)
    assert "completed" in events[-1]


@contextmanager
def provider(mesh: Box, name: str, address: str) -> Iterator[None]:
    """A provider of the box, while the block runs."""
    use_scripted_model(mesh, address, providerId=name, preferred=False)
    yield
    with mesh.http() as http:
        http.delete(f"/v1/providers/{name}").raise_for_status()
        http.post("/v1/runtime:apply", json={}).raise_for_status()


def test_a_request_id_says_one_thing(mesh: Box) -> None:
    session_id, request_id = mesh.session(), "0198f3c2-0000-7000-8000-000000000001"
    with mesh.http() as http:
        path = f"/v1/sessions/{session_id}/prompt"
        first = http.post(path, json={"text": "say one", "requestId": request_id}).json()
        again = http.post(path, json={"text": "say one", "requestId": request_id}).json()
        assert again["turnId"] == first["turnId"]
        check(http.post(path, json={"text": "say two", "requestId": request_id}), 409, "REQUEST_ID_REUSED")
    until(lambda: len(mesh.events(first["turnId"])) > 2)
