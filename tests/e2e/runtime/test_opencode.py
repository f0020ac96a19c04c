"""The real opencode on a bundle: it reads what was meant, and calls where the model door lets it."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from sandbox.agent import BINARY, write_stub_plugin
from services.kit.ids import DEFAULT_TENANT
from services.runtime import bundle as module
from services.runtime.bundle import Base, make_bundle
from services.runtime.dialect import DIALECTS, ProviderKind
from services.runtime.folders import APPLIED, Folders
from services.runtime.provider import Provider, demo_provider
from tests.e2e.box.conftest import free_port

TOKEN = "throw-away"
_SWITCHED_OFF = (
    *("AUTOUPDATE", "MODELS_FETCH", "SHARE", "LSP_DOWNLOAD", "DEFAULT_PLUGINS", "CLAUDE_CODE"),
    *("EXTERNAL_SKILLS", "EMBEDDED_WEB_UI", "PROJECT_CONFIG"),
)


def wanted(provider_id: str, kind: ProviderKind, **values: Any) -> Provider:
    return Provider.wanted(DEFAULT_TENANT, provider_id, kind, has_key=True, **values)


# A vendor under its own name, which opencode knows, and under another, which it does not.
PROVIDERS = {
    provider.provider_id: provider
    for provider in (
        wanted("anthropic", ProviderKind.ANTHROPIC),
        wanted("claude-here", ProviderKind.ANTHROPIC),
        wanted("openai", ProviderKind.OPENAI),
        wanted("gpt-here", ProviderKind.OPENAI),
        wanted("azure", ProviderKind.AZURE, base_url="https://r.openai.azure.com", models=["a-deployment", "gpt-5.4"]),
        wanted("azure-here", ProviderKind.AZURE, base_url="https://r.openai.azure.com", models=["a-deployment"]),
        wanted("vllm", ProviderKind.OPENAI_COMPATIBLE, base_url="http://vllm:8000/v1", models=["qwen/qwen3-8b"]),
        wanted("ollama", ProviderKind.OLLAMA, models=["llama3.2:3b"]),
        demo_provider(DEFAULT_TENANT, "/run/demo.sock", preferred=True),
    )
}


@dataclass
class StandInDoor:
    """Keeps what came, and lets nothing out."""

    calls: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)

    async def refuse(self, request: web.Request) -> web.Response:
        """Say no, in a way that is not worth another try."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.calls.append((request.method, request.path, headers, await request.json()))
        return web.json_response({"error": {"message": "closed", "type": "authentication_error"}}, status=401)


@dataclass
class Agent:
    """A running opencode."""

    http: httpx.AsyncClient
    door: StandInDoor

    async def prompt(self, provider: Provider, model: str) -> tuple[str, str, dict[str, str], Any]:
        """Prompt a model and return the call that came of it."""
        before = len(self.door.calls)
        session = (await self.http.post("/session", json={"title": "a title"})).json()
        body = {
            "parts": [{"type": "text", "text": "Hello"}],
            "model": {"providerID": provider.provider_id, "modelID": model},
            "agent": "demo" if provider.demo else "main",
        }
        await self.http.post(f"/session/{session['id']}/message", json=body)
        (call,) = self.door.calls[before:]
        return call


@pytest.fixture(scope="module")
async def agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    door, folder = StandInDoor(), tmp_path_factory.mktemp("agent")
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", door.refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MODEL_DOOR", f"http://127.0.0.1:{runner.addresses[0][1]}")
        Folders(folder).point(APPLIED, make_bundle(Base.read(), list(PROVIDERS.values())))
    async with opencode(folder) as http:
        yield Agent(http, door)
    await runner.cleanup()


@contextlib.asynccontextmanager
async def opencode(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """opencode on the applied bundle of a folder."""  # noqa: D403 - it writes itself so
    config, workspace, port = folder / "home/.config/opencode", folder / "workspace", free_port()
    for made in (config, workspace):
        made.mkdir(parents=True)
    write_stub_plugin(config)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "OPENCODE_CONFIG_DIR": str(folder / APPLIED),
        "OPENCODE_MODELS_PATH": str(folder / APPLIED / "models.json"),
        "OIAB_MODEL_TOKEN": TOKEN,
        **{f"OPENCODE_DISABLE_{name}": "1" for name in _SWITCHED_OFF},
    }
    process = await asyncio.create_subprocess_exec(
        *(str(BINARY), "serve", "--hostname", "127.0.0.1", "--port", str(port)),
        cwd=workspace,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout
    try:
        async with asyncio.timeout(60):
            # A request before this line would never be answered.
            while b"listening on" not in await process.stdout.readline():
                assert process.returncode is None
        drain = asyncio.create_task(process.stdout.read())
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()
    await drain


async def test_opencode_reads_the_bundle_as_it_is_meant(agent: Agent) -> None:
    config = (await agent.http.get("/config")).json()
    assert config["model"] == config["small_model"] == "demo/smollm2-135m"
    assert config["default_agent"] == "demo"
    assert [config[name] for name in ("autoupdate", "share", "snapshot", "lsp", "formatter")] == [
        *(False, "disabled", False, False, False)
    ]
    agents = {found["name"]: found for found in (await agent.http.get("/agent")).json()}
    assert {name for name, found in agents.items() if found["mode"] == "primary" and not found["hidden"]} == {
        *("main", "demo")
    }
    assert "capable, careful colleague" in agents["main"]["prompt"]


async def test_opencode_knows_our_models_and_no_others(agent: Agent) -> None:
    found = (await agent.http.get("/config/providers")).json()["providers"]
    assert {item["id"]: set(item["models"]) for item in found} == {
        name: set(provider.models) for name, provider in PROVIDERS.items()
    }


@pytest.mark.parametrize(("name", "model"), [(name, model) for name, it in PROVIDERS.items() for model in it.models])
async def test_opencode_calls_where_the_door_lets_it(agent: Agent, name: str, model: str) -> None:
    provider = PROVIDERS[name]
    method, path, headers, body = await agent.prompt(provider, model)

    assert path.startswith(f"/{name}/")
    assert (method, path.removeprefix(f"/{name}")) in DIALECTS[provider.kind].calls
    assert headers[provider.dialect.key_header] == f"{provider.dialect.key_prefix}{TOKEN}"
    assert body["model"] == model
    assert body["stream"] is True


async def test_the_demo_model_gets_a_short_prompt_and_no_tools(agent: Agent) -> None:
    _, _, _, body = await agent.prompt(PROVIDERS["demo"], "smollm2-135m")
    assert "tools" not in body
    assert len(json.dumps(body)) < 1_000


async def test_other_models_get_every_tool_that_works_in_a_sandbox(agent: Agent) -> None:
    _, _, _, body = await agent.prompt(PROVIDERS["vllm"], "qwen/qwen3-8b")
    tools = {tool["function"]["name"] for tool in body["tools"]}
    assert {"bash", "edit", "write", "read", "glob", "grep", "todowrite"} <= tools
    assert not {"webfetch", "websearch", "question"} & tools
    assert "customize-opencode" not in json.dumps(body)
