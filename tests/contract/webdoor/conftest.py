"""A running door for each test, and a certified OpenID provider for all."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.contract.webdoor.rig import BOX, Web, web_door
from tests.openid_issuer import ForgingIssuer, forging
from tests.openid_provider import OpenIdProvider, open_id_provider


@pytest.fixture
async def web(database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Web]:
    """The door."""
    async with web_door(database("identity"), tmp_path) as door:
        yield door


@pytest.fixture(scope="session")
async def idp() -> AsyncIterator[OpenIdProvider]:
    """The certified provider."""
    async with open_id_provider(f"{BOX}/v1/auth/callback") as provider:
        yield provider


@pytest.fixture
async def issuer() -> AsyncIterator[ForgingIssuer]:
    """The one that forges."""
    async with forging() as found:
        yield found
