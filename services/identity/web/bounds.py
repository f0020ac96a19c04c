"""What every request of the door is held to, and every answer sent with."""

import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.identity.web.pages import HEADERS
from services.identity.web.refusals import RequestTooLarge
from services.kit import telemetry

FORM_BYTES = 64 * 1024
SCIM_BYTES = 1024 * 1024


class Bounds:
    """Limits the size of requests, adds the headers of answers, and writes a line for each.

    Args:
        app: What answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, limit, got, code = time.monotonic(), _limit(scope["path"]), 0, 0

        async def bounded() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > limit:
                raise RequestTooLarge(f"the request is larger than {limit // 1024} KiB")
            return message

        async def dressed(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, bounded, dressed)
        finally:
            took = round((time.monotonic() - begin) * 1000, 1)
            telemetry.log().info("page", method=scope["method"], path=scope["path"], status=code, ms=took)


def _limit(path: str) -> int:
    return SCIM_BYTES if path.startswith("/scim/") else FORM_BYTES
