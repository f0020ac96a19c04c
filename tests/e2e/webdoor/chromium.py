"""A real browser without a screen, driven by its own protocol (CDP)."""

import asyncio
import base64
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage")


class Tab:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = count(1)
        self.complaints: list[str] = []
        """What the browser has to say of the page, such as what its policy refuses."""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = json.loads((await self._socket.receive()).data)
            if message.get("method") == "Log.entryAdded":
                self.complaints.append(message["params"]["entry"]["text"])
            if message.get("id") == number:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found

    async def run(self, script: str) -> Any:
        """Run a script in the page, and give what it comes to."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def open(self, url: str) -> None:
        """Go to a page."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def until(self, holds: str, seconds: float = 20) -> None:
        """Wait until something holds in the page."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    if await self.run(f"!!({holds})"):
                        return
                except AssertionError:
                    pass  # the page is on its way to another
                await asyncio.sleep(0.1)

    async def text(self) -> str:
        """What a person reads."""
        return str(await self.run("document.body.innerText"))

    async def press(self, selector: str, then: str) -> None:
        """Press a button, and wait until something holds on the page that follows."""
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")
        await self.until(then)

    async def picture(self, path: Path) -> None:
        """Keep what a person sees."""
        answer = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(  # noqa: ASYNC240 - a test waits for nothing else
            base64.b64decode(answer["data"])
        )


@asynccontextmanager
async def chromium(width: int = 900, height: int = 760, *, dark: bool = False) -> AsyncIterator[Tab]:
    """A browser with one tab."""
    with tempfile.TemporaryDirectory(prefix="oiab-chromium-", ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            *("chromium", *FLAGS, f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port = await _port(Path(folder, "DevToolsActivePort"))
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    found = next(each for each in await answer.json() if each["type"] == "page")
                async with session.ws_connect(found["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    tab = Tab(socket)
                    await tab.call("Page.enable")
                    await tab.call("Log.enable")
                    await tab.call(
                        "Emulation.setDeviceMetricsOverride",
                        width=width,
                        height=height,
                        deviceScaleFactor=1,
                        mobile=False,
                    )
                    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                    await tab.call("Emulation.setEmulatedMedia", features=[scheme])
                    yield tab
        finally:
            process.terminate()
            await process.wait()


async def _port(file: Path) -> int:
    for _ in range(300):
        found = await asyncio.to_thread(lambda: file.read_text().split() if file.exists() else [])
        if found:
            return int(found[0])
        await asyncio.sleep(0.1)
    raise TimeoutError("the browser did not start")
