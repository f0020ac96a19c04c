"""Envoy in the mesh: it proves its name, believes only the services that it was told of, and renews while it runs."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from services.box.transport import Mesh
from services.kit.certificates import Authority, new_installation_id, write_issued
from services.kit.mesh import MeshIdentity
from tests.e2e.box.conftest import edge_in, running_envoy
from tests.e2e.box.stand_in import StandInSessions, StandInTurns, start_api
from tests.identities import authority, identity

LIFE = timedelta(seconds=3)


@asynccontextmanager
async def renewed(certificates: Path) -> AsyncIterator[None]:
    """Certificates of a few seconds, replaced at half their life."""

    def renew() -> None:
        for name in ("envoy", "api"):
            write_issued(certificates / name, authority().issue(name, LIFE))

    async def for_ever() -> None:
        while True:
            await asyncio.sleep(LIFE.total_seconds() / 2)
            renew()

    renew()
    task = asyncio.create_task(for_ever())
    try:
        yield
    finally:
        task.cancel()


def client(port: int) -> httpx.AsyncClient:
    """A client of the edge."""
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False)


async def test_envoy_and_api_renew_under_requests_and_streams(folder: Path, tmp_path: Path) -> None:
    certificates = tmp_path / "certs"
    edge = edge_in(folder)
    edge = replace(edge, mesh=replace(edge.mesh, certificates=certificates / "envoy"))
    sessions, turns = StandInSessions(), StandInTurns()  # type: ignore[abstract]
    async with renewed(certificates):
        own = MeshIdentity.load(certificates / "api")
        api = await start_api(edge.api_addresses[0], sessions, turns, own)
        async with running_envoy(folder, edge), client(edge.port) as http:
            async with http.stream("GET", "/v1/turns/endless/events", timeout=None) as stream:
                assert stream.status_code == 200
                end = time.monotonic() + 3 * LIFE.total_seconds()
                while time.monotonic() < end:
                    assert (await http.post("/v1/sessions", json={})).is_success
                    await asyncio.sleep(0.05)
                assert len(sessions.certificates) >= 3, "Envoy connects anew with each new certificate"
                assert not turns.cancelled.is_set(), "the stream went on"
            # What is connected anew proves itself with what is valid now.
            await api.stop(0)
            api = await start_api(edge.api_addresses[0], sessions, turns, own)
            for _ in range(20):
                assert (await http.get("/v1/healthz")).is_success
        await api.stop(0)


@pytest.mark.parametrize("impostor", ["worker", "stranger"])
async def test_envoy_believes_no_other_service(folder: Path, tmp_path: Path, impostor: str) -> None:
    """Neither another service of this installation, nor the Api of another."""
    if impostor == "stranger":
        other = Authority.create(tmp_path / "ca", new_installation_id())
        write_issued(tmp_path / "api", other.issue("api"))
        own = MeshIdentity.load(tmp_path / "api")
    else:
        own = identity(impostor)
    edge = edge_in(folder)
    sessions = StandInSessions()  # type: ignore[abstract]
    api = await start_api(edge.api_addresses[0], sessions, StandInTurns(), own)  # type: ignore[abstract]
    async with running_envoy(folder, edge), client(edge.port) as http:
        assert (await http.post("/v1/sessions", json={})).status_code == 503
    assert not sessions.metadata
    await api.stop(0)


async def test_api_believes_no_envoy_of_another_installation(folder: Path, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "ca", new_installation_id())
    write_issued(tmp_path / "envoy", other.issue("envoy"))
    # It trusts our Api, and asks for it by its right name.
    (tmp_path / "envoy" / "ca.pem").unlink()
    (tmp_path / "envoy" / "ca.pem").write_bytes(authority().issue("envoy").roots)
    edge = edge_in(folder)
    edge = replace(edge, mesh=Mesh(tmp_path / "envoy", folder, authority().installation))
    sessions = StandInSessions()  # type: ignore[abstract]
    api = await start_api(edge.api_addresses[0], sessions, StandInTurns(), identity("api"))  # type: ignore[abstract]
    async with running_envoy(folder, edge), client(edge.port) as http:
        with suppress(httpx.TimeoutException):
            assert (await http.post("/v1/sessions", json={})).status_code == 503
    assert not sessions.metadata
    await api.stop(0)
