"""One Sandbox service and one sandbox for all tests of this folder that do not break it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.kit.ids import OPERATOR
from tests.contract.sandbox.rig import Rig, sandbox_rig
from tests.postgres import TestServer


@pytest_asyncio.fixture(scope="session")
async def rig(postgres: TestServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The service."""
    async with sandbox_rig(postgres.database("sandbox"), tmp_path_factory.mktemp("sandbox")) as rig:
        yield rig


@pytest_asyncio.fixture
async def sandbox_id(rig: Rig) -> str:
    """The operator's sandbox, running."""
    return (await rig.claim(OPERATOR)).sandbox.sandbox_id
