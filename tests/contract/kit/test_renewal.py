"""Certificates of a few seconds: calls and streams go on over many renewals on both sides, without a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from services.kit.certificates import write_issued
from services.kit.channel import connect
from services.kit.mesh import MeshIdentity
from tests.contract.kit.echo import echo, who
from tests.identities import authority, identity

LIFE = timedelta(seconds=3)


@dataclass
class Renewed:
    """Two identities whose certificates are replaced at half their life, as the supervisor does."""

    folder: Path
    names: tuple[str, ...] = ("queue", "worker")
    renewals: int = -1
    _task: asyncio.Task[None] | None = field(default=None, repr=False)

    def renew(self) -> None:
        """Replace both."""
        for name in self.names:
            write_issued(self.folder / name, authority().issue(name, LIFE))
        self.renewals += 1

    def identity(self, name: str) -> MeshIdentity:
        """One of the two."""
        return MeshIdentity.load(self.folder / name)

    async def for_ever(self) -> None:
        """Renew until told to stop."""
        while True:
            self.renew()
            await asyncio.sleep(LIFE.total_seconds() / 2)


@asynccontextmanager
async def renewed(folder: Path) -> AsyncIterator[Renewed]:
    """Identities that are renewed until the block ends."""
    made = Renewed(folder / "certs")
    made.renew()
    task = asyncio.create_task(made.for_ever())
    try:
        yield made
    finally:
        task.cancel()


async def test_calls_and_streams_go_on_over_renewals(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/q.sock"
    async with (
        renewed(tmp_path) as certificates,
        echo(address, certificates.identity("queue")),
        connect(address, to="queue", identity=certificates.identity("worker")) as channel,
    ):
        counted: list[int] = []
        stream = channel.unary_stream("/echo.Echo/Count")(b"")

        async def listen() -> None:
            async for number in stream:
                counted.append(int(number))  # noqa: PERF401 - it is looked at meanwhile

        listening = asyncio.create_task(listen())
        seen = set()
        while certificates.renewals < 6:
            name, serial = await who(channel)
            assert name == "worker"
            seen.add(serial)
            await asyncio.sleep(0.05)
        assert len(seen) >= 5, "new connections come with new certificates"
        assert counted == list(range(1, len(counted) + 1)), "the stream went on"
        assert len(counted) > 200
        assert len(channel._retired) == 1, "only the channel of the stream is still open"
        stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening
        await asyncio.sleep(0.2)
        assert not channel._retired


async def test_a_server_that_starts_again_has_the_newest_certificate(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/q.sock"
    async with (
        renewed(tmp_path) as certificates,
        connect(address, to="queue", identity=certificates.identity("worker")) as channel,
    ):
        server = certificates.identity("queue")
        for _ in range(3):
            async with echo(address, server):
                assert (await who(channel))[0] == "worker"
            await asyncio.sleep(1.6)


async def test_a_server_that_runs_takes_its_new_certificate(tmp_path: Path) -> None:
    """Else clients that come later would be refused."""
    address = f"unix://{tmp_path}/q.sock"
    async with renewed(tmp_path) as certificates, echo(address, certificates.identity("queue")):
        await asyncio.sleep(LIFE.total_seconds() + 0.5)
        async with connect(address, to="queue", identity=certificates.identity("worker")) as channel:
            assert (await who(channel))[0] == "worker"


async def test_a_certificate_of_somebody_else_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "worker"
    write_issued(folder, authority().issue("worker"))
    made = MeshIdentity.load(folder)
    before = made.credentials
    write_issued(folder, authority().issue("api"))
    made._look_at = 0
    assert made.credentials is before
    assert made.name == "worker"


async def test_calls_under_load_survive_the_change_of_the_channel(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/q.sock"
    folder = tmp_path / "worker"
    write_issued(folder, authority().issue("worker"))
    made = MeshIdentity.load(folder)
    stop = asyncio.Event()

    async with echo(address, identity("queue")), connect(address, to="queue", identity=made) as channel:

        async def call() -> int:
            calls = 0
            while not stop.is_set():
                assert (await who(channel))[0] == "worker"
                calls += 1
            return calls

        calling = [asyncio.create_task(call()) for _ in range(16)]
        for _ in range(8):
            await asyncio.sleep(0.3)
            write_issued(folder, authority().issue("worker"))
        stop.set()
        assert sum(await asyncio.gather(*calling)) > 100
        await asyncio.sleep(0.1)
        assert not channel._retired
        assert isinstance(channel, grpc.aio.Channel)
