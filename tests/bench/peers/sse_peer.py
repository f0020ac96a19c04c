"""Server-sent events out of memory, by FastAPI with sse-starlette or by aiohttp: the same channels, paced the same.

Run as `sse_peer.py fastapi|aiohttp PORT`. `GET /channels/N` streams; `POST /start?rate=R&count=C&at=NS` begins all
channels. An event carries the time at which it was due, so that a server that falls behind cannot hide it.
"""

import asyncio
import json
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator

QUEUES: dict[int, set[asyncio.Queue[str | None]]] = defaultdict(set)
TASKS: set[asyncio.Task[None]] = set()


def event(channel: str, number: int, due: int) -> str:
    """An event of the same shape and size as those of the box."""
    return json.dumps(
        {
            "sequence": str(number),
            "turnId": channel,
            "createTime": "2026-01-01T00:00:00.000000Z",
            "textDelta": {"partId": "p", "text": f"@{due}@"},
        },
        separators=(",", ":"),
    )


async def produce(channel: int, rate: float, count: int, at: int) -> None:
    """Put events into the queue of every reader of a channel when they are due."""
    name = str(uuid.uuid4())
    for number in range(1, count + 1):
        due = at + int(number / rate * 1e9)
        await asyncio.sleep(max((due - time.time_ns()) / 1e9, 0))
        text = event(name, number, due)
        for queue in QUEUES[channel]:
            queue.put_nowait(text)
    for queue in QUEUES[channel]:
        queue.put_nowait(None)


async def listen(channel: int) -> AsyncIterator[str]:
    """The events of a channel."""
    queue: asyncio.Queue[str | None] = asyncio.Queue()
    QUEUES[channel].add(queue)
    try:
        while (text := await queue.get()) is not None:
            yield text
    finally:
        QUEUES[channel].discard(queue)


def start(query: dict[str, str]) -> None:
    """Begin all channels."""
    for channel in list(QUEUES):
        task = asyncio.create_task(produce(channel, float(query["rate"]), int(query["count"]), int(query["at"])))
        TASKS.add(task)
        task.add_done_callback(TASKS.discard)


def run_fastapi(port: int) -> None:
    """FastAPI with sse-starlette on uvicorn with uvloop and httptools where it is there."""
    import uvicorn
    from fastapi import FastAPI, Request
    from sse_starlette import EventSourceResponse, ServerSentEvent

    app = FastAPI()

    async def stream(channel: int) -> EventSourceResponse:
        async def events() -> AsyncIterator[ServerSentEvent]:
            number = 0
            async for text in listen(channel):
                number += 1
                yield ServerSentEvent(text, id=str(number), sep="\n")

        return EventSourceResponse(events(), sep="\n")

    async def begin(request: Request) -> None:
        start(dict(request.query_params))

    app.get("/channels/{channel}")(stream)
    app.post("/start")(begin)
    uvicorn.run(app, host="127.0.0.1", port=port, loop="uvloop", log_level="warning")


def run_aiohttp(port: int) -> None:
    """Plain aiohttp on uvloop."""
    import uvloop
    from aiohttp import web

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        number = 0
        async for text in listen(int(request.match_info["channel"])):
            number += 1
            await response.write(f"id: {number}\ndata: {text}\n\n".encode())
        return response

    async def begin(request: web.Request) -> web.Response:
        start(dict(request.query))
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/channels/{channel}", stream), web.post("/start", begin)])
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    {"fastapi": run_fastapi, "aiohttp": run_aiohttp}[sys.argv[1]](int(sys.argv[2]))
