"""The peer: opencode alone on a loopback port, with the scripted model, no sandbox and no mesh around it."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from sandbox.agent import write_stub_plugin
from tests.e2e.mesh import ROOT, free_port

BINARY = ROOT / "sandbox/opencode/node_modules/opencode-ai/bin/opencode.exe"
OFF = ("AUTOUPDATE", "MODELS_FETCH", "SHARE", "LSP_DOWNLOAD", "DEFAULT_PLUGINS", "CLAUDE_CODE", "EXTERNAL_SKILLS")


@dataclass
class BareAgent:
    """A running opencode."""

    http: httpx.AsyncClient
    pid: int

    async def session(self) -> str:
        """A new session."""
        return str((await self.http.post("/session", json={"title": "bench"})).json()["id"])

    async def turn(self, session: str, text: str) -> tuple[int, list[tuple[str, int]]]:
        """Run a turn in a session: when it was sent, and each delta with when it came, in nanoseconds."""
        deltas: list[tuple[str, int]] = []
        async with self.http.stream("GET", "/event", timeout=None) as events:
            lines = events.aiter_lines()
            await anext(lines)
            sent = time.time_ns()
            prompting = asyncio.create_task(
                self.http.post(
                    f"/session/{session}/prompt_async",
                    json={
                        "parts": [{"type": "text", "text": text}],
                        "model": {"providerID": "llm", "modelID": "scripted"},
                    },
                )
            )
            async for line in lines:
                if not line.startswith("data:"):
                    continue
                event: dict[str, Any] = json.loads(line.removeprefix("data:"))
                properties = event["properties"]
                if properties.get("sessionID") != session:
                    continue
                if event["type"] == "message.part.delta":
                    deltas.append((properties["delta"], time.time_ns()))
                if event["type"] == "session.idle":
                    break
            await prompting
        return sent, deltas


@asynccontextmanager
async def bare_agent(folder: Path, model_url: str) -> AsyncIterator[BareAgent]:
    """Run opencode in a folder."""
    config = folder / "config"
    config.mkdir(parents=True)
    workspace = folder / "workspace"
    workspace.mkdir()
    (config / "opencode.json").write_text(json.dumps(_configuration(model_url)))
    for place in (config, folder / ".config" / "opencode"):
        place.mkdir(parents=True, exist_ok=True)
        write_stub_plugin(place)
    port = free_port()
    env = os.environ | {"HOME": str(folder), "OPENCODE_CONFIG_DIR": str(config)}
    env |= {f"OPENCODE_DISABLE_{name}": "1" for name in OFF} | {"OPENCODE_DISABLE_PROJECT_CONFIG": "1"}
    process = await asyncio.create_subprocess_exec(
        str(BINARY), "serve", "--port", str(port), "--hostname", "127.0.0.1", "--print-logs",
        cwd=workspace, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout
    async for line in process.stdout:
        if b"listening on" in line:
            break
    draining = asyncio.create_task(_drain(process.stdout))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
            yield BareAgent(http, process.pid)
    finally:
        process.terminate()
        await process.wait()
        draining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await draining


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


def _configuration(model_url: str) -> dict[str, Any]:
    return {
        "autoupdate": False,
        "share": "disabled",
        "snapshot": False,
        "lsp": False,
        "formatter": False,
        "enabled_providers": ["llm"],
        "model": "llm/scripted",
        "small_model": "llm/scripted",
        "provider": {
            "llm": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "LLM",
                "options": {"baseURL": model_url, "apiKey": "x"},
                "models": {
                    "scripted": {"name": "scripted", "tool_call": True, "limit": {"context": 32000, "output": 4000}}
                },
            }
        },
        "agent": {"title": {"disable": True}},
    }
