"""The fleet looks after its sandboxes for as long as the service runs."""

import asyncio
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from services.sandbox.bubblewrap import Bubblewrap
from services.sandbox.fleet import Fleet, Place


async def test_a_round_that_breaks_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(volumes=tmp_path, runtime=tmp_path, model_door=tmp_path, idle_seconds=0.01)
    fleet = Fleet(Bubblewrap(tmp_path), place, AsyncMock(), AsyncMock())
    went_well = asyncio.Event()
    rounds = 0

    async def sweep() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise KeyError
        went_well.set()

    monkeypatch.setattr(fleet, "sweep", sweep)
    sweeping = asyncio.create_task(fleet.sweep_for_ever())
    try:
        await asyncio.wait_for(went_well.wait(), 5)
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
