"""A Sandbox service in this process: real bubblewrap, real opencode, the scripted model behind the model door."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
from orginabox.runtime.v1 import model_pb2
from orginabox.sandbox.v1 import sandbox_service_pb2 as pb
from orginabox.sandbox.v1 import sandbox_service_pb2_grpc
from orginabox.turn.v1 import tool_ceiling_pb2, turn_event_pb2

from sandbox.agent import BINARY, write_stub_plugin
from services.kit.ids import DEFAULT_TENANT, new_id
from services.kit.postgres import Database
from services.kit.tenancy import as_system, as_tenant
from services.sandbox.bubblewrap import Bubblewrap
from services.sandbox.fleet import Fleet, Place
from services.sandbox.forgetting import Forgetting
from services.sandbox.handler import SandboxHandler
from services.sandbox.live import Live
from services.sandbox.patience import Patience
from services.sandbox.sandbox import Sandbox
from services.sandbox.store import QUERIES, Store
from tests.contract.rig import served
from tests.model_server import ModelServer, scenario
from tests.postgres import as_service

Event = turn_event_pb2.TurnEvent
ToolCeiling = tool_ceiling_pb2.ToolCeiling
EVERYTHING = ToolCeiling(allowed=["*"])

_CONFIG: dict[str, Any] = {
    "$schema": "https://opencode.ai/config.json",
    "autoupdate": False, "share": "disabled", "snapshot": False, "lsp": False, "formatter": False,
    "enabled_providers": ["scripted"], "model": "scripted/m", "small_model": "scripted/m",
    "provider": {
        "scripted": {
            "npm": "@ai-sdk/openai-compatible",
            "name": "Scripted",
            "options": {"baseURL": "http://127.0.0.1:4200/scripted", "apiKey": "{env:OIAB_MODEL_TOKEN}"},
            "models": {
                "m": {
                    "name": "m", "tool_call": True, "reasoning": True,
                    "limit": {"context": 32000, "output": 4000},
                    "cost": {"input": 1.0, "output": 2.0, "cache_read": 0.1},
                }
            },
        }
    },
    "default_agent": "main",
    "agent": {
        "main": {
            "mode": "primary", "description": "The agent of the tests.", "prompt": "You follow a script.",
            # Rules of opencode would hide what the sandbox itself refuses.
            "permission": {"bash": {"*": "allow", "rm *": "ask"}, "edit": "allow", "external_directory": "allow"},
        },
        "title": {"disable": True}, "plan": {"disable": True}, "build": {"disable": True},
    },
}  # fmt: skip


def write_bundle(root: Path, revision: str) -> None:
    """Apply a bundle as Runtime does: a folder per revision, and a link that is replaced in one step."""
    folder = root / "revisions" / revision
    folder.mkdir(parents=True)
    runtime = {
        "revision": revision,
        "default_model": {"provider_id": "scripted", "model_id": "m"},
        "agents": {"*": "main"},
        # `gone` is a model that the bundle promises and opencode does not know.
        "providers": [{"provider_id": "scripted", "models": ["m", "gone"]}],
    }
    (folder / "runtime.json").write_text(json.dumps(runtime))
    (folder / "opencode.jsonc").write_text(json.dumps(_CONFIG))
    write_stub_plugin(folder)
    link = root / ".applied.new"
    link.symlink_to(Path("revisions", revision))
    link.replace(root / "applied")


@dataclass
class Rig:
    """What the tests drive."""

    stub: sandbox_service_pb2_grpc.SandboxServiceStub
    handler: SandboxHandler
    fleet: Fleet
    store: Store
    model: ModelServer
    home: Path
    tokens: list[str] = field(default_factory=list)

    async def claim(self, user_id: UUID, session_id: str = "") -> pb.ClaimSandboxResponse:
        """Claim the sandbox of a user."""
        request = pb.ClaimSandboxRequest(tenant_id=str(DEFAULT_TENANT), user_id=str(user_id), session_id=session_id)
        return await self.stub.ClaimSandbox(request, timeout=60)

    def turn(self, sandbox_id: str, text: str, **fields: Any) -> pb.RunTurnRequest:
        """A turn to run."""
        given = {"session_id": str(new_id()), "turn_id": str(new_id()), "tools": EVERYTHING, **fields}
        if isinstance(model := given.pop("model", None), str):
            given["model"] = model_pb2.Model(provider_id="scripted", model_id=model)
        return pb.RunTurnRequest(tenant_id=str(DEFAULT_TENANT), sandbox_id=sandbox_id, text=text, **given)

    async def stream(self, request: pb.RunTurnRequest) -> AsyncIterator[Event]:
        """The events of a run, as they come."""
        async for answer in self.stub.RunTurn(request, timeout=60):
            for event in answer.events:
                yield event

    async def run(self, request: pb.RunTurnRequest, when: Callable[[Event], Any] = lambda _: None) -> Sequence[Event]:
        """All events of a run. What `when` gives for one of them is awaited before the next."""
        found: list[Event] = []
        async for event in self.stream(request):
            found.append(event)
            if asyncio.iscoroutine(todo := when(event)):
                await todo
        return found

    def live(self, sandbox_id: str) -> Live:
        """The running sandbox."""
        live = self.fleet.live(UUID(sandbox_id))
        assert live is not None
        return live

    async def cut_events(self, sandbox_id: str, pause: float = 0) -> None:
        """Lose the stream of the agent's events, as when the server drops it, and find it again after a pause."""
        hub = self.live(sandbox_id).hub
        await hub.close()
        hub._connected.clear()
        await asyncio.sleep(pause)
        hub._reader = asyncio.create_task(hub._read_for_ever())

    async def steer(self, turn_id: str, text: str, request_id: str = "") -> None:
        """Say something into a turn."""
        request = pb.SteerTurnRequest(turn_id=turn_id, request_id=request_id or str(new_id()), text=text)
        await self.stub.SteerTurn(request, timeout=30)

    @contextmanager
    def patience(self, **deadlines: float) -> Iterator[None]:
        """Other deadlines for the turns that begin in this block."""
        before = self.handler._patience
        self.handler._patience = replace(before, **deadlines)
        try:
            yield
        finally:
            self.handler._patience = before

    async def bash(self, sandbox_id: str, command: str) -> str:
        """What a command of the agent prints, errors included."""
        return bash_output(await self.run(self.turn(sandbox_id, scenario("bash", command=f"exec 2>&1; {command}"))))

    async def reply(
        self, turn_id: str, permission_id: str, reply: int, message: str = "", tools: ToolCeiling | None = None
    ) -> None:
        """Answer a permission, as somebody who may use these tools; None means all."""
        request = pb.ReplyPermissionRequest(turn_id=turn_id, permission_id=permission_id, message=message)
        request.tools.CopyFrom(tools or EVERYTHING)
        request.reply = reply  # type: ignore[assignment]
        await self.stub.ReplyPermission(request)


def kinds(events: Sequence[Event]) -> list[str]:
    """The kinds of events, pieces of one text counted once."""
    found: list[str] = []
    for event in events:
        kind = event.WhichOneof("event") or ""
        if not found or found[-1] != kind or not kind.endswith(("delta", "output")):
            found.append(kind)
    return found


def text_of(events: Sequence[Event]) -> str:
    """The text of an answer."""
    return "".join(event.text_delta.text for event in events if event.HasField("text_delta"))


def bash_output(events: Sequence[Event]) -> str:
    """What the first bash call printed."""
    return next(event.tool_finished.output for event in events if event.HasField("tool_finished"))


@asynccontextmanager
async def sandbox_rig(database_url: str, home: Path, patience: Patience | None = None) -> AsyncIterator[Rig]:
    """A Sandbox service with everything around it."""
    door = home / "run" / "model"
    door.mkdir(parents=True)
    write_bundle(home / "runtime", "revision1")
    tokens: list[str] = []

    async def issue(sandbox: Sandbox) -> str:
        tokens.append(f"throw-away-{sandbox.id}-{len(tokens)}")
        return tokens[-1]

    async with (
        Database(as_service(database_url, "sandbox"), "sandbox", QUERIES) as database,
        ModelServer.serve(socket=door / "model.sock") as model,
    ):
        store = Store(database)

        async def report(sandbox: Sandbox) -> None:
            with as_tenant(sandbox.tenant_id):
                async with store.transaction() as tx:
                    await tx.save_sandbox(sandbox)

        place = Place(volumes=home / "sandboxes", runtime=home / "runtime", model_door=door)
        fleet = Fleet(Bubblewrap(BINARY), place, issue, report)

        forgetting = Forgetting(store, fleet)
        handler = SandboxHandler(store, fleet, patience or Patience(retries=3), forgetting)

        def register(server: grpc.aio.Server) -> None:
            sandbox_service_pb2_grpc.add_SandboxServiceServicer_to_server(handler, server)

        async with served(["orginabox.sandbox.v1.SandboxService"], register) as channel:
            stub = sandbox_service_pb2_grpc.SandboxServiceStub(channel)
            with as_system():
                forgets = asyncio.create_task(forgetting.run())
            try:
                yield Rig(stub, handler, fleet, store, model, home, tokens)
            finally:
                forgets.cancel()
                await fleet.stop_all()
