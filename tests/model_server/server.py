"""The HTTP side of the scripted model: `/chat/completions` under any prefix, on a socket or port."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from tests.model_server.script import Fault, Step, script_for

_SAID = {429: "Rate limit reached: upstream detail"}


@dataclass(frozen=True)
class RecordedRequest:
    """What a caller sent, kept for assertions."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    receive_time: float = field(default_factory=time.time)

    @property
    def authorization(self) -> str:
        """The credential that came with the call."""
        return self.headers.get("authorization", "")


class ModelServer:
    """Answers as a chat model would, from a script. `requests` holds what came in."""

    def __init__(self, *, key: str = "") -> None:
        self.requests: list[RecordedRequest] = []
        # When set, every other bearer token is refused with 401.
        self.key = key
        self._calls: Counter[tuple[str, int]] = Counter()

    @classmethod
    @asynccontextmanager
    async def serve(cls, *, socket: Path | None = None, port: int | None = None, key: str = "") -> AsyncIterator[Self]:
        """A server that listens until the block is left."""
        server = cls(key=key)
        runner = web.AppRunner(server.application(), handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        try:
            if socket is not None:
                await web.UnixSite(runner, str(socket)).start()
            if port is not None:
                await web.TCPSite(runner, "127.0.0.1", port).start()
            yield server
        finally:
            await runner.cleanup()

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_get("/_requests", self._list_requests)
        app.router.add_delete("/_requests", self._forget_requests)
        app.router.add_get(r"/{prefix:.*}models", self._models)
        app.router.add_post(r"/{prefix:.*}chat/completions", self._complete)
        return app

    async def _list_requests(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(request) for request in self.requests])

    async def _forget_requests(self, _: web.Request) -> web.Response:
        self.requests.clear()
        self._calls.clear()
        return web.Response(status=204)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
            messages = body["messages"]
        except (ValueError, KeyError, TypeError):
            return _refusal(400, "the body is no chat completion request")
        headers = {name.lower(): value for name, value in request.headers.items()}
        recorded = RecordedRequest(request.path, headers, body)
        self.requests.append(recorded)
        if self.key and recorded.authorization != f"Bearer {self.key}":
            return _refusal(401, "Incorrect API key provided: sk-upstream-detail")
        prompt, index = _where(messages)
        step = script_for(prompt).step(index)
        faulty = self._is_faulty(step, prompt, index)
        if faulty and step.fault.hang:
            await asyncio.Event().wait()
        if faulty and step.fault.status:
            return _refusal(step.fault.status, _SAID.get(step.fault.status, "upstream detail"), step.fault.retry_after)
        answer = _Answer(body, step, faulty=faulty)
        if not body.get("stream"):
            return web.json_response(answer.whole())
        try:
            return await answer.stream(request)
        except ConnectionResetError:
            # The caller hung up in the middle, as an aborted turn does.
            return web.Response()

    def _is_faulty(self, step: Step, prompt: str, index: int) -> bool:
        """Whether this call of the step still goes wrong."""
        if step.fault == Fault():
            return False
        self._calls[prompt, index] += 1
        return not step.fault.times or self._calls[prompt, index] <= step.fault.times


class _Answer:
    """One step, as chunks of a completion."""

    def __init__(self, body: Mapping[str, Any], step: Step, *, faulty: bool) -> None:
        self._step = step
        self._faulty = faulty
        self._body = body
        self._id = f"chatcmpl-{time.time_ns()}"

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The step as server-sent events, usage in the last one."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await response.prepare(request)
        await asyncio.sleep(self._step.first_delay)
        await self._send(response, {"role": "assistant", "content": ""})
        if self._step.reasoning:
            await self._send(response, {"reasoning_content": self._step.reasoning})
        for number, piece in enumerate(self._step.pieces()):
            if await self._break(request, response, number):
                return response
            if number:
                await asyncio.sleep(self._step.interval)
            await self._send(response, {"content": self._stamp(piece)})
        if await self._break(request, response, len(self._step.pieces())):
            return response
        for call in self._tool_calls():
            await self._send(response, {"tool_calls": [call]})
        await self._send(response, {}, finish=self._finish_reason)
        await self._line(response, {**self._frame([]), "usage": self._usage()})
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def whole(self) -> dict[str, Any]:
        """The step as one answer."""
        message: dict[str, Any] = {"role": "assistant", "content": self._step.text}
        if calls := self._tool_calls():
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": self._finish_reason}
        return {**self._frame([choice], "chat.completion"), "usage": self._usage()}

    async def _break(self, request: web.Request, response: web.StreamResponse, sent: int) -> bool:
        fault = self._step.fault
        if not self._faulty:
            return False
        if fault.bad_json_after == sent:
            await response.write(b'data: {"id": "broken", "choices": [\n\n')
            return True
        if fault.cut_after == sent:
            if request.transport is not None:
                request.transport.abort()
            return True
        return False

    async def _send(self, response: web.StreamResponse, delta: Mapping[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        await self._line(response, self._frame([choice]))

    async def _line(self, response: web.StreamResponse, chunk: Mapping[str, Any]) -> None:
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def _stamp(self, piece: str) -> str:
        return f"{time.time_ns()} " if self._step.stamped else piece

    def _tool_calls(self) -> list[dict[str, Any]]:
        return [
            {
                "index": index,
                "id": f"call_{self._id[9:]}_{index}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for index, call in enumerate(self._step.tools)
        ]

    @property
    def _finish_reason(self) -> str:
        return "tool_calls" if self._step.tools else "stop"

    def _frame(self, choices: list[dict[str, Any]], kind: str = "chat.completion.chunk") -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": int(time.time()),
            "model": self._body.get("model", "scripted"),
            "choices": choices,
        }

    def _usage(self) -> dict[str, Any]:
        prompt = self._step.usage.get("prompt", len(json.dumps(self._body["messages"])) // 4)
        cached = self._step.usage.get("cached", 0)
        completion = self._step.usage.get("completion", max(1, len(self._step.pieces())))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def _where(messages: list[Mapping[str, Any]]) -> tuple[str, int]:
    """The last user message, and how many model calls have answered it so far."""
    last = max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=-1)
    prompt = _text(messages[last].get("content")) if last >= 0 else ""
    return prompt, sum(1 for m in messages[last + 1 :] if m.get("role") == "assistant")


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content if isinstance(part, dict))
    return ""


def _refusal(status: int, message: str, retry_after: float = 0) -> web.Response:
    headers = {"retry-after": f"{retry_after:g}"} if retry_after else {}
    error = {"message": message, "type": "scripted_error", "code": status}
    return web.json_response({"error": error}, status=status, headers=headers)
