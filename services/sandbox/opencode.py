"""A client of one opencode server: the few calls a turn needs, and its stream of events.

The server runs beside the agent, so what it says is not trusted, and its size is bounded.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from services.sandbox.agent_events import (
    AgentEvent,
    AgentInfo,
    Message,
    PermissionRequested,
    Rule,
    SessionInfo,
    each,
    parse_event,
)
from services.sandbox.agent_ids import part_id
from services.sandbox.event import Reply
from services.sandbox.run import Model

USER_NAME = "opencode"
_TIMEOUT = httpx.Timeout(30, connect=5)
_LINE_LIMIT = 16 * 2**20
_MESSAGE_PAGE = 100
ModelT = TypeVar("ModelT", bound=BaseModel)
ShapeT = TypeVar("ShapeT", list[Any], dict[str, Any])


class OpencodeError(Exception):
    """The server of the agent did not do what it was asked; `status` is 0 when it could not be reached."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class AgentUnreadable(OpencodeError):
    """The server answered, but not with what it answers: no JSON, or JSON of another shape."""


class Opencode:
    """The opencode server of one sandbox."""

    def __init__(self, socket: Path, password: str) -> None:
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket), limits=httpx.Limits(max_keepalive_connections=4)),
            base_url="http://opencode",
            auth=(USER_NAME, password),
            timeout=_TIMEOUT,
            trust_env=False,
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def create_session(self, title: str) -> str:
        """Make a session. It has a title so that no model is asked for one."""
        return _read_as(SessionInfo, await self._post("/session", {"title": title})).id

    async def has_session(self, session_id: str) -> bool:
        """Whether the server still knows a session. It answers 500 for one that it does not."""
        try:
            await self._call("GET", f"/session/{session_id}")
        except OpencodeError as error:
            if error.status:
                return False
            raise
        return True

    async def delete_session(self, session_id: str) -> None:
        """Delete a session with all that was said in it, and those of its sub-agents. One that is gone stays so."""
        try:
            await self._call("DELETE", f"/session/{session_id}")
        except OpencodeError as error:
            if not error.status or await self.has_session(session_id):
                raise

    async def session(self, session_id: str) -> SessionInfo:
        """A session."""
        return _read_as(SessionInfo, await self._call("GET", f"/session/{session_id}"))

    async def children(self, session_id: str) -> Sequence[SessionInfo]:
        """The sessions of the sub-agents of a session."""
        return each(SessionInfo, _read(list, await self._call("GET", f"/session/{session_id}/children")))

    async def add_rules(self, session_id: str, rules: Sequence[Rule]) -> None:
        """Add rules to those of a session. The last one that fits counts."""
        body = {"permission": [rule.model_dump() for rule in rules]}
        await self._call("PATCH", f"/session/{session_id}", body)

    async def agent_rules(self, name: str) -> Sequence[Rule]:
        """The rules of an agent."""
        agents = each(AgentInfo, _read(list, await self._call("GET", "/agent")))
        return next((agent.permission for agent in agents if agent.name == name), ())

    async def prompt(
        self,
        session_id: str,
        message_id: str,
        text: str,
        model: Model,
        agent: str,
        switches: Mapping[str, bool] | None = None,
    ) -> None:
        """Say something in a session, whether something runs in it or not. Saying it again changes nothing.

        The server takes it on trust: whatever goes wrong comes as an event. While something runs, the agent reads it
        with its next model call.

        The model is named every time: opencode keeps the last one for the session. Switches of tools replace all
        rules of the session, and stay; without any the rules stay as they are.
        """
        body: dict[str, Any] = {
            "messageID": message_id,
            "parts": [{"id": part_id(message_id), "type": "text", "text": text}],
            "model": {"providerID": model.provider_id, "modelID": model.model_id},
        }
        if agent:
            body["agent"] = agent
        if switches:
            body["tools"] = dict(switches)
        await self._post(f"/session/{session_id}/prompt_async", body)

    async def abort(self, session_id: str) -> None:
        """Stop what runs in a session."""
        await self._post(f"/session/{session_id}/abort", {})

    async def reply_permission(self, permission_id: str, reply: Reply, message: str = "") -> None:
        """Answer a permission. A refusal without a message also stops the turn."""
        body = {"reply": reply.value, **({"message": message} if message else {})}
        await self._post(f"/permission/{permission_id}/reply", body)

    async def reject_question(self, question_id: str) -> None:
        """Refuse to answer a question of the agent."""
        await self._post(f"/question/{question_id}/reject", {})

    async def messages(self, session_id: str) -> Sequence[Message]:
        """The newest messages of a session, oldest first."""
        path = f"/session/{session_id}/message?limit={_MESSAGE_PAGE}"
        return each(Message, _read(list, await self._call("GET", path)))

    async def permissions(self) -> Sequence[PermissionRequested]:
        """What the agents wait for."""
        return each(PermissionRequested, _read(list, await self._call("GET", "/permission")))

    async def busy_sessions(self) -> set[str]:
        """The sessions in which something runs."""
        statuses = _read(dict, await self._call("GET", "/session/status"))
        return {
            session
            for session, status in statuses.items()
            if not (isinstance(status, dict) and status.get("type") == "idle")
        }

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[AgentEvent]]:
        """The stream of events, from now on. It ends when the server ends it."""
        timeout = httpx.Timeout(None, connect=5)
        async with self._client.stream("GET", "/event", timeout=timeout) as response:
            if response.status_code != httpx.codes.OK:
                raise OpencodeError("the stream of events was refused", response.status_code)
            yield _read_events(response)

    async def _post(self, path: str, body: Mapping[str, Any]) -> bytes:
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise OpencodeError(f"{method} did not reach the agent") from error
        if response.is_error:
            raise OpencodeError(f"{method} was refused by the agent", response.status_code)
        return response.content


def _read_as(shape: type[ModelT], answer: bytes) -> ModelT:
    """An answer of a shape of ours."""
    try:
        return shape.model_validate_json(answer)
    except ValidationError as error:
        raise AgentUnreadable("the agent answered JSON of another shape") from error


def _read(shape: type[ShapeT], answer: bytes) -> ShapeT:
    """An answer of a shape."""
    try:
        read = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise AgentUnreadable("the agent answered no JSON") from error
    if not isinstance(read, shape):
        raise AgentUnreadable("the agent answered JSON of another shape")
    return read


async def _read_events(response: httpx.Response) -> AsyncIterator[AgentEvent]:
    """Events out of the bytes of a stream; opencode puts each into one `data:` line."""
    pending = b""
    async for chunk in response.aiter_bytes():
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and (event := parse_event(line[5:])):
                yield event
        if len(pending) > _LINE_LIMIT:
            raise OpencodeError("an event is larger than it can be")
