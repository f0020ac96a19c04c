"""The model door: a sandbox's call leaves with the real key, to the provider that Runtime names, or not at all."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from aiohttp import web
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from services.box import envoy
from services.box.contract import DESCRIPTOR_SET
from tests.e2e.box.conftest import edge_in, running_envoy
from tests.identities import identity

POOL = descriptor_pool.DescriptorPool()
for _file in FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes()).file:
    POOL.Add(_file)


def message(name: str) -> Any:
    """A message class of Envoy's authorization API."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"envoy.service.auth.v3.{name}"))


@dataclass
class StandInRuntime:
    """Knows one token, of one sandbox, for one provider."""

    asked: list[dict[str, Any]] = field(default_factory=list)

    async def check(self, request: Any, _: Any) -> Any:
        """Answer for a call."""
        asked = json_format.MessageToDict(request)["attributes"]["request"]["http"]
        self.asked.append(asked)
        if asked["headers"].get("authorization") != "Bearer throw-away":
            body = json.dumps({"error": {"message": "not your token"}})
            denied = {"status": {"code": 401}, "body": body}
            return json_format.ParseDict({"status": {"code": 16}, "deniedResponse": denied}, message("CheckResponse")())
        headers = {
            ":path": asked["path"].removeprefix("/acme"),
            "authorization": "Bearer the-real-key",
            "x-oiab-cluster": "provider_acme",
        }
        options = [{"header": {"key": key, "value": value}} for key, value in headers.items()]
        return json_format.ParseDict({"status": {}, "okResponse": {"headers": options}}, message("CheckResponse")())

    async def start(self, address: str) -> grpc.aio.Server:
        """Listen."""
        server = grpc.aio.server()
        method: Any = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=message("CheckRequest").FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        handler = grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": method})
        server.add_generic_rpc_handlers((handler,))
        server.add_secure_port(address, identity("runtime").server_credentials())
        await server.start()
        return server


@dataclass
class StandInProvider:
    """Tells what reached it, in a stream with pauses."""

    seen: dict[str, str] = field(default_factory=dict)
    path: str = ""
    port: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Say three words."""
        self.seen = {name.lower(): value for name, value in request.headers.items()}
        self.path = request.path_qs
        await request.read()
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "set-cookie": "a=b"})
        await response.prepare(request)
        for number in range(3):
            await response.write(f"data: {number}\n\n".encode())
            await asyncio.sleep(0.2)
        return response


@dataclass
class Door:
    """A running model door."""

    http: httpx.AsyncClient
    runtime: StandInRuntime
    runtime_server: grpc.aio.Server
    provider: StandInProvider
    edge: envoy.Edge


@asynccontextmanager
async def provider_server() -> AsyncIterator[StandInProvider]:
    provider = StandInProvider()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", provider.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    provider.port = runner.addresses[0][1]
    yield provider
    await runner.cleanup()


def write_clusters(edge: envoy.Edge, provider: StandInProvider) -> None:
    """What Runtime does at apply: the whole file, in one step."""
    cluster = {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": "provider_acme",
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "load_assignment": envoy.endpoints("provider_acme", f"localhost:{provider.port}"),
    }
    draft = edge.clusters_file.with_suffix(".new")
    draft.write_text(json.dumps({"resources": [cluster]}))
    draft.replace(edge.clusters_file)


@pytest.fixture
async def door(folder: Path) -> AsyncIterator[Door]:
    edge, runtime = edge_in(folder), StandInRuntime()
    server = await runtime.start(edge.runtime_address)
    async with (
        provider_server() as provider,
        running_envoy(folder, edge),
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(edge.model)), timeout=20) as client,
    ):
        write_clusters(edge, provider)
        yield Door(client, runtime, server, provider, edge)
    await server.stop(0)


URL = "http://127.0.0.1:4200/acme/v1/chat/completions?x=1"
GOOD = {"authorization": "Bearer throw-away"}


async def call(door: Door, headers: dict[str, str] = GOOD, **more: Any) -> httpx.Response:
    """Call until Envoy knows the provider's cluster."""
    for _ in range(50):
        answer = await door.http.post(URL, headers=headers, **({"json": {"stream": True}} | more))
        if answer.status_code != 503:
            break
        await asyncio.sleep(0.05)
    return answer


async def test_a_call_leaves_with_the_real_key(door: Door) -> None:
    answer = await call(door, GOOD | {"x-oiab-cluster": "api"})
    assert answer.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert door.provider.path == "/v1/chat/completions?x=1"
    assert door.provider.seen["authorization"] == "Bearer the-real-key"
    assert door.provider.seen["host"] == "localhost"
    told = {name for name in door.provider.seen if name.startswith(("x-", "forwarded"))}
    assert not told, "the provider learns nothing of the box"
    assert "set-cookie" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("x-envoy")]
    assert "x-oiab-cluster" not in door.runtime.asked[-1]["headers"]


async def test_words_come_as_they_are_said(door: Door) -> None:
    await call(door)
    began = time.monotonic()
    async with door.http.stream("POST", URL, headers=GOOD, json={}) as answer:
        arrivals = [time.monotonic() - began async for _ in answer.aiter_bytes()]
    assert len(arrivals) == 3
    assert arrivals[2] - arrivals[0] > 0.3


async def test_a_large_prompt_goes_through(door: Door) -> None:
    assert (await call(door, content=b"x" * 5_000_000)).status_code == 200


async def test_a_wrong_token_gets_runtimes_words(door: Door) -> None:
    answer = await call(door, {"authorization": "Bearer stolen"})
    assert answer.status_code == 401
    assert answer.json() == {"error": {"message": "not your token"}}
    assert not door.provider.path


async def test_nothing_leaves_without_runtimes_word(door: Door) -> None:
    await call(door)
    door.provider.path = ""
    await door.runtime_server.stop(0)
    answer = await door.http.post(URL, headers=GOOD, json={})
    assert answer.status_code == 503
    assert "Org in a Box" in answer.json()["error"]["message"]
    assert not door.provider.path
