"""Audit on a database of its own for each test."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.store.audit.room import Rig, rig_on


@pytest.fixture
async def rig(database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_on(database("audit"), tmp_path / "home") as found:
        yield found
