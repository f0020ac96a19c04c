"""The model door with the real Envoy before the real Runtime: what a sandbox sends, and what a provider gets."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from orginabox.runtime.v1 import provider_pb2 as pb

from services.kit.ids import new_id
from services.runtime.dialect import DIALECTS, ProviderKind
from services.runtime.mapping import KINDS
from tests.certificates import Authority
from tests.contract.runtime.rig import Runtime, runtime
from tests.e2e.box.conftest import edge_in, folder, running_envoy

__all__ = ["folder"]

KEY = "sk-a-key-that-no-sandbox-may-see"
BEARER = f"Bearer {KEY}"
CHAT = "/chat/completions"
WORDS = ("one", "two", "three")


@dataclass(frozen=True)
class Seen:
    """A call as a provider got it."""

    path: str
    headers: dict[str, str]


@dataclass
class Provider:
    """Stands in for a provider: keeps what it got, and answers in a stream with pauses."""

    calls: list[Seen] = field(default_factory=list)
    pause: float = 0.0
    port: int = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Say three words."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.calls.append(Seen(request.path_qs, headers))
        await request.read()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for word in WORDS:
            await response.write(f"data: {word}\n\n".encode())
            await asyncio.sleep(self.pause)
        return response


class World:
    """A running door, with whatever providers a test needs behind it."""

    def __init__(self, stack: AsyncExitStack, rt: Runtime, sandbox: httpx.AsyncClient) -> None:
        self._stack = stack
        self.runtime = rt
        self.sandbox = sandbox

    async def provider(self, socket: Path | None = None, tls: Authority | None = None) -> Provider:
        """A provider that listens, on a port of this machine or a socket."""
        found = Provider()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", found.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        if socket:
            await web.UnixSite(runner, str(socket)).start()
        else:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.server_context() if tls else None).start()
            found.port = runner.addresses[0][1]
        return found

    async def add(self, kind: ProviderKind, url: str, name: str = "acme", key: str = KEY) -> None:
        """Add a provider and apply."""
        wanted = pb.Provider(provider_id=name, kind=KINDS[kind], base_url=url, models=["m"])
        await self.runtime.create(wanted, key=key)
        await self.runtime.apply()

    async def call(self, path: str, method: str = "POST", **headers: str) -> httpx.Response:
        """Call as a sandbox does, until Envoy knows the cluster: it reads the new file a moment after the apply."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for _ in range(100):
            answer = await self.sandbox.request(method, f"http://127.0.0.1:4200{path}", headers=named, json={})
            if answer.status_code != 503:
                break
            await asyncio.sleep(0.02)
        return answer


@pytest.fixture
async def world(
    database: Callable[..., str], folder: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> AsyncIterator[World]:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    edge = replace(edge_in(folder), clusters_file=folder / "envoy" / "clusters.yaml")
    (folder / "run").mkdir()
    async with AsyncExitStack() as stack:
        rt = await stack.enter_async_context(runtime(database("runtime"), folder, folder / "runtime.sock"))
        await stack.enter_async_context(running_envoy(folder, edge))
        transport = httpx.AsyncHTTPTransport(uds=str(edge.model))
        sandbox = await stack.enter_async_context(httpx.AsyncClient(transport=transport, timeout=20))
        yield World(stack, rt, sandbox)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), names=("localhost",))


@pytest.mark.parametrize(
    ("kind", "path", "sent", "arrives", "arrives_at"),
    [
        (ProviderKind.ANTHROPIC, "/messages?beta=true", "x-api-key", ("x-api-key", KEY), "/v1/messages?beta=true"),
        (ProviderKind.OPENAI, "/responses", "authorization", ("authorization", BEARER), "/v1/responses"),
        (ProviderKind.AZURE, "/responses", "api-key", ("api-key", KEY), "/openai/v1/responses"),
        (ProviderKind.OLLAMA, CHAT, "authorization", ("authorization", BEARER), "/v1/chat/completions"),
        (ProviderKind.OPENAI_COMPATIBLE, CHAT, "api-key", ("authorization", BEARER), CHAT),
    ],
)  # fmt: skip
async def test_a_call_arrives_with_the_real_key_where_the_vendor_expects_it(
    world: World, kind: ProviderKind, path: str, sent: str, arrives: tuple[str, str], arrives_at: str
) -> None:
    provider = await world.provider()
    await world.add(kind, provider.url)
    token = await world.runtime.token()
    value = f"Bearer {token}" if sent == "authorization" else token

    answer = await world.call(
        f"/acme{path}", **{sent: value, "anthropic_version": "2023-06-01", "openai_organization": "org-other"}
    )

    assert answer.text == "data: one\n\ndata: two\n\ndata: three\n\n"
    (call,) = provider.calls
    assert call.path == arrives_at
    assert call.headers[arrives[0]] == arrives[1]
    assert token not in str(call), "the token stays in the house"
    assert call.headers["host"] == f"127.0.0.1:{provider.port}"
    assert call.headers["anthropic-version"] == "2023-06-01"
    keys = {"authorization", "x-api-key", "api-key"} - {DIALECTS[kind].key_header}
    assert not keys & set(call.headers)
    assert "openai-organization" not in call.headers
    assert KEY not in answer.text + str(answer.headers)


async def test_without_a_key_no_credential_leaves(world: World) -> None:
    provider = await world.provider()
    await world.add(ProviderKind.OPENAI_COMPATIBLE, provider.url, key="")

    await world.call("/acme/models", "GET", authorization=f"Bearer {await world.runtime.token()}")

    (call,) = provider.calls
    assert call.path == "/models"
    assert not {"authorization", "x-api-key", "api-key"} & set(call.headers)


async def test_words_come_as_they_are_said(world: World) -> None:
    provider = await world.provider()
    provider.pause = 0.2
    await world.add(ProviderKind.OPENAI_COMPATIBLE, provider.url)
    headers = {"authorization": f"Bearer {await world.runtime.token()}"}
    await world.call("/acme/models", "GET", **headers)

    began = time.monotonic()
    async with world.sandbox.stream(
        "POST", "http://127.0.0.1:4200/acme/chat/completions", headers=headers, json={}
    ) as answer:
        arrivals = [time.monotonic() - began async for _ in answer.aiter_bytes()]

    assert len(arrivals) == len(WORDS)
    assert arrivals[2] - arrivals[0] > 0.3


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/acme/files", "POST", 403),
        ("/acme/chat/completions", "DELETE", 403),
        ("/acme/organization/api_keys", "GET", 403),
        ("/acme/chat/completions/../../admin", "POST", 403),
        ("/acme/chat/completions/..%2f..%2fadmin", "POST", 400),
        ("/other/chat/completions", "POST", 404),
        ("/", "GET", 404),
        ("//acme/chat/completions", "POST", 404),
    ],
)
async def test_only_calls_to_models_go_out(world: World, path: str, method: str, status: int) -> None:
    provider = await world.provider()
    await world.add(ProviderKind.OPENAI_COMPATIBLE, provider.url)

    answer = await world.call(path, method, authorization=f"Bearer {await world.runtime.token()}")

    assert answer.status_code == status
    assert answer.json()["error"]["message"].startswith("Org in a Box: ")
    assert not provider.calls


async def test_a_wrong_token_is_refused(world: World) -> None:
    provider = await world.provider()
    await world.add(ProviderKind.OPENAI_COMPATIBLE, provider.url)
    sandbox = str(new_id())
    old = await world.runtime.token(sandbox)
    assert (await world.call("/acme/models", "GET", authorization=f"Bearer {old}")).status_code == 200
    new = await world.runtime.token(sandbox)

    for headers in ({}, {"authorization": "Bearer no"}, {"x_api_key": KEY}, {"authorization": f"Bearer {old}"}):
        answer = await world.call("/acme/models", "GET", **headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"

    assert (await world.call("/acme/models", "GET", authorization=f"Bearer {new}")).status_code == 200
    assert len(provider.calls) == 2


async def test_only_an_apply_changes_what_the_door_does(world: World) -> None:
    first, second = await world.provider(), await world.provider()
    await world.add(ProviderKind.OPENAI_COMPATIBLE, first.url)
    token = f"Bearer {await world.runtime.token()}"
    await world.call("/acme/models", "GET", authorization=token)

    await world.runtime.update(pb.Provider(provider_id="acme", base_url=second.url), "base_url", key="sk-new")
    await world.call("/acme/models", "GET", authorization=token)
    assert [call.headers["authorization"] for call in first.calls] == [f"Bearer {KEY}"] * 2
    assert not second.calls

    await world.runtime.apply()
    await world.call("/acme/models", "GET", authorization=token)
    assert len(first.calls) == 2, "the new key never goes to the old address"
    assert [call.headers["authorization"] for call in second.calls] == ["Bearer sk-new"]


async def test_an_apply_does_not_cut_the_answers_that_are_on_their_way(world: World) -> None:
    first, second = await world.provider(), await world.provider()
    first.pause = 0.4
    await world.add(ProviderKind.OPENAI_COMPATIBLE, first.url)
    token = f"Bearer {await world.runtime.token()}"
    await world.call("/acme/models", "GET", authorization=token)

    running = asyncio.create_task(world.call("/acme/chat/completions", authorization=token))
    await asyncio.sleep(0.2)
    await world.runtime.update(pb.Provider(provider_id="acme", base_url=second.url), "base_url")
    await world.runtime.apply()
    await world.call("/acme/models", "GET", authorization=token)
    assert not running.done()
    assert second.calls

    assert (await running).text == "data: one\n\ndata: two\n\ndata: three\n\n"


async def test_the_demo_model_is_reached_on_its_socket(world: World, folder: Path) -> None:
    demo = await world.provider(socket=folder / "run" / "demo-model.sock")

    answer = await world.call("/demo/chat/completions", authorization=f"Bearer {await world.runtime.token()}")

    assert answer.status_code == 200
    assert [call.path for call in demo.calls] == ["/v1/chat/completions"]
    assert "authorization" not in demo.calls[0].headers


async def test_tls_goes_to_the_host_that_was_named_and_to_no_other(world: World, authority: Authority) -> None:
    provider = await world.provider(tls=authority)
    await world.add(ProviderKind.OPENAI_COMPATIBLE, f"https://localhost:{provider.port}/v1", "good")
    await world.add(ProviderKind.OPENAI_COMPATIBLE, f"https://127.0.0.1:{provider.port}/v1", "wrong")
    token = f"Bearer {await world.runtime.token()}"

    assert (await world.call("/good/models", "GET", authorization=token)).status_code == 200
    assert provider.calls[0].headers["host"] == f"localhost:{provider.port}"
    assert provider.calls[0].path == "/v1/models"

    answer = await world.sandbox.get("http://127.0.0.1:4200/wrong/models", headers={"authorization": token})
    assert answer.status_code == 503
    assert len(provider.calls) == 1, "the certificate is for localhost and not for the number"
