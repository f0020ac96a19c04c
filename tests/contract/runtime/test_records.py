"""What changes in Runtime is on record with the change, and what was refused changes nothing and is not."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from orginabox.runtime.v1 import provider_pb2
from orginabox.runtime.v1 import runtime_service_pb2 as pb

from services.kit.tenancy import as_system
from services.runtime import operations
from tests.contract.runtime.rig import TENANT, Runtime, runtime


@pytest.fixture
async def rt(database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Runtime]:
    async with runtime(database("runtime"), tmp_path) as running:
        yield running


async def recorded(rt: Runtime) -> list[tuple[str, str, dict[str, Any]]]:
    """What waits to be brought to the log."""
    with as_system():
        async with rt.store._database.transaction() as tx:
            rows = await tx.many("read_audit_outbox", count=100)
    found = [json.loads(row["record"]) for row in rows]
    return [(record["action"], record["target"], record["payload"]) for record in found]


def ollama(name: str = "local") -> provider_pb2.Provider:
    return provider_pb2.Provider(
        provider_id=name, kind=provider_pb2.PROVIDER_KIND_OLLAMA, models=["m"], base_url="http://127.0.0.1:9"
    )


async def test_each_change_is_on_record(rt: Runtime) -> None:
    await rt.create(ollama(), key="a-secret")
    await rt.update(ollama(), "models", key="another-secret")
    for _ in range(2):
        await rt.stub.ApplyRuntime(pb.ApplyRuntimeRequest(tenant_id=TENANT))
    await rt.delete("local")
    found = await recorded(rt)
    assert [(action, target) for action, target, _ in found] == [
        ("admin.provider_create", "provider:local"),
        ("admin.provider_update", "provider:local"),
        ("admin.runtime_apply", "runtime"),
        ("admin.provider_delete", "provider:local"),
    ]
    assert found[1][2] == {"changed": ["api_key", "models"]}
    assert "secret" not in str(found).replace("api_key", "")


async def test_what_was_refused_or_undone_is_not_on_record(rt: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    await rt.create(ollama())
    before = await recorded(rt)
    with pytest.raises(grpc.aio.AioRpcError):
        await rt.create(ollama())
    with pytest.raises(grpc.aio.AioRpcError):
        await rt.delete("unknown")

    async def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(operations, "_stage", full)
    with pytest.raises(grpc.aio.AioRpcError):
        await rt.delete("local")
    assert "local" in {provider.provider_id for provider in await rt.providers()}
    assert await recorded(rt) == before
