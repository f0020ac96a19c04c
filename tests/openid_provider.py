"""The certified OpenID provider of `tests/oidc_provider`, as a process."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

FOLDER = Path(__file__).parent / "oidc_provider"
CLIENT_SECRET = "the secret of the box/with +signs"


@dataclass(frozen=True)
class OpenIdProvider:
    """A running provider."""

    url: str

    async def put(self, account: str, **claims: Any) -> None:
        """Say anew who somebody is."""
        async with httpx.AsyncClient(trust_env=False) as http:
            (await http.put(f"{self.url}/accounts/{account}", json=claims)).raise_for_status()


@asynccontextmanager
async def open_id_provider(redirect_uri: str) -> AsyncIterator[OpenIdProvider]:
    """Run one."""
    if not (FOLDER / "node_modules").exists():
        raise RuntimeError("the OpenID provider of the tests is not installed; run `make test-tools`")
    env = {"PATH": os.environ["PATH"], "ACCOUNTS": json.dumps({}), "REDIRECT_URI": redirect_uri}
    process = await asyncio.create_subprocess_exec(
        "node", "server.js", cwd=FOLDER, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            port = int(await process.stdout.readline())
        yield OpenIdProvider(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        await process.wait()
