"""The scripted model: the same answer for the same prompt, and every fault on demand."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.model_server import Fault, ModelServer, Script, Step, ToolCall, scenario


@pytest_asyncio.fixture
async def model(tmp_path: Path) -> AsyncIterator[ModelServer]:
    """A server on a socket."""
    async with ModelServer.serve(socket=tmp_path / "m.sock", key="good") as server:
        yield server


@pytest_asyncio.fixture
async def client(model: ModelServer, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the right key."""
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "m.sock"))
    headers = {"authorization": "Bearer good"}
    async with httpx.AsyncClient(transport=transport, base_url="http://model", headers=headers) as client:
        yield client


async def ask(client: httpx.AsyncClient, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of an answer."""
    body = {"model": "m", "stream": True, "messages": list(messages)}
    answer = await client.post("/p/v1/chat/completions", json=body)
    answer.raise_for_status()
    *lines, done = [line[6:] for line in answer.text.split("\n\n") if line]
    assert done == "[DONE]"
    return [json.loads(line) for line in lines]


def user(text: str) -> dict[str, Any]:
    """A message of a user."""
    return {"role": "user", "content": text}


def words(chunks: list[dict[str, Any]]) -> list[str]:
    """The pieces of text."""
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content")]


async def test_text_and_usage(client: httpx.AsyncClient) -> None:
    chunks = await ask(client, user(scenario("say", text="one two three")))
    assert words(chunks) == ["one ", "two ", "three"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 3


async def test_the_step_follows_the_tool(client: httpx.AsyncClient, model: ModelServer) -> None:
    script = Script([Step(text="a", tools=[ToolCall("bash", {"command": "ls"})]), Step(text="b")])
    prompt = user(script.prompt())
    first = await ask(client, prompt)
    call = next(c["delta"]["tool_calls"][0] for k in first for c in k["choices"] if "tool_calls" in c["delta"])
    assert json.loads(call["function"]["arguments"]) == {"command": "ls"}
    assert first[-2]["choices"][0]["finish_reason"] == "tool_calls"
    second = await ask(client, prompt, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "x"})
    assert words(second) == ["b"]
    assert [request.authorization for request in model.requests] == ["Bearer good"] * 2


async def test_plain_words(client: httpx.AsyncClient) -> None:
    assert "".join(words(await ask(client, user("say hello there")))) == "hello there"
    assert "heard: What is up?" in "".join(words(await ask(client, user("What is up?"))))


async def test_wrong_key_and_bad_body(client: httpx.AsyncClient) -> None:
    body = {"messages": [user("hi")]}
    refused = await client.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer bad"})
    assert refused.status_code == 401
    assert (await client.post("/v1/chat/completions", content=b"{")).status_code == 400


async def test_a_fault_that_passes(client: httpx.AsyncClient) -> None:
    prompt = user(scenario("fault", status=429, times=1, retry_after=2))
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await ask(client, prompt)
    assert refused.value.response.headers["retry-after"] == "2"
    assert words(await ask(client, prompt))


async def test_a_stream_that_is_cut(client: httpx.AsyncClient) -> None:
    step = Step(text="one two three", fault=Fault(cut_after=2))
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(client, user(Script([step]).prompt()))


async def test_stamps_tell_when_a_piece_was_sent(client: httpx.AsyncClient) -> None:
    stamps = [int(word) for word in words(await ask(client, user(scenario("stamped", deltas=3, interval=0.01))))]
    assert stamps == sorted(stamps)
    assert stamps[-1] - stamps[0] >= 20_000_000
