"""The demo model: real tokens with no key, and no request that ends it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from services.box.demo_model import MODEL_ID
from services.box.probes import UnixConnection, http_probe

HELLO = {"model": MODEL_ID, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 12}


@pytest.fixture
async def model(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A running demo model."""
    address = folder / "model.sock"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.box.demo_model", str(address)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    ready = http_probe(partial(UnixConnection, address), "/health")
    async with asyncio.timeout(60):
        while not await ready():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.05)
    transport = httpx.AsyncHTTPTransport(uds=str(address))
    async with httpx.AsyncClient(transport=transport, base_url="http://model", timeout=60) as client:
        yield client
    assert process.returncode is None, "it still runs"
    process.terminate()
    assert await process.wait() == 0


async def test_it_speaks_and_survives(model: httpx.AsyncClient) -> None:
    async with model.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as answer:
        words = [line async for line in answer.aiter_lines() if line.startswith("data: {")]
    assert len(words) > 3
    listed = (await model.get("/v1/models")).json()
    assert [found["id"] for found in listed["data"]] == [MODEL_ID]

    refused = [
        await model.post("/v1/chat/completions", content=b"{"),
        await model.post("/v1/chat/completions", json={"messages": "none"}),
        await model.post("/v1/chat/completions", json={**HELLO, "messages": [{"role": "user"}]}),
        await model.post("/v1/chat/completions", json={**HELLO, "max_tokens": "many"}),
        await model.get("/nothing"),
        # Longer than its context.
        await model.post("/v1/completions", json={"prompt": "word " * 20_000, "max_tokens": 1}),
    ]
    assert all(400 <= answer.status_code < 500 for answer in refused), [answer.status_code for answer in refused]
    with pytest.raises(httpx.ReadTimeout):
        await model.post("/v1/completions", json={"prompt": "x " * 600, "max_tokens": 500}, timeout=0.2)
    assert (await model.post("/v1/chat/completions", json=HELLO)).status_code == 200
