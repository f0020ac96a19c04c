"""What the agent of a bundle asks its user, tried on the real opencode with the scripted model."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.kit.ids import DEFAULT_TENANT
from services.runtime import bundle as module
from services.runtime.bundle import Base, make_bundle
from services.runtime.dialect import ProviderKind
from services.runtime.folders import APPLIED, Folders
from services.runtime.provider import Provider
from tests.e2e.box.conftest import free_port
from tests.e2e.runtime.test_opencode import opencode
from tests.model_server.script import Script, Step, ToolCall
from tests.model_server.server import ModelServer


@dataclass
class Agent:
    """A running opencode with the scripted model."""

    http: httpx.AsyncClient
    workspace: Path

    async def run(self, tool: str, **arguments: Any) -> str:
        """Let the agent use a tool, and tell what came of it: `asked`, or the state in which the tool ended."""
        session = (await self.http.post("/session", json={"title": "a title"})).json()["id"]
        script = Script([Step(tools=[ToolCall(tool, arguments)])])
        body = {
            "parts": [{"type": "text", "text": script.prompt()}],
            "model": {"providerID": "vllm", "modelID": "m"},
            "agent": "main",
        }
        turn = asyncio.create_task(self.http.post(f"/session/{session}/message", json=body))
        while not turn.done():
            for question in (await self.http.get("/permission")).json():
                if question["sessionID"] == session:
                    await self.http.post(f"/permission/{question['id']}/reply", json={"reply": "reject"})
                    await turn
                    return "asked"
            await asyncio.sleep(0.02)
        messages = (await self.http.get(f"/session/{session}/message")).json()
        (used,) = [part for message in messages for part in message["parts"] if part["type"] == "tool"]
        return str(used["state"]["status"])


@pytest.fixture(scope="module")
async def agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    folder, port = tmp_path_factory.mktemp("agent"), free_port()
    vllm = Provider.wanted(
        DEFAULT_TENANT, "vllm", ProviderKind.OPENAI_COMPATIBLE, base_url="http://vllm:8000/v1", models=["m"]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MODEL_DOOR", f"http://127.0.0.1:{port}")
        Folders(folder).point(APPLIED, make_bundle(Base.read(), [vllm]))
    async with ModelServer.serve(port=port), opencode(folder) as http:
        yield Agent(http, folder / "workspace")


@pytest.mark.parametrize(
    "command",
    [
        "ls",
        "ls -la",
        "cat a.txt | head -3",
        "pwd && git status",
        "grep -rn word .",
        "date",
        "git log --oneline",
        "wc -l a.txt; echo done",
        "cat /tmp/x",
    ],
)
async def test_commands_that_only_look_are_not_asked(agent: Agent, command: str) -> None:
    assert await agent.run("bash", command=command, description="look") == "completed"


@pytest.mark.parametrize(
    "command",
    [
        "rm a.txt",
        "python3 a.py",
        "ls; rm a.txt",
        "ls && touch b",
        "ls $(rm a.txt)",
        "ls `rm a.txt`",
        "cat a.txt > b.txt",
        "echo x >> b.txt",
        "ls | sh",
        "lsof",
        "git push",
        "git diff --output=x",
        "rg --pre=sh word",
        "find . -delete",
        "env",
        "(rm a.txt)",
        "if true; then rm a.txt; fi",
        "X=1 rm a.txt",
        "cat <(rm a.txt)",
    ],
)
async def test_commands_that_do_something_are_asked(agent: Agent, command: str) -> None:
    assert await agent.run("bash", command=command, description="do") == "asked"


async def test_files_are_read_without_a_question_and_changed_with_one(agent: Agent) -> None:
    (agent.workspace / "a.txt").write_text("one\n")
    assert await agent.run("read", filePath=str(agent.workspace / "a.txt")) == "completed"
    assert await agent.run("write", filePath=str(agent.workspace / "b.txt"), content="two") == "asked"
    assert await agent.run("edit", filePath=str(agent.workspace / "a.txt"), oldString="one", newString="two") == "asked"
    assert (agent.workspace / "a.txt").read_text() == "one\n"


async def test_the_rest_of_the_machine_is_refused_without_a_question(agent: Agent) -> None:
    assert await agent.run("read", filePath="/etc/hostname") == "error"
    assert await agent.run("bash", command="cat /etc/hostname", description="look") == "error"
