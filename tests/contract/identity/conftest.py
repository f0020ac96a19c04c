"""A running room of identity for each test."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.kit.keyring import Keyring
from tests.contract.identity.rig import Rig, running


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    """The keyring of the installation."""
    return Keyring.open(tmp_path / "keyring")


@pytest.fixture
def url(database: Callable[..., str]) -> str:
    """The address of the database."""
    return database("identity")


@pytest.fixture
async def rig(url: str, keyring: Keyring) -> AsyncIterator[Rig]:
    """One replica."""
    async with running(url, keyring) as rigs:
        yield rigs[0]
