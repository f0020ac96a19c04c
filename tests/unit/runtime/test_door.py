"""What the door keeps in memory, and when it forgets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from services.kit.ids import DEFAULT_TENANT, OPERATOR
from services.runtime import door as module
from services.runtime.bundle import Base
from services.runtime.door import Door, DoorClosed
from services.runtime.installation import Installation
from services.runtime.provider import Provider
from services.runtime.store import Store, TokenHolder
from tests.keyring.memory import memory_keyring

HOLDER = TokenHolder(DEFAULT_TENANT, OPERATOR, uuid4())
HEADERS = {"authorization": "Bearer token"}


@dataclass
class SlowStore:
    """Knows one token until it does not, and counts how often it is asked."""

    holder: TokenHolder | None = HOLDER
    asked: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["SlowStore"]:
        """Open nothing."""
        yield self

    async def token_holder(self, digest: bytes) -> TokenHolder | None:
        """What is known at this moment, told when the gate opens."""
        self.asked += 1
        found = self.holder
        await self.gate.wait()
        return found

    async def applied(self, tenant_id: UUID) -> list[Provider]:
        """Nothing but the demo model."""
        return []


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


def door(store: SlowStore, clock: Any = lambda: 0.0) -> Door:
    box = Installation(memory_keyring(), Base({}, {}, {}), Path(), Path(), "", "/run/demo.sock")
    return Door(box, cast("Store", store), clock)


async def test_what_was_asked_a_moment_ago_is_not_asked_again(store: SlowStore) -> None:
    store.gate.set()
    time = [0.0]
    it = door(store, lambda: time[0])
    for _ in range(3):
        await it.check("GET", "/demo/models", HEADERS)
    assert store.asked == 1

    time[0] = module.KEPT_SECONDS + 1
    store.holder = None
    with pytest.raises(DoorClosed):
        await it.check("GET", "/demo/models", HEADERS)


async def test_an_answer_from_before_is_not_kept(store: SlowStore) -> None:
    it = door(store)
    early = asyncio.create_task(it.check("GET", "/demo/models", HEADERS))
    await asyncio.sleep(0)
    store.holder = None
    it.forget()
    store.gate.set()
    await early

    with pytest.raises(DoorClosed) as closed:
        await it.check("GET", "/demo/models", HEADERS)
    assert closed.value.status == 401


async def test_memory_does_not_grow_without_end(store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_ENTRIES", 3)
    store.gate.set()
    it = door(store)
    for number in range(10):
        await it.check("GET", "/demo/models", {"x-api-key": f"token-{number}"})
    assert len(it._holders.entries) <= 3
